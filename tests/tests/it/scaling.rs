//! Up and down under load.

use std::{collections::BTreeSet, time::Duration};

use integration::{Ledger, Told, load, scene::LONG};
use tokio::time::Instant;

/// Longest time to reach a scale: up takes a few seconds, down the window and three steps.
const PATIENCE: Duration = Duration::from_mins(1);
/// Length of one piece of load: between two the scale is looked at.
const PIECE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_from_one_replica_to_five_and_back_under_load() {
    let scene = crate::scene();
    // Five replicas are what six requests at once of one each ask for; one is what less than one at once asks for.
    let model = scene
        .model("m", &["--service-time", "40ms"])
        .annotate("target", "1")
        .annotate("target-utilization-percentage", "100")
        .annotate("min-scale", "1")
        .annotate("max-scale", "5")
        .annotate("window", "6s");
    let running = scene.run(&[model], &[]);
    running.settled("m", 1, LONG).await;
    let url = running.url("m", "/work");
    let mut told: Vec<Told> = Vec::new();
    let mut servers = BTreeSet::new();

    let began = Instant::now();
    while running.ready("m").len() < 5 {
        assert!(began.elapsed() < PATIENCE, "never five replicas");
        let (report, more) = load::run(&url, 6, load::closed(PIECE)).await;
        told.extend(more);
        servers.extend(report.served_by.into_keys());
    }
    let (report, more) = load::run(&url, 6, load::closed(PIECE)).await;
    told.extend(more);
    assert_eq!(report.served_by.len(), 5, "all five are used");

    let began = Instant::now();
    while running.snapshot("m").replicas.len() > 1 {
        assert!(began.elapsed() < PATIENCE, "never one replica again");
        let (_, more) = load::run(&url, 6, load::open(10.0, PIECE)).await;
        told.extend(more);
    }
    let (_, more) = load::run(&url, 6, load::open(10.0, Duration::from_secs(1))).await;
    told.extend(more);
    running.stop().await;
    Ledger::compare(&told, &scene.journal("m")).assert_exact();
}
