//! Health checks of a workload that sleeps, answered without waking it.

use std::sync::Arc;

use activator::{Barred, WorkloadConfig};
use autoscaler_core::OptIns;

use crate::{
    bed::{Bed, Pod, outcomes, until},
    h2::{Connection, Frames},
    http1::{Raw, ask, get, post},
};

fn probed(status: u16) -> impl FnOnce(&mut WorkloadConfig) {
    move |config| {
        config.opt_ins = Some(Arc::new(OptIns {
            probe_paths: vec!["/healthz".into(), "/metrics".into()],
            probe_answer: Some(status),
            ..OptIns::default()
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_at_once_wakes_nothing_and_is_no_load() {
    let metrics = crate::bed::metrics();
    let bed = Bed::new();
    let site = bed.site("probed", probed(203));
    let mut raw = Raw::open(site.address()).await;
    for (asked, body) in [
        (get("/healthz", "x"), true),
        (get("/metrics?verbose&x=/", "x"), true),
        (
            "HEAD /healthz HTTP/1.1\r\nhost: t\r\n\r\nGET /healthz HTTP/1.1\r\nhost: t\r\n\r\n"
                .into(),
            false,
        ),
    ] {
        raw.send(asked).await;
        if !body {
            let head = raw.until(b"\r\n\r\n").await.unwrap();
            assert!(head.starts_with(b"HTTP/1.1 203 "));
        }
        // On the same connection: what follows a HEAD's head is the next answer.
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status, 203);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.text().starts_with("rouse: no pod is ready"));
    }
    let over_h2 = Connection::open(site.address()).await;
    let request = http::Request::get("http://t/healthz").body(Frames::whole(b""));
    let answer = over_h2.send(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 203);

    assert_eq!((bed.scale.count(), site.workload.held()), (0, 0));
    let told = ask(
        bed.activator.stats_address().unwrap(),
        get("/stat?since=0", "-"),
    )
    .await;
    assert!(!told.text().contains("default/probed"), "{}", told.text());
    assert_eq!(
        outcomes(&metrics, "default/probed"),
        [("probe-answered".to_owned(), 5)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_not_exactly_a_probe_is_held_and_a_pod_that_is_ready_is_asked() {
    let bed = Bed::new();
    let site = bed.site("a", probed(200));
    let mut held = Vec::new();
    for (n, asked) in [
        get("/healthz/", "slash").into_bytes(),
        get("/health", "short").into_bytes(),
        get("/HEALTHZ", "case").into_bytes(),
        get("/%68ealthz", "coded").into_bytes(),
        post("/healthz", "post", b"x"),
    ]
    .into_iter()
    .enumerate()
    {
        held.push(Raw::sent(site.address(), asked).await);
        site.holds(n + 1).await;
    }
    until("woken", || bed.scale.count() == 1).await;
    assert_eq!(ask(site.address(), get("/healthz", "x")).await.status, 200);
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    for raw in &mut held {
        assert_eq!(raw.answer().await.unwrap().status, 200);
    }
    assert!(!pod.model.ids().contains(&"x".to_owned()));
    let answer = ask(site.address(), get("/healthz", "warm")).await;
    assert_eq!(answer.header("x-model"), Some("p"));
    site.zero();
    until("at zero", || !site.workload.any_ready()).await;
    let answer = ask(site.address(), get("/healthz", "cold")).await;
    assert_eq!(answer.header("x-model"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_without_a_status_are_held_and_some_statuses_have_no_body() {
    let bed = Bed::new();
    let site = bed.site("a", |config| {
        config.opt_ins = Some(Arc::new(OptIns {
            probe_paths: vec!["/healthz".into()],
            ..OptIns::default()
        }));
    });
    let _held = Raw::sent(site.address(), get("/healthz", "x")).await;
    site.holds(1).await;

    let site = bed.site("b", probed(204));
    let mut raw = Raw::sent(site.address(), get("/healthz", "x")).await;
    let answer = raw.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (204, None)
    );
    raw.send(get("/healthz", "again")).await;
    assert_eq!(raw.answer().await.unwrap().status, 204);

    // A workload that will not be woken still has its probes answered; one that is not there has none.
    site.workload.bar(Some(Barred::Paused));
    assert_eq!(ask(site.address(), get("/healthz", "x")).await.status, 204);
    site.workload.bar(Some(Barred::Absent));
    let refused = ask(site.address(), get("/healthz", "x")).await;
    assert!(refused.text().contains("removed"), "{}", refused.text());
}
