//! What the autoscaler reads.

use tokio::time::{Duration, sleep};

use crate::{
    model::Model,
    raw::{Raw, get},
    rig::{UID, config, front, pod, ready, stat, until, within},
};

#[tokio::test]
async fn seconds_hold_the_integrals_of_what_was_in_flight_and_what_waited() {
    let (model, gate) = Model::gated().await;
    let proxy = pod(model.address, 1).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Raw::sent(front(&proxy), get("/", "")).await);
    }
    until("all to be here", || proxy.stats().gauges() == (1, 2)).await;
    let first = stat(&proxy, "").await;
    assert_eq!(
        (
            first.open,
            first.load,
            first.started_total,
            first.ended_total
        ),
        (3, 3, 3, 0)
    );
    assert_eq!(
        (first.pod_uid.as_str(), first.ready, first.draining),
        (UID, true, false)
    );
    // Two whole seconds later the middle one has seen all three all the time.
    let whole = within("two seconds", async {
        loop {
            let now = stat(&proxy, "").await;
            if now.last_second >= first.last_second + 2 {
                return now;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let last = whole.seconds.last().unwrap();
    assert_eq!(last.second, whole.last_second);
    assert_eq!((last.in_flight_us, last.waiting_us), (1_000_000, 2_000_000));
    let started: u64 = whole.seconds.iter().map(|s| s.started).sum();
    assert_eq!(started, 3);

    let since = format!("?since={}", whole.last_second - 1);
    let next = stat(&proxy, &since).await;
    assert!(
        next.seconds.iter().all(|s| s.second >= whole.last_second),
        "{next:?}"
    );
    assert_eq!(next.seconds[0], *last, "the same second is told the same");
    let none = stat(&proxy, &format!("?since={}", u64::MAX)).await;
    assert!(none.seconds.is_empty());
    let all = stat(&proxy, "?since=nonsense").await;
    assert!(all.seconds.len() >= whole.seconds.len());

    gate.add_permits(3);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    until("the account to be even", || proxy.open() == 0).await;
    let end = stat(&proxy, "").await;
    assert_eq!(
        (end.open, end.load, end.started_total, end.ended_total),
        (0, 0, 3, 3)
    );
    assert_eq!(end.boot, first.boot);
}

#[tokio::test]
async fn probe_paths_keep_a_pod_open_but_are_no_load() {
    let (model, gate) = Model::gated().await;
    let mut config = config(&[model.address], 0);
    config.probe_paths = vec!["/healthz".into()];
    let proxy = ready(config).await;
    let mut probe = Raw::sent(front(&proxy), get("/healthz?verbose", "")).await;
    until("the probe to arrive", || model.seen.count() == 1).await;
    let mut other = Raw::sent(front(&proxy), get("/healthzz", "")).await;
    until("the other to arrive", || model.seen.count() == 2).await;
    let now = stat(&proxy, "").await;
    assert_eq!((now.open, now.load, now.started_total), (2, 1, 2));
    gate.add_permits(2);
    assert_eq!(probe.answer().await.status, 200);
    assert_eq!(other.answer().await.status, 200);
    until("both to end", || proxy.open() == 0).await;
    assert_eq!(proxy.load(), 0);
}

#[tokio::test]
async fn the_port_of_statistics_answers_its_paths_and_nothing_else() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(proxy.stats_address().unwrap()).await;
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 404),
        ("/statx", 404),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    client.send(crate::raw::post("/stat", "", "x")).await;
    assert_eq!(client.answer().await.status, 405);
    assert_eq!(model.seen.count(), 0);
}
