//! A workload that cannot start fails those who wait for it at once, with the reason where people may see it.

use std::time::Duration;

use activator::{Barred, Failed};
use tokio::time::Instant;

use crate::{
    bed::{Bed, Pod, Site},
    fake::Fake,
    http1::{Raw, ask, get},
};

fn fail(site: &Site, retry_in: Duration) {
    site.tell(|e| {
        e.replicas = 1;
        e.failed = Some(Failed {
            reason: "exited with status 3 twice before it was ready".into(),
            detail: "ImportError: no module named iris".into(),
            retry_at: Instant::now() + retry_in,
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_held_is_refused_at_once_when_the_workload_cannot_start() {
    for explain in [false, true] {
        let bed = Bed::with(|c| c.explain_failures = explain);
        let site = bed.site("a", |_| {});
        let mut held = Vec::new();
        for i in 0..10 {
            held.push(Raw::sent(site.address(), get("/", "x")).await);
            site.holds(i + 1).await;
        }
        fail(&site, Duration::from_millis(1_200));
        for raw in &mut held {
            let answer = raw.answer().await.unwrap();
            assert_eq!(answer.status, 503);
            assert!(
                matches!(answer.header("retry-after"), Some("1" | "2")),
                "{}",
                answer.head
            );
            assert!(answer.text().contains("cannot-start"));
            assert_eq!(
                answer.text().contains("status 3"),
                explain,
                "{}",
                answer.text()
            );
            assert_eq!(
                answer.text().contains("ImportError"),
                explain,
                "{}",
                answer.text()
            );
        }
        assert_eq!(site.workload.held(), 0);
        let refused = ask(site.address(), get("/", "y")).await;
        assert_eq!(refused.status, 503, "refused until it is tried again");
        // After the pause requests are held again, and served.
        let mut raw = loop {
            let mut raw = Raw::sent(site.address(), get("/", "z")).await;
            let refused = tokio::time::timeout(Duration::from_millis(50), raw.answer()).await;
            if refused.is_err() {
                break raw;
            }
        };
        site.holds(1).await;
        let pod = Pod::start("p", 0);
        site.tell(|e| e.failed = None);
        site.pods(&[&pod]);
        assert_eq!(raw.answer().await.unwrap().status, 200);
        assert_eq!(pod.model.ids(), ["z"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_with_a_ready_pod_serves_although_another_pod_cannot_start() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    fail(&site, Duration::from_mins(1));
    assert_eq!(ask(site.address(), get("/", "x")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_its_last_pod_does_not_admit_is_refused_when_no_other_can_start() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    site.ready().await;
    fail(&site, Duration::from_mins(1));
    let mut raw = Raw::sent(site.address(), get("/", "x")).await;
    let mut got = fake.request().await;
    fake.ready.send_replace(false);
    got.answer(503, "not-ready", "").await;
    let answer = raw.answer().await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("cannot-start"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_back_to_a_removed_workload_is_refused() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    site.ready().await;
    let mut raw = Raw::sent(site.address(), get("/", "x")).await;
    let mut got = fake.request().await;
    let stopping = tokio::spawn(bed.activator.stop(Duration::from_secs(1)));
    crate::bed::until("removed", || {
        format!("{:?}", site.workload).contains("removed: true")
    })
    .await;
    got.answer(503, "full", "").await;
    let answer = raw.answer().await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("removed"), "{}", answer.text());
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_held_for_a_workload_that_is_removed_are_told_so() {
    let bed = Bed::new();
    for round in 0..20 {
        let site = bed.site(&format!("a{round}"), |_| {});
        let mut raw = Raw::sent(site.address(), get("/", "x")).await;
        site.holds(1).await;
        bed.activator.remove(site.workload.id());
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(answer.status, 503);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_has_already_ends_well_although_the_workload_is_removed() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let mut raw = Raw::sent(site.address(), get("/wait", "x")).await;
    crate::bed::until("at the pod", || pod.proxy.open() == 1).await;
    bed.activator.remove(site.workload.id());
    pod.model.state.go.add_permits(1);
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(raw.ends().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_held_or_wakes_while_a_workload_is_barred_and_pods_serve_all_the_same() {
    let bed = Bed::new();
    for (name, barred, code) in [
        ("a", Barred::Paused, "paused"),
        ("b", Barred::Absent, "removed"),
    ] {
        let site = bed.site(name, |_| {});
        site.workload.bar(Some(barred));
        let refused = ask(site.address(), get("/", "x")).await;
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains(code), "{}", refused.text());
        assert_eq!(bed.scale.count(), 0, "not woken");

        site.workload.bar(None);
        site.tell(|e| e.replicas = 1);
        let mut held = Raw::sent(site.address(), get("/", "y")).await;
        site.holds(1).await;
        site.workload.bar(Some(barred));
        assert!(held.answer().await.unwrap().text().contains(code));

        let pod = Pod::start("p", 0);
        site.pods(&[&pod]);
        site.ready().await;
        assert_eq!(ask(site.address(), get("/", "z")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_another_address_now_is_asked_there() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let (before, after) = (Pod::start("p", 0), Pod::start("p", 0));
    site.pods(&[&before]);
    site.ready().await;
    let mut slow = Raw::sent(site.address(), get("/wait", "slow")).await;
    crate::bed::until("at the pod", || before.proxy.open() == 1).await;
    site.pods(&[&after]);
    // The address before is good until the activator has followed.
    let deadline = Instant::now() + Duration::from_secs(10);
    while after.model.ids().is_empty() {
        assert!(Instant::now() < deadline, "asked at its address before");
        assert_eq!(ask(site.address(), get("/", "x")).await.status, 200);
    }
    assert_eq!(ask(site.address(), get("/", "y")).await.status, 200);
    assert_eq!(after.model.ids(), ["x", "y"]);
    before.model.state.go.add_permits(1);
    assert_eq!(slow.answer().await.unwrap().status, 200);
}
