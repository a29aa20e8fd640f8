//! To zero, with a request arriving at any instant of it.
//!
//! The natural way takes a window and a grace: most of these tests change the scale themselves, as the autoscaler would,
//! while a request is sent a few milliseconds before or after.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::Request;
use integration::{
    Fate, Ledger, Running,
    client::{Account, Connection, Payload, get, post, post_in_pieces},
    scene::LONG,
    wait,
};
use tokio::time::{Instant, sleep_until};

/// Workloads side by side, so that one's waiting is another's turn.
const LANES: usize = 4;
const ITERATIONS: usize = 200;

/// The n-th offset of the request from the change of the scale, as how much earlier (0 to 5 ms) or later (up to 15 ms):
/// steps of the golden section spread evenly, whatever part of the iterations falls into one lane.
fn offset(n: usize) -> (Duration, Duration) {
    let at = Duration::from_micros((n as u64 * 12_361) % 20_000);
    let early = Duration::from_millis(5);
    (early.saturating_sub(at), at.saturating_sub(early))
}

/// The n-th request: of every kind that is handled differently, for no time or a little.
fn any_request(n: usize) -> Request<Payload> {
    let path = format!("/work?ms={}", n % 3);
    match n / LANES % 4 {
        0 => get(&path),
        // Small enough to be kept and sent again.
        1 => post(&path, vec![7; 1_000]),
        // Too large for that: a pod must say first that it takes them.
        2 => post(&path, vec![7; 200_000]),
        _ => post_in_pieces(&path, vec![7; 20_000], 10),
    }
}

/// Sends a request while the workload goes from one replica to none. `connection` may be one that was idle.
async fn race(
    running: &Running,
    account: &Account,
    name: &str,
    n: usize,
    connection: Option<&mut Connection>,
) -> Result<u16, Fate> {
    let workload = running.workload(name);
    let (before, after) = offset(n);
    let now = Instant::now();
    let scale = async {
        sleep_until(now + before).await;
        running.local.scale(&workload.id, 1, 0)
    };
    let request = async {
        sleep_until(now + after).await;
        account
            .send(workload.addresses[0], connection, any_request(n))
            .await
    };
    let (changed, answer) = tokio::join!(scale, request);
    assert!(changed, "the scale was 1");
    answer.map(|answer| answer.status.as_u16())
}

/// Wakes the workload if it sleeps, and waits until exactly one replica is wanted and ready.
async fn warm(
    running: &Running,
    account: &Account,
    name: &str,
    mut connection: Option<&mut Connection>,
) {
    let address = running.address(name);
    loop {
        let connection = connection.as_deref_mut();
        let answer = account.send(address, connection, get("/work")).await;
        assert_eq!(answer.unwrap().status, 200, "a request without any race");
        // On a busy machine the replica that is leaving may have answered it, and then nobody was woken.
        if running.snapshot(name).wanted > 0 {
            break;
        }
    }
    wait::until("one replica is ready", LONG, || {
        running.snapshot(name).wanted == 1 && running.ready(name).len() == 1
    })
    .await;
}

