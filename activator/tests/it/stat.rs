//! The activator's own port.

use shared::stat::ActivatorStat;

use crate::{
    bed::{Bed, Pod, until},
    http1::{Answer, Raw, ask, get},
};

async fn stat(bed: &Bed, query: &str) -> ActivatorStat {
    let address = bed.activator.stats_address().unwrap();
    let answer = ask(address, get(&format!("/stat{query}"), "-")).await;
    assert_eq!(answer.status, 200);
    ActivatorStat::decode(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_tell_what_was_held_and_for_how_long() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let _idle = bed.site("b", |_| {});
    let first = stat(&bed, "").await;
    assert_eq!(first.workloads, [], "nothing was held");
    let mut held = Vec::new();
    for i in 0..4 {
        held.push(Raw::sent(site.address(), get("/", "x")).await);
        site.holds(i + 1).await;
    }
    let start = stat(&bed, "").await.last_second;
    // Two whole seconds with four held.
    loop {
        let now = stat(&bed, "").await;
        if now.last_second >= start + 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Often, around the end of a second: every answer must decode.
    let second = stat(&bed, "").await.last_second;
    while stat(&bed, "").await.last_second == second {}
    let now = stat(&bed, &format!("?since={}", start + 1)).await;
    assert_eq!(now.boot, first.boot);
    let a = now
        .workloads
        .iter()
        .find(|w| w.target == "default/a")
        .unwrap();
    assert_eq!(now.workloads.len(), 1, "whoever had nothing is not named");
    assert_eq!(a.held, 4);
    assert_eq!(a.seconds[0].second, start + 2);
    assert_eq!(a.seconds[0].waiting_us, 4_000_000);
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    for raw in &mut held {
        assert_eq!(raw.answer().await.unwrap().status, 200);
    }
    let released = stat(&bed, "").await.last_second;
    while stat(&bed, "").await.last_second <= released + 1 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let after = stat(&bed, "?since=0").await;
    let a = after
        .workloads
        .iter()
        .find(|w| w.target == "default/a")
        .unwrap();
    assert_eq!(a.held, 0);
    let sum = |f: fn(&shared::load::Second) -> u64| a.seconds.iter().map(f).sum::<u64>();
    assert_eq!((sum(|s| s.started), sum(|s| s.released)), (4, 4));
    assert_eq!(a.seconds.last().unwrap().waiting_us, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_is_told_in_phases_that_are_in_order_and_complete() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut raw = Raw::sent(site.address(), get("/", "x")).await;
    until("woken", || bed.scale.count() == 1).await;
    let pod = Pod::start("p", 0);
    let mut endpoint = pod.endpoint();
    endpoint.created = Some(tokio::time::Instant::now());
    site.endpoints(vec![endpoint]);
    let answer = raw.answer().await.unwrap();
    let timing = answer.header("rouse-timing").unwrap().to_owned();
    assert!(timing.starts_with("hold;dur="), "{timing}");
    assert!(timing.contains(", first_byte;dur="), "{timing}");
    raw.send(get("/", "warm")).await;
    let warm = raw.answer().await.unwrap();
    let warm = warm.header("rouse-timing").unwrap();
    assert!(!warm.contains("first_byte"), "{warm}");
    let address = bed.activator.stats_address().unwrap();
    let wakes = ask(address, get("/debug/wakes", "-")).await;
    let wakes: serde_json::Value = serde_json::from_slice(&wakes.body).unwrap();
    assert_eq!(wakes.as_array().unwrap().len(), 1);
    assert_eq!(wakes[0]["target"], "default/a");
    let phases: Vec<(String, f64)> = serde_json::from_value(wakes[0]["phases"].clone()).unwrap();
    assert!(phases.is_sorted_by(|a, b| a.1 <= b.1), "{phases:?}");
    let mut names: Vec<_> = phases.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let all = [
        "first_byte",
        "forwarded",
        "model_ready",
        "patch_sent",
        "patched",
        "pod_created",
        "pod_seen",
        "port_open",
        "sidecar_started",
    ];
    assert_eq!(names, all);
    let (ours, total) = (
        wakes[0]["ours"].as_f64().unwrap(),
        wakes[0]["total"].as_f64().unwrap(),
    );
    assert!(ours > 0.0 && ours <= total, "{ours} of {total}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_whose_request_hung_up_is_not_told_as_part_of_the_next() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    let gone = Raw::sent(site.address(), get("/", "gone")).await;
    site.holds(1).await;
    drop(gone);
    site.holds(0).await;
    site.pods(&[&pod]);
    site.ready().await;
    assert_eq!(ask(site.address(), get("/", "warm")).await.status, 200);
    assert!(
        bed.activator.wakes().is_empty(),
        "it came when all was over"
    );
    site.zero();
    until("at zero", || !site.workload.any_ready()).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut raw = Raw::sent(site.address(), get("/", "next")).await;
    site.holds(1).await;
    site.pods(&[&pod]);
    assert_eq!(raw.answer().await.unwrap().status, 200);
    let wakes = bed.activator.wakes();
    assert_eq!(wakes.len(), 1);
    assert!(wakes[0].total < 0.25, "{wakes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_is_added_to_what_the_model_has_in_server_timing() {
    let entries = |answer: &Answer| -> Vec<String> {
        let lines = answer.head.lines();
        let values = lines.filter_map(|line| line.strip_prefix("server-timing: "));
        values.map(str::to_owned).collect()
    };
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut raw = Raw::sent(site.address(), get("/as?200&text/plain", "x")).await;
    site.holds(1).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let answer = raw.answer().await.unwrap();
    let [of_model, ours] = &entries(&answer)[..] else {
        panic!("{}", answer.head);
    };
    assert_eq!(of_model, "model;dur=5");
    let millis: f64 = ours.strip_prefix("hold;dur=").unwrap().parse().unwrap();
    assert!(millis > 0.0, "{ours}");
    let all = answer.header("rouse-timing").unwrap();
    assert!(all.starts_with(&format!("{ours}, ")), "{all}, {ours}");

    let quiet = Bed::with(|c| c.timing_header = false);
    let site = quiet.site("a", |_| {});
    site.pods(&[&pod]);
    let answer = ask(site.address(), get("/as?200&text/plain", "x")).await;
    assert_eq!(entries(&answer), ["model;dur=5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timing_header_can_be_left_out_and_the_port_answers_only_what_it_knows() {
    let bed = Bed::with(|c| c.timing_header = false);
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(
        ask(site.address(), get("/", "x"))
            .await
            .header("rouse-timing"),
        None
    );
    let address = bed.activator.stats_address().unwrap();
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/x", 404),
    ] {
        assert_eq!(ask(address, get(path, "-")).await.status, status);
    }
    assert_eq!(
        ask(
            address,
            "POST /stat HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n"
        )
        .await
        .status,
        405
    );
}
