//! A model that hangs: nothing of ours may keep Kubernetes from restarting it.

use std::time::Duration;

use integration::client::{Account, get};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ContainerStatus};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Space,
    space::{LONG, Model, service},
};

/// By which the kubelet notices: so often it asks, and so many answers must be missing, each after [`TIMEOUT`].
const PERIOD: u64 = 1;
const FAILURES: u64 = 2;
/// A model that is well may be slow on a busy machine.
const TIMEOUT: u64 = 3;
/// The pod's own grace period.
const GRACE: u64 = 4;
/// For the kubelet and the container runtime, on two busy cores. Far below what injection makes of the pod's grace period, which is
/// over two minutes.
const SLACK: Duration = Duration::from_secs(40);

/// With a liveness probe, and a short grace period of the user's own. A drain may take much longer, so injection raises it.
fn alive(deployment: Deployment) -> Deployment {
    let mut object = serde_json::to_value(deployment).unwrap();
    object["metadata"]["annotations"]["rouse.dev/drain-grace"] = json!("2m");
    let pod = &mut object["spec"]["template"]["spec"];
    pod["terminationGracePeriodSeconds"] = json!(GRACE);
    pod["containers"][0]["livenessProbe"] = json!({
        "httpGet": {"path": "/ready", "port": "http"},
        "periodSeconds": PERIOD, "timeoutSeconds": TIMEOUT, "failureThreshold": FAILURES,
    });
    serde_json::from_value(object).unwrap()
}

/// How the model's container is, in the one pod.
async fn container(space: &Space) -> Option<ContainerStatus> {
    let pod = space.pods("m").await.pop()?;
    let containers = pod.status?.container_statuses?;
    containers.into_iter().find(|one| one.name == "model")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_hangs_is_restarted_by_its_liveness_probe_in_its_own_time() {
    let space = Space::new("hung").await;
    let model = Model::new("m")
        .replicas(1)
        .annotate("autoscaling.knative.dev/min-scale", "1");
    let deployment = alive(space.deployment(&model));
    space.create_objects(&service("m"), &deployment).await;
    space.adopted("m").await;
    space.settled("m", 1, LONG).await;
    let address = space.address("m").await;
    let account = Account::default();
    let hang = account.send(address, None, get("/hang"));
    assert_eq!(timeout(LONG, hang).await.unwrap().unwrap().status, 200);
    let began = Instant::now();
    // They never get an answer, and so the model does not end upon SIGTERM: it has to be killed.
    let mut stuck = JoinSet::new();
    for _ in 0..4 {
        let account = account.clone();
        stuck.spawn(async move { account.send(address, None, get("/work")).await });
    }
    let restarted = space
        .until("a restart", LONG * 2, async || {
            container(&space).await.filter(|one| one.restart_count > 0)
        })
        .await;
    let took = began.elapsed();
    println!("restarted after {took:?}");
    assert_eq!(restarted.restart_count, 1);
    let allowed = Duration::from_secs((FAILURES + 1) * (PERIOD + TIMEOUT) + GRACE) + SLACK;
    assert!(took < allowed, "{took:?} is more than {allowed:?}");
    for answer in timeout(LONG, stuck.join_all()).await.unwrap() {
        assert_eq!(answer.unwrap().status, 502, "it ended with its model");
    }
    let again = account.send(address, None, get("/work"));
    let again = timeout(LONG, again).await.unwrap().unwrap();
    assert_eq!(again.status, 200, "{}", again.text());
    let ledger = space.ledger("m", &account.told()).checked();
    assert_eq!((ledger.good, ledger.bad.len()), (2, 4), "{:?}", ledger.bad);
    space.end().await;
}