/// Runs `lane` for each of the lanes and compares the journals.
async fn lanes<F: Future<Output = ()>>(
    lane: impl Fn(Arc<Running>, Account, String, usize) -> F,
) -> Vec<Ledger> {
    let scene = crate::scene();
    let names: Vec<String> = (0..LANES).map(|lane| format!("m{lane}")).collect();
    let models: Vec<_> = names
        .iter()
        .map(|name| {
            scene
                .model(name, &["--service-time", "1ms"])
                .annotate("max-scale", "1")
        })
        .collect();
    let running = Arc::new(scene.run(&models, &[]));
    let accounts: Vec<_> = names.iter().map(|_| Account::default()).collect();
    join_all(
        names
            .iter()
            .zip(&accounts)
            .enumerate()
            .map(|(at, (name, account))| {
                lane(Arc::clone(&running), account.clone(), name.clone(), at)
            }),
    )
    .await;
    Arc::into_inner(running).unwrap().stop().await;
    let ledgers = names
        .iter()
        .zip(&accounts)
        .map(|(name, account)| Ledger::compare(&account.told(), &scene.journal(name)).checked());
    ledgers.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_a_fresh_connection_never_fails_while_the_last_replica_goes() {
    let ledgers = lanes(|running, account, name, lane| async move {
        for n in (lane..ITERATIONS).step_by(LANES) {
            warm(&running, &account, &name, None).await;
            let status = race(&running, &account, &name, n, None).await;
            assert_eq!(status, Ok(200), "iteration {n}");
        }
    })
    .await;
    for ledger in ledgers {
        ledger.assert_exact();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_an_idle_connection_is_answered_or_untouched_while_the_last_replica_goes() {
    let ledgers = lanes(|running, account, name, lane| async move {
        let address = running.address(&name);
        let mut connection = Connection::open(address).await.unwrap();
        for n in (lane..ITERATIONS).step_by(LANES) {
            if warm_on(&running, &account, &name, &mut connection)
                .await
                .is_err()
            {
                connection = Connection::open(address).await.unwrap();
                warm(&running, &account, &name, Some(&mut connection)).await;
            }
            match race(&running, &account, &name, n, Some(&mut connection)).await {
                Err(Fate::ClosedIdle) => {
                    // Any client sends again then, on a fresh connection, which must not fail.
                    connection = Connection::open(address).await.unwrap();
                    let again = account.send(address, Some(&mut connection), get("/work"));
                    assert_eq!(again.await.unwrap().status, 200, "iteration {n}");
                }
                status => assert_eq!(status, Ok(200), "iteration {n}"),
            }
        }
    })
    .await;
    let closed: usize = ledgers.iter().map(|ledger| ledger.bad.len()).sum();
    println!("{closed} of {ITERATIONS} requests met an idle connection that was being closed");
    for (told, executed) in ledgers.iter().flat_map(|ledger| &ledger.bad) {
        assert_eq!(told.fate, Fate::ClosedIdle);
        assert_eq!(*executed, None, "{} would be doubled", told.id);
    }
}

/// As [`warm`], on a connection that may have been closed since its last request.
async fn warm_on(
    running: &Running,
    account: &Account,
    name: &str,
    connection: &mut Connection,
) -> Result<(), ()> {
    let address = running.address(name);
    let answer = account.send(address, Some(connection), get("/work")).await;
    if matches!(answer, Err(Fate::ClosedIdle)) {
        return Err(());
    }
    assert_eq!(answer.unwrap().status, 200);
    warm(running, account, name, Some(connection)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_never_fails_when_the_autoscaler_takes_the_last_replica() {
    const WORKLOADS: usize = 6;
    let scene = crate::scene();
    let names: Vec<String> = (0..WORKLOADS).map(|n| format!("m{n}")).collect();
    let models: Vec<_> = names
        .iter()
        .map(|name| {
            scene
                .model(name, &["--service-time", "1ms"])
                .annotate("window", "6s")
        })
        .collect();
    let running = scene.run(&models, &[("scale-to-zero-grace-period", "1s")]);
    let account = Account::default();
    join_all(names.iter().enumerate().map(async |(n, name)| {
        let workload = running.workload(name);
        warm(&running, &account, name, None).await;
        // As soon as the decision is seen, so that the request meets the replica on its way out, or a little later.
        wait::until("the autoscaler wants none", LONG, || {
            workload.snapshot.borrow().wanted == 0
        })
        .await;
        sleep_until(Instant::now() + offset(n * 7).1).await;
        let answer = account
            .send(workload.addresses[0], None, get("/work"))
            .await;
        assert_eq!(answer.unwrap().status, 200);
    }))
    .await;
    running.stop().await;
    let journals: String = names.iter().map(|name| scene.journal(name)).collect();
    Ledger::compare(&account.told(), &journals).assert_exact();
}
