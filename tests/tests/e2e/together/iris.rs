//! The real model server in real pods, from zero to some and back.

use std::time::Duration;

use integration::{
    client::{Account, fetch, get, post},
    load,
};
use tokio::time::{Instant, timeout};

use crate::{
    Space,
    iris::{NAME, PREDICT, deploy, environment},
    space::LONG,
};

/// One flower, of the first of three kinds.
const FLOWER: &str = r#"{"instances": [[5.1,3.5,1.4,0.2]]}"#;

#[tokio::test]
#[ignore = "cargo xtask e2e runs it before the others, outside of the cluster's network"]
async fn prepare() {
    assert!(environment().await.is_file());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn iris_wakes_from_zero_scales_and_sleeps_without_an_error() {
    let space = Space::new("iris").await;
    let address = deploy(&space, 3).await;
    let began = Instant::now();
    let first = timeout(
        LONG * 2,
        Account::default().send(address, None, post(PREDICT, FLOWER)),
    )
    .await
    .unwrap()
    .unwrap();
    println!(
        "the first prediction took {:?}: {}",
        began.elapsed(),
        first.header("rouse-timing")
    );
    assert_eq!(
        (first.status.as_u16(), first.text().as_str()),
        (200, r#"{"predictions":[0]}"#)
    );
    let timing = first.header("rouse-timing").to_owned();
    for phase in [
        "hold",
        "patched",
        "pod_scheduled",
        "pod_seen",
        "sidecar_started",
        "port_open",
        "model_ready",
        "first_byte",
    ] {
        assert!(timing.contains(phase), "{phase} is not in {timing}");
    }

    // GETs of the model's metadata are load as well as predictions are, and the load tester counts every one.
    let url = format!("http://{address}/v2/models/sklearn-iris");
    let run =
        tokio::spawn(
            async move { load::run(&url, 12, load::closed(Duration::from_secs(25))).await },
        );
    space
        .until("more than one replica", LONG, async || {
            (space.replicas(NAME).await.1 > 1).then_some(())
        })
        .await;
    let (report, _) = timeout(LONG * 2, run).await.unwrap().unwrap();
    println!("{} requests", report.summary.requests);
    assert_eq!(report.summary.error_count, 0, "{:?}", report.summary.errors);
    space.settled(NAME, 0, LONG * 3).await;
    let again = timeout(
        LONG * 2,
        fetch(address, get("/v2/models/sklearn-iris/ready")),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(again.status, 200);
    space.end().await;
}
