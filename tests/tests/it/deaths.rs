//! A replica that dies under load.

use std::time::Duration;

use integration::{Fate, Ledger, load, process, scene::LONG, wait};
use rustix::process::Signal;

/// Requests that one replica works on at once: no more than these can be lost with it.
const AT_ONCE: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_requests_inside_a_killed_replica_fail_and_it_is_replaced() {
    let scene = crate::scene();
    let model = scene
        .model("m", &["--service-time", "20ms"])
        .annotate("rouse.dev/container-concurrency", &AT_ONCE.to_string())
        .annotate("min-scale", "3")
        .annotate("max-scale", "3");
    let running = scene.run(&[model], &[]);
    running.settled("m", 3, LONG).await;
    let url = running.url("m", "/work");
    // More than the replicas take at once: some wait, and must not be lost with the victim.
    let under_load = load::run(&url, 20, load::closed(Duration::from_secs(4)));
    let kill = async {
        let victim = wait::some("a replica is at work", LONG, || {
            let ready = running.ready("m");
            ready
                .into_iter()
                .find(|replica| replica.proxy.load() >= AT_ONCE)
        })
        .await;
        let pid = victim.pid.unwrap();
        process::send(pid, Signal::KILL);
        wait::until("it is replaced", LONG, || {
            let ready = running.ready("m");
            ready.len() == 3 && ready.iter().all(|replica| replica.uid != victim.uid)
        })
        .await;
        pid
    };
    let ((_, told), victim) = tokio::join!(under_load, kill);
    running.settled("m", 3, LONG).await;
    running.stop().await;

    let ledger = Ledger::compare(&told, &scene.journal("m")).checked();
    assert!(ledger.good > 1_000, "the others went on: {}", ledger.good);
    assert!(ledger.bad.len() as u64 <= AT_ONCE, "{:#?}", ledger.bad);
    for (told, executed) in &ledger.bad {
        assert_eq!(told.fate, Fate::Answered(502), "{}", told.id);
        if let Some(executed) = executed {
            assert_eq!(executed.pid, victim, "{} was another's", told.id);
        }
    }
}
