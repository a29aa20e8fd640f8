//! What was learned of a workload outlives the autoscalers that learned it.

use std::{collections::BTreeMap, net::SocketAddr};

use integration::client::{Account, fetch, get};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::Value;

use super::deaths::whole_again;
use crate::{
    Space,
    space::{LONG, Model, SYSTEM},
};

const AUTOSCALERS: &str = "app.kubernetes.io/name=rouse-autoscaler";
/// Where an autoscaler tells what it has decided.
const ADMIN_PORT: u16 = 9094;

/// What is kept of the workload.
async fn kept(space: &Space) -> Option<Value> {
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), SYSTEM);
    let all = maps.list(&ListParams::default()).await.ok()?.items;
    let learned = all.into_iter().filter(|map| {
        let name = map.metadata.name.as_deref().unwrap_or_default();
        name.starts_with("rouse-learned-")
    });
    let entries: BTreeMap<String, String> = learned.filter_map(|map| map.data).flatten().collect();
    serde_json::from_str(entries.get(&format!("{}_m", space.name))?).ok()
}

/// The seconds that each autoscaler expects a start to take, of those that say so.
async fn expected(space: &Space) -> Vec<f64> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), SYSTEM);
    let of = ListParams::default().labels(AUTOSCALERS);
    let mut all = Vec::new();
    for pod in pods.list(&of).await.unwrap().items {
        let ip = pod.status.and_then(|status| status.pod_ip?.parse().ok());
        let Some(ip) = ip else { continue };
        let path = format!("/debug/decisions/{}/m", space.name);
        let answer = fetch(SocketAddr::new(ip, ADMIN_PORT), get(&path)).await;
        let Ok(answer) = answer else { continue };
        let decisions: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
        let last = decisions.as_array().and_then(|all| all.last().cloned());
        let seconds = last.and_then(|last| last["decision"]["inputs"]["start_time"].as_f64());
        all.extend(seconds);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_learned_of_a_start_survives_the_autoscalers() {
    let space = Space::new("learned").await;
    let address = space
        .deploy(&Model::new("m").flags(&["--start-delay=8s"]))
        .await;
    let account = Account::default();
    let answer = account.send(address, None, get("/work")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let entry = space
        .until("it is kept", LONG, async || kept(&space).await)
        .await;
    let took = entry["starts"][0]["took_ms"][0].as_u64().unwrap();
    assert!((7_000..30_000).contains(&took), "{entry}");
    assert_eq!(
        entry["starts"][0]["class"]["image_present"], true,
        "{entry}"
    );

    let pods: Api<Pod> = Api::namespaced(space.client.clone(), SYSTEM);
    let params = DeleteParams::default().grace_period(0);
    let of = ListParams::default().labels(AUTOSCALERS);
    pods.delete_collection(&params, &of).await.unwrap();
    whole_again(&space).await;
    let both = space
        .until("both autoscalers know it", LONG, async || {
            let both = expected(&space).await;
            (both.len() == 2).then_some(both)
        })
        .await;
    println!("a start took {took} ms, the new autoscalers expect {both:?} s");
    assert!(both.iter().all(|seconds| *seconds > 6.0), "{both:?}");
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}
