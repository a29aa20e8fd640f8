//! Taking a pod away without losing a request.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};

use crate::{
    bed::{Bed, Pod, until},
    http1::{Raw, ask, get},
    websocket::HANDSHAKE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retiring_a_pod_returns_when_its_last_request_has_ended() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let mut socket = Raw::sent(site.address(), HANDSHAKE).await;
    assert_eq!(socket.answer().await.unwrap().status, 101);
    let slow = tokio::spawn(ask(site.address(), get("/wait", "slow")));
    until("both there", || pod.proxy.open() == 2).await;
    let mut retired = Box::pin(site.workload.retire("p"));
    assert!(
        timeout(Duration::from_millis(50), &mut retired)
            .await
            .is_err()
    );
    let held = tokio::spawn(ask(site.address(), get("/", "held")));
    site.holds(1).await;
    drop(socket);
    assert!(
        timeout(Duration::from_millis(50), &mut retired)
            .await
            .is_err()
    );
    pod.model.state.go.add_permits(1);
    assert_eq!(slow.await.unwrap().status, 200);
    timeout(Duration::from_secs(5), retired)
        .await
        .expect("the last lease has ended");
    assert_eq!(site.workload.held(), 1, "nothing new goes there");
    let next = Pod::start("q", 0);
    site.pods(&[&next]);
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(pod.model.ids(), ["ws", "slow"]);
    site.workload.retire("p").await;
    site.workload.retire("never heard of").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_arrive_while_a_pod_is_retired_are_all_served() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 3);
    let mut old = Pod::start("0", 3);
    site.pods(&[&old]);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let (address, stopped) = (site.address(), stopped.clone());
        clients.spawn(async move {
            let mut sent = 0;
            while !*stopped.borrow() {
                let answer = ask(address, get("/", &format!("{client}-{sent}"))).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                sent += 1;
            }
            sent
        });
    }
    for round in 1..=25 {
        let new = Pod::start(&round.to_string(), 3);
        if round % 2 == 0 {
            site.pods(&[&old, &new]);
        }
        site.workload.retire(&old.uid).await;
        site.pods(&[&new]);
        // Only now, as the rule is; whoever still sends there fails.
        drop(std::mem::replace(&mut old, new));
        site.ready().await;
    }
    stop.send(true).unwrap();
    let mut sent = 0;
    while let Some(n) = clients.join_next().await {
        sent += n.unwrap();
    }
    assert!(sent > 40, "{sent}");
}
