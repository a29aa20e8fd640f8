use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use autoscaler_core::TargetSpec;
use shared::{
    admin,
    http::serve::{self, Server, bind},
    stat::VERSION,
};
use tokio::{net::TcpListener, time::Instant};

use super::*;

const WINDOW: Duration = Duration::from_mins(1);
/// The largest fleet of which all are asked.
const ASK_ALL: usize = 64;

/// What a pod says whose last second is `last`, with this load in each of its seconds.
fn stat(uid: &str, last: u64, in_flight: u64) -> PodStat {
    let second = |second| Second {
        second,
        in_flight_us: in_flight * 1_000_000,
        started: 3,
        ..Second::default()
    };
    PodStat {
        version: VERSION,
        pod_uid: uid.to_owned(),
        boot: 1,
        last_second: last,
        ready: true,
        draining: false,
        open: in_flight,
        load: in_flight,
        relayed: 0,
        relayed_total: 0,
        started_total: 0,
        ended_total: 0,
        seconds: (last.saturating_sub(9)..=last).map(second).collect(),
    }
}

fn pod(uid: &str, stats: SocketAddr) -> Pod {
    Pod {
        uid: uid.into(),
        stats,
        ready: true,
        starting: false,
        failed: false,
        life: crate::Life::default(),
    }
}

fn target(pods: Vec<Pod>) -> Target {
    Target {
        spec: Arc::new(TargetSpec::default()),
        replicas: u32::try_from(pods.len()).unwrap(),
        pods,
        reachable: true,
    }
}

fn id() -> TargetId {
    "default/model".parse().unwrap()
}

/// A queue-proxy's port of statistics: two requests are always at the model.
fn healthy(uid: &str, asked: &Arc<AtomicUsize>) -> (Server, Pod) {
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (name, asked) = (uid.to_owned(), Arc::clone(asked));
    let port = admin::port(move |_| {
        asked.fetch_add(1, Relaxed);
        let answer = admin::json(&stat(&name, 100, 2));
        async move { answer }
    });
    let server = Server::spawn(listener, serve::Config::default(), port).unwrap();
    let pod = pod(uid, server.address());
    (server, pod)
}

#[tokio::test]
async fn a_pod_that_hangs_costs_the_others_nothing_and_is_missing_in_the_end() {
    // Connections are taken by the kernel; nobody ever answers.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = Arc::default();
    let (_one, first) = healthy("first", &asked);
    let (_two, last) = healthy("last", &asked);
    let hanging = pod("hung", hung.local_addr().unwrap());
    let seen = target(vec![first, hanging, last]);
    let mut fleet = Fleet::default();
    for number in 1..=MISSING_AFTER {
        let (started, at) = (Instant::now(), now().as_secs());
        let round = fleet.round(&id(), &seen).await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(round.open, None, "round {number}");
        assert_eq!(round.missing, number == MISSING_AFTER, "round {number}");
        if number == 1 {
            assert_eq!(round.samples.len(), 2);
            let early = |(dated, _): &(Moment, Sample)| dated.as_secs() <= at + 1;
            assert!(round.samples.iter().all(early), "{round:?}");
        }
    }
}

#[tokio::test]
async fn of_a_large_fleet_a_sample_is_asked_and_stands_for_all() {
    let asked = Arc::default();
    let fleet_of = |size: usize| -> (Vec<_>, Vec<_>) {
        (0..size)
            .map(|number| healthy(&format!("pod-{number}"), &asked))
            .unzip()
    };
    let (_servers, mut pods) = fleet_of(100);
    let mut fleet = Fleet::default();
    let round = fleet.round(&id(), &target(pods.clone())).await;
    assert_eq!(asked.load(Relaxed), 14);
    let [(_, sample)] = round.samples[..] else {
        panic!("{round:?}")
    };
    assert!((sample.concurrency - 200.0).abs() < 1e-9, "{sample:?}");
    assert!((sample.requests - 300.0).abs() < 1e-9, "{sample:?}");
    assert_eq!(round.open, None, "nobody knows of the others");
    assert!(!round.missing);

    pods.truncate(ASK_ALL);
    let round = fleet.round(&id(), &target(pods)).await;
    assert_eq!(asked.load(Relaxed), 14 + ASK_ALL);
    assert_eq!(round.samples.len(), ASK_ALL, "one second of each");
    assert_eq!(round.open, Some(2 * ASK_ALL as u64));
}

#[tokio::test]
async fn a_sample_of_which_too_few_answer_is_missing_and_not_zero() {
    // Nothing listens on a port that was just given back.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let pods = (0..100).map(|n| pod(&format!("pod-{n}"), address));
    let seen = target(pods.collect());
    let mut fleet = Fleet::default();
    for number in 1..=MISSING_AFTER {
        let round = fleet.round(&id(), &seen).await;
        assert!(round.samples.is_empty(), "{round:?}");
        assert_eq!(round.missing, number == MISSING_AFTER, "round {number}");
    }
}

#[test]
fn a_sample_counts_every_second_since_the_last_one_once() {
    let stats = [stat("a", 50, 1), stat("b", 7, 4)];
    let at = Moment::from_millis(1_000_700);
    let samples = stand_in(&stats, 80, at, 3);
    let told: Vec<_> = samples
        .iter()
        .map(|(at, sample)| (at.as_secs(), sample.concurrency, sample.requests))
        .collect();
    assert_eq!(
        told,
        [
            (1_000, 200.0, 240.0),
            (999, 200.0, 240.0),
            (998, 200.0, 240.0)
        ]
    );
    assert!(stand_in(&stats, 80, at, 0).is_empty());
}

#[tokio::test]
async fn old_pods_are_sampled_before_young_ones_and_silent_ones_last() {
    let address = ([127, 0, 0, 1], 1).into();
    let pods: Vec<_> = (0..100).map(|n| pod(&n.to_string(), address)).collect();
    let mut fleet = Fleet::default();
    fleet.follow(&target(pods.clone()));
    let at = Moment::from_secs(10_000);
    for (uid, watched) in &mut fleet.pods {
        let number: u64 = uid.parse().unwrap();
        let age = if number < 12 { WINDOW } else { WINDOW / 2 };
        watched.since = at.saturating_sub(age);
        watched.failed = (number < 2).then_some(at);
    }
    let ready: Vec<_> = pods.iter().collect();
    let mut drawn = std::collections::HashSet::new();
    for _ in 0..50 {
        fleet.rounds += 1;
        let chosen = fleet.choose(at, &ready, WINDOW, Policy::default());
        let numbers: Vec<u64> = chosen.iter().map(|uid| uid.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 14);
        assert_eq!(sorted(&numbers[..10]), (2..12).collect::<Vec<_>>());
        drawn.extend(numbers[10..].iter().copied());
    }
    assert!(drawn.iter().all(|number| *number >= 12), "{drawn:?}");
    assert!(drawn.len() > 40, "by lot: {drawn:?}");
    let later = at.saturating_add(AVOIDED);
    let chosen = fleet.choose(later, &ready, WINDOW + AVOIDED, Policy::default());
    let numbers: Vec<u64> = chosen.iter().map(|uid| uid.parse().unwrap()).collect();
    assert_eq!(sorted(&numbers[..12]), (0..12).collect::<Vec<_>>(), "again");
}

fn sorted(numbers: &[u64]) -> Vec<u64> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers
}
