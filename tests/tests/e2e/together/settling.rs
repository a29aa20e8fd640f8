//! From the wake to where nothing of ours is in the path any more.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use integration::{
    Fate,
    client::{Account, Connection, REQUEST_ID, get},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    Space, activators,
    space::{LONG, Model, is_ready},
};

const CLIENTS: usize = 20;
/// How long a client thinks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long settling may take, from the moment that the pod is ready.
const SETTLED: Duration = Duration::from_secs(10);
/// For so long it is looked on afterwards.
const LOOK: Duration = Duration::from_secs(3);

/// Sends one request after the other on one connection, and on the next when that is closed, until it is told to stop.
async fn client(
    address: SocketAddr,
    account: Account,
    stop: watch::Receiver<bool>,
    closed: Arc<AtomicUsize>,
) {
    let mut kept = None;
    while !*stop.borrow() {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match timeout(LONG, Connection::open(address)).await.unwrap() {
                Ok(connection) => connection,
                Err(error) => {
                    account.tell(
                        account.name(),
                        Fate::Lost(format!("no connection: {error}")),
                    );
                    continue;
                }
            },
        };
        let id = account.name();
        let mut request = get("/work");
        request
            .headers_mut()
            .insert(REQUEST_ID, id.parse().unwrap());
        let answer = timeout(LONG, connection.send(request)).await.unwrap();
        match answer {
            Ok(answer) => {
                account.tell(id, Fate::Answered(answer.status.as_u16()));
                if answer.header("connection") != "close" {
                    kept = Some(connection);
                }
            }
            // For it to send again. It is told all the same: nothing may have been executed.
            Err(Fate::ClosedIdle) => {
                closed.fetch_add(1, Relaxed);
                account.tell(id, Fate::ClosedIdle);
            }
            Err(fate) => account.tell(id, fate),
        }
        sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_after_a_wake_no_client_that_stays_is_left_at_an_activator() {
    let space = Space::new("settling").await;
    let model = Model::new("m").annotate("autoscaling.knative.dev/max-scale", "1");
    let address = space.deploy(&model).await;
    let (account, closed) = (Account::default(), Arc::new(AtomicUsize::new(0)));
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(
            address,
            account.clone(),
            stopped.clone(),
            Arc::clone(&closed),
        ));
    }
    space
        .until("a ready pod", LONG, async || {
            space.pods("m").await.iter().any(is_ready).then_some(())
        })
        .await;
    let ready = Instant::now();
    // How many requests have come through activators, and when that was seen to have become more.
    let (mut before, mut last) = (activators::requests(&space, "m").await, Duration::ZERO);
    while ready.elapsed() < SETTLED + LOOK {
        sleep(Duration::from_millis(250)).await;
        let now = activators::requests(&space, "m").await;
        if now > before {
            (before, last) = (now, ready.elapsed());
        }
    }
    stop.send_replace(true);
    timeout(LONG, clients.join_all()).await.unwrap();
    let told = account.told();
    println!(
        "{before} of {} requests through activators, the last within {last:?} of readiness; {} connections closed while idle",
        told.len(),
        closed.load(Relaxed)
    );
    assert!(before >= CLIENTS, "they were there before the pod was");
    assert!(last < SETTLED, "not settled: {last:?}");
    let ledger = space.ledger("m", &told).checked();
    for (told, executed) in &ledger.bad {
        assert_eq!(
            (&told.fate, executed),
            (&Fate::ClosedIdle, &None),
            "{}",
            told.id
        );
    }
    space.end().await;
}
