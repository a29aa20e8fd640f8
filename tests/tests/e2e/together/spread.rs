//! Five replicas: there and back under load, and how new connections are spread over them.

use std::time::Duration;

use integration::{
    client::{Account, get},
    load,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Space,
    space::{LONG, Model},
};

const REPLICAS: i32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_from_one_replica_to_five_to_one_to_zero_under_load() {
    let space = Space::new("five").await;
    let model = Model::new("m")
        .replicas(1)
        .annotate("autoscaling.knative.dev/target", "4")
        .annotate("autoscaling.knative.dev/max-scale", "5")
        .flags(&["--service-time=200ms"]);
    let address = space.deploy_warm(&model).await;
    let url = format!("http://{address}/work");
    let began = Instant::now();
    let few = {
        let url = url.clone();
        // Long enough for all of it; whatever is left of it is cut off by the stages of the others.
        tokio::spawn(
            async move { load::run(&url, 4, load::open(5.0, Duration::from_secs(45))).await },
        )
    };
    let many =
        tokio::spawn(
            async move { load::run(&url, 24, load::closed(Duration::from_secs(20))).await },
        );
    space
        .until("five replicas", LONG, async || {
            (space.replicas("m").await == (REPLICAS, REPLICAS)).then_some(())
        })
        .await;
    println!("five replicas after {:?}", began.elapsed());
    let (most, mut told) = timeout(LONG, many).await.unwrap().unwrap();
    space
        .until("one replica under a light load", LONG, async || {
            (space.replicas("m").await == (1, 1)).then_some(())
        })
        .await;
    println!("one replica after {:?}", began.elapsed());
    assert!(!few.is_finished(), "the light load is still on");
    let (rest, more) = timeout(LONG, few).await.unwrap().unwrap();
    println!(
        "{} and {} requests",
        most.summary.requests, rest.summary.requests
    );
    // Two accounts, two sets of names.
    told.extend(more);
    space.settled("m", 0, LONG * 2).await;
    space.ledger("m", &told).assert_exact();
    space.end().await;
}

/// With n connections over five pods, the share of one pod varies by 2 / √n of itself: with 500, one time in four the largest
/// would be 1.3 times the smallest by chance alone. With so many it never is.
const CONNECTIONS: usize = 2_500;
const AT_ONCE: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_connections_are_spread_evenly_over_five_pods() {
    let space = Space::new("spread").await;
    let model = Model::new("m")
        .replicas(REPLICAS.unsigned_abs())
        .annotate("autoscaling.knative.dev/min-scale", "5");
    let address = space.deploy_warm(&model).await;
    let account = Account::default();
    let counts = || -> Vec<_> {
        let journals = space.journals("m");
        let counts = journals
            .into_iter()
            .map(|(pod, journal)| (pod, journal.lines().count()));
        counts.collect()
    };
    space.through_every_pod(&account, address, "m", 5).await;
    let before = counts();
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let account = account.clone();
        clients.spawn(async move {
            for _ in 0..CONNECTIONS / AT_ONCE {
                let sent = account.send(address, None, get("/work"));
                // Its fate is in the account.
                let _answer = timeout(LONG, sent).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let counts: Vec<_> = counts()
        .iter()
        .zip(&before)
        .map(|((_, now), (_, before))| now - before)
        .collect();
    println!(
        "{CONNECTIONS} connections in {:?}: {counts:?}",
        began.elapsed()
    );
    space.ledger("m", &account.told()).assert_exact();
    assert_eq!(counts.len(), 5);
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most * 10 <= least * 13, "{counts:?}");
    space.end().await;
}
