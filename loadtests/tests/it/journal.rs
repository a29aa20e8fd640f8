//! The journal and the server agree on every request.

use crate::server::{http, ok, run};
use loadtests::config::{Limit, Load};
use loadtests::journal::{Journal, Outcome};
use loadtests::plan::Arrivals;
use loadtests::record::ErrorKind;
use loadtests::unit::Rate;
use loadtests::{Config, Progress};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A server that takes `time` for each request, and the ids it saw.
async fn noting(time: Duration) -> (String, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let note = Arc::clone(&seen);
    let url = http(move |request| {
        note.lock().push(
            request.headers()["x-request-id"]
                .to_str()
                .unwrap()
                .to_owned(),
        );
        async move {
            sleep(time).await;
            let mut response = ok();
            response
                .headers_mut()
                .insert("x-served-by", "one".parse().unwrap());
            response
        }
    });
    (url.await, seen)
}

fn unique(ids: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let ids: Vec<_> = ids.into_iter().collect();
    let unique: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(unique.len(), ids.len(), "an id occurs twice");
    unique
}

#[tokio::test]
async fn a_closed_loop_sends_exactly_the_requests_it_tells_of() {
    let (url, seen) = noting(Duration::ZERO).await;
    let (journal, told) = Journal::collect();
    let mut config = Config {
        connections: 8,
        journal: Some(journal),
        ..Config::new(&url).unwrap()
    };
    config.load = Load::Closed(Limit::Requests(1_000));
    let report = run(config).await;
    let told = std::mem::take(&mut *told.lock());
    assert_eq!((told.len(), report.summary.successes), (1_000, 1_000));
    assert_eq!(report.served_by, [("one".to_owned(), 1_000)].into());
    assert_eq!(
        told.iter().filter(|outcome| !outcome.reused).count(),
        8,
        "one first request per connection"
    );
    assert!(
        told.iter()
            .all(|outcome| outcome.served_by.as_deref() == Some("one"))
    );
    assert!(
        told.iter()
            .all(|outcome| outcome.sent >= Some(outcome.planned)
                && Some(outcome.done) >= outcome.sent)
    );
    assert_eq!(
        unique(told.into_iter().map(|outcome| outcome.id)),
        unique(seen.lock().clone())
    );
}

#[tokio::test]
async fn the_warmup_is_told_but_not_reported() {
    let (url, seen) = noting(Duration::ZERO).await;
    let (journal, told) = Journal::collect();
    let mut config = Config {
        connections: 4,
        journal: Some(journal),
        ..Config::new(&url).unwrap()
    };
    config.warmup = Duration::from_millis(200);
    config.load = Config::steady(
        Rate::new(100.0).unwrap(),
        Duration::from_millis(300),
        Arrivals::Poisson,
        3,
    );
    let Load::Open(schedule) = &config.load else {
        unreachable!("steady is open")
    };
    let planned = u64::try_from(schedule.instants().count()).unwrap();
    let report = run(config).await;
    let told = std::mem::take(&mut *told.lock());
    let (warm, measured): (Vec<Outcome>, Vec<Outcome>) =
        told.into_iter().partition(|outcome| outcome.warmup);
    assert!(
        !warm.is_empty()
            && warm
                .iter()
                .all(|outcome| outcome.planned < Duration::from_millis(200))
    );
    assert_eq!(
        (report.summary.requests, measured.len() as u64),
        (planned, planned)
    );
    assert_eq!(
        unique(warm.into_iter().chain(measured).map(|o| o.id)),
        unique(seen.lock().clone())
    );
}

#[tokio::test]
async fn a_stopped_run_accounts_for_what_it_gave_up() {
    let (url, _) = noting(Duration::from_mins(1)).await;
    let (journal, told) = Journal::collect();
    let mut config = Config {
        connections: 2,
        journal: Some(journal),
        ..Config::new(&url).unwrap()
    };
    config.load = Config::steady(
        Rate::new(100.0).unwrap(),
        Duration::from_mins(1),
        Arrivals::Constant,
        1,
    );
    let (stop, stopped) = watch::channel(false);
    let looks = Arc::<Mutex<Vec<Progress>>>::default();
    let look = Arc::clone(&looks);
    let running = tokio::spawn(loadtests::run(
        config,
        move |progress| look.lock().push(progress),
        stopped,
    ));
    sleep(Duration::from_millis(1_100)).await;
    stop.send_replace(true);
    let report = timeout(Duration::from_secs(2), running)
        .await
        .expect("it stops at once")
        .unwrap()
        .unwrap();
    assert!(report.interrupted);
    let unfinished = report.summary.unfinished;
    assert!(
        (80..140).contains(&unfinished),
        "two in flight and about a hundred in line: {unfinished}"
    );
    assert_eq!(
        (report.summary.requests, told.lock().len() as u64),
        (0, unfinished)
    );
    assert!(
        told.lock()
            .iter()
            .all(|outcome| outcome.error == Some(ErrorKind::Interrupted))
    );
    let looks = looks.lock();
    assert!(
        (2..=5).contains(&looks.len()),
        "about four a second: {}",
        looks.len()
    );
    assert_eq!(looks.last().map(|progress| progress.in_flight), Some(2));
}

#[tokio::test]
async fn dropping_the_run_stops_the_load() {
    let (url, seen) = noting(Duration::from_millis(1)).await;
    let (journal, _told) = Journal::collect();
    let config = Config {
        journal: Some(journal),
        ..Config::new(&url).unwrap()
    };
    let (_stop, stopped) = watch::channel(false);
    let cut = timeout(
        Duration::from_millis(200),
        loadtests::run(config, |_| (), stopped),
    )
    .await;
    assert!(cut.is_err(), "the load would have lasted ten seconds");
    let (deadline, mut before) = (Instant::now() + Duration::from_secs(5), usize::MAX);
    while before != seen.lock().len() {
        assert!(Instant::now() < deadline, "requests still arrive");
        before = seen.lock().len();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(before > 0);
}
