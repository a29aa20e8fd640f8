//! How long a cold start takes, beside what Kubernetes alone takes for the same pod: figures, not a verdict.
//!
//! Three Deployments of the same model are woken in turn: one without Rouse, one with an idle native sidecar, and one with Rouse.
//! The first two are scaled by us and asked every 2 ms from the moment that their pod has an address; the last one is simply
//! asked. `ROUSE_E2E_STARTS` says how many times.

use std::{env, net::SocketAddr, time::Duration};

use integration::client::{Account, fetch, get};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Space,
    space::{LONG, Model, service},
};

/// Between two questions of a floor.
const PACE: Duration = Duration::from_millis(2);

pub(super) async fn scale(space: &Space, name: &str, replicas: u32) {
    let deployments: Api<Deployment> = space.api();
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments
        .patch_scale(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn asleep(space: &Space, name: &str) {
    scale(space, name, 0).await;
    space.settled(name, 0, LONG * 2).await;
}

/// From the order to start to the first answer of the pod itself.
async fn floor(space: &Space, name: &str) -> Duration {
    let pods: Api<Pod> = space.api();
    let of = ListParams::default().labels(&format!("app={name}"));
    let began = Instant::now();
    scale(space, name, 1).await;
    let ip = space
        .until("an address", LONG, async || {
            let pod = pods.list(&of).await.ok()?.items.pop()?;
            pod.status?.pod_ip?.parse().ok()
        })
        .await;
    let address = SocketAddr::new(ip, 8080);
    while fetch(address, get("/work")).await.is_err() {
        sleep(PACE).await;
    }
    began.elapsed()
}

/// Phases of a wake, as its answer's header tells them.
pub(super) fn phase(timing: &str, name: &str) -> f64 {
    let prefix = format!("{name};dur=");
    let found = timing
        .split(", ")
        .find_map(|part| part.strip_prefix(prefix.as_str()));
    found.and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

/// The median and the 95th percentile, in milliseconds.
fn summary(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let at = |per_cent: usize| figures[(figures.len() * per_cent / 100).min(figures.len() - 1)];
    format!("p50 {:.1} ms, p95 {:.1} ms", at(50), at(95))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_starts_beside_what_kubernetes_alone_takes() {
    let starts = env::var("ROUSE_E2E_STARTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(3);
    let space = Space::new("floors").await;
    let address = space.deploy(&Model::new("rouse")).await;
    space.create(&Model::new("alone").plain()).await;
    let mut beside = space.deployment(&Model::new("beside").plain());
    let idle = json!([{
        "name": "idle", "image": "docker.io/library/tiny-model:dev", "imagePullPolicy": "Never",
        "restartPolicy": "Always", "args": ["--port=8012"], "securityContext": {"runAsUser": 0},
    }]);
    let pod = beside
        .spec
        .as_mut()
        .unwrap()
        .template
        .spec
        .as_mut()
        .unwrap();
    pod.init_containers = serde_json::from_value(idle).unwrap();
    space.create_objects(&service("beside"), &beside).await;
    let (mut alone, mut sidecar, mut total, mut patched, mut after) =
        (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..starts {
        alone.push(floor(&space, "alone").await.as_secs_f64() * 1e3);
        asleep(&space, "alone").await;
        sleep(Duration::from_secs(1)).await;
        sidecar.push(floor(&space, "beside").await.as_secs_f64() * 1e3);
        asleep(&space, "beside").await;
        sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        let asked = Account::default();
        let answer = timeout(LONG, asked.send(address, None, get("/work")))
            .await
            .unwrap()
            .unwrap();
        total.push(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let timing = answer.header("rouse-timing");
        patched.push(phase(timing, "patched"));
        after.push(phase(timing, "first_byte") - phase(timing, "model_ready"));
        // By itself: who writes the scale of a workload that has load in its window has it written back.
        space.settled("rouse", 0, LONG * 2).await;
        sleep(Duration::from_secs(1)).await;
    }
    println!("{starts} cold starts of each, in turn");
    println!("  the Deployment alone:       {}", summary(alone));
    println!("  with an idle sidecar:       {}", summary(sidecar));
    println!("  through Rouse:              {}", summary(total));
    println!("  request to patch acked:     {}", summary(patched));
    println!("  model ready to first byte:  {}", summary(after));
    space.end().await;
}
