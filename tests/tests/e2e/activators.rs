//! What the activators say of a workload of ours: they are asked directly, each of them.

use std::net::{IpAddr, SocketAddr};

use integration::client::{fetch, get};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, api::ListParams};
use kubernetes::{Claim, names};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    Space,
    space::{LONG, SYSTEM},
};

/// The addresses of all activators.
pub(crate) async fn addresses(space: &Space) -> Vec<IpAddr> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), SYSTEM);
    let of = ListParams::default().labels(names::ACTIVATOR_SELECTOR);
    let pods = pods.list(&of).await.unwrap().items;
    let address = |pod: Pod| pod.status?.pod_ip?.parse().ok();
    pods.into_iter().filter_map(address).collect()
}

async fn ask(space: &Space, path: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for ip in addresses(space).await {
        let address = SocketAddr::new(ip, names::ACTIVATOR_STATS_PORT);
        let answer = timeout(LONG, fetch(address, get(path))).await;
        answers.push(answer.unwrap().unwrap().text());
    }
    answers
}

/// Requests of a workload that have ended at an activator, over all outcomes and activators.
pub(crate) async fn requests(space: &Space, name: &str) -> usize {
    let series = format!(
        "rouse_activator_requests_total{{target=\"{}/{name}\"",
        space.name
    );
    let metrics = ask(space, "/metrics").await;
    let lines = metrics.iter().flat_map(|text| text.lines());
    lines
        .filter(|line| line.starts_with(&series))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// The last wakes of a workload, as `/debug/wakes` has them.
pub(crate) async fn wakes(space: &Space, name: &str) -> Vec<Value> {
    let target = format!("{}/{name}", space.name);
    let all = ask(space, "/debug/wakes").await;
    let wakes = all
        .iter()
        .flat_map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap());
    wakes.filter(|wake| wake["target"] == target).collect()
}

/// The claims of a workload, those that rest included.
pub(crate) async fn claims(space: &Space, name: &str) -> Vec<Claim> {
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), SYSTEM);
    let of = ListParams::default().labels(names::CLAIM);
    let maps = maps.list(&of).await.unwrap().items;
    let claims = maps
        .iter()
        .map(|map| Claim::from_config_map(map).expect("a claim"));
    let target = format!("{}/{name}", space.name);
    claims
        .filter(|claim| claim.target.to_string() == target)
        .collect()
}
