//! What the programs may do, beyond what RBAC can say.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, Error,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    Space,
    space::{LONG, Model, SYSTEM},
};

/// The API server as the autoscaler sees it.
async fn autoscaler() -> Client {
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{SYSTEM}:rouse-autoscaler"));
    Client::try_from(config).unwrap()
}

async fn patch(pods: &Api<Pod>, name: &str, change: Value) -> Result<(), String> {
    let patched = pods
        .patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await;
    match patched {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_autoscaler_writes_one_annotation_of_enabled_pods_and_nothing_else() {
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let space = Space::new("rights").await;
    space.deploy(&Model::new("m").replicas(1)).await;
    space.deploy(&Model::new("p").plain().replicas(1)).await;
    space.settled("m", 1, LONG).await;
    let name = |app: &'static str| {
        let space = &space;
        async move { space.pods(app).await.remove(0).metadata.name.unwrap() }
    };
    let (ours, plain) = (name("m").await, name("p").await);
    let pods: Api<Pod> = Api::namespaced(autoscaler().await, &space.name);
    let cost = |value: Value| json!({"metadata": {"annotations": {COST: value}}});

    // As it is at work: a new one, another one, none.
    for value in [json!("3"), json!("4"), Value::Null] {
        assert_eq!(patch(&pods, &ours, cost(value)).await, Ok(()));
    }
    let image = json!([{"name": "model", "image": "docker.io/library/rouse:dev"}]);
    let mut refused = vec![patch(&pods, &plain, cost(json!("3"))).await];
    for change in [
        json!({"metadata": {"annotations": {"rouse.dev/upstream-ports": "1"}}}),
        json!({"metadata": {"annotations": {"rouse.dev/workload": null}}}),
        json!({"metadata": {"annotations": {COST: "3", "a": "b"}}}),
        json!({"metadata": {"labels": {"app": "other"}}}),
        json!({"metadata": {"finalizers": ["rouse.dev/x"]}}),
        json!({"metadata": {"ownerReferences": null}}),
        json!({"spec": {"activeDeadlineSeconds": 1}}),
    ] {
        refused.push(patch(&pods, &ours, change).await);
    }
    let params = PatchParams::default();
    let change = Patch::Strategic(json!({"spec": {"containers": image}}));
    refused.push(match pods.patch(&ours, &params, &change).await {
        Err(Error::Api(status)) => Err(status.message),
        other => panic!("{other:?}"),
    });
    for answer in refused {
        let message = answer.expect_err("refused");
        assert!(
            message.contains("ValidatingAdmissionPolicy 'rouse-autoscaler'"),
            "{message}"
        );
    }
    space.end().await;
}
