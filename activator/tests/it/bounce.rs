//! What real queue-proxies hand on comes to a real activator, and back to whichever pod has room: once, and without a race between
//! the two.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    bed::{Bed, Pod, Site, metrics, until},
    http1::{Raw, ask, get, post},
};

/// A pod that serves one request at a time, lets one more wait, and hands on the rest.
fn pod(uid: &str, site: &Site) -> Pod {
    Pod::with(uid, 1, |config| {
        config.bounce_to = vec![Some(site.address().into())];
    })
}

fn front(pod: &Pod) -> SocketAddr {
    pod.proxy.addresses()[0]
}

async fn all_ready(site: &Site, pods: &[&Pod]) {
    site.pods(pods);
    until("all ready", || {
        format!("{:?}", site.workload)
            .matches("ready_since: Some")
            .count()
            == pods.len()
    })
    .await;
}

/// Takes the slot and the place in the queue.
async fn crowd(pod: &Pod) -> [Raw; 2] {
    let inside = Raw::sent(front(pod), get("/wait", "inside")).await;
    until("the slot to be taken", || {
        pod.model.state.now.load(SeqCst) == 1
    })
    .await;
    let waiting = Raw::sent(front(pod), get("/wait", "waiting")).await;
    until("one to wait", || pod.proxy.stats().gauges() == (1, 1)).await;
    [inside, waiting]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_busy_pod_hands_on_is_served_by_the_idle_one() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let (busy, idle) = (pod("busy", &site), pod("idle", &site));
    all_ready(&site, &[&busy, &idle]).await;
    let mut here = crowd(&busy).await;
    let large = vec![b'y'; 300_000];
    for n in 0..5 {
        // The activator has heard nothing of the busy pod but what comes with the request itself.
        let answer = ask(front(&busy), post("/echo", &format!("{n}"), &large)).await;
        assert_eq!((answer.status, answer.body.len()), (200, large.len()));
        assert_eq!(answer.header("x-model"), Some("idle"), "{n}");
    }
    assert_eq!(idle.model.ids(), ["0", "1", "2", "3", "4"]);
    busy.model.state.go.add_permits(2);
    for client in &mut here {
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    assert_eq!(busy.model.ids(), ["inside", "waiting"]);
    until("all to be even", || {
        busy.proxy.open() + idle.proxy.open() == 0
    })
    .await;
    assert_eq!(site.workload.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_at_a_lone_pod_is_held_and_each_request_is_served_once() {
    const BURST: u64 = 40;
    let metrics = metrics();
    let bed = Bed::new();
    let site = bed.site("lone", |c| c.container_concurrency = 1);
    let lone = pod("lone", &site);
    all_ready(&site, &[&lone]).await;
    let mut here = crowd(&lone).await;
    let mut clients = JoinSet::new();
    for n in 0..BURST {
        let address = front(&lone);
        clients.spawn(async move { ask(address, get("/sleep?2", &format!("{n}"))).await.status });
    }
    // One of them waits in the pod's queue for activators, and the activator has the others.
    until("all to be handed on", || {
        lone.proxy.stats().relayed() == BURST && site.workload.held() as u64 == BURST - 1
    })
    .await;
    assert_eq!(lone.proxy.stats().gauges(), (1, 2));
    assert_eq!(lone.proxy.open(), BURST + 3);
    // They wait, and do not go to and fro.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let resent = |text: &str| {
        let lines = text.lines();
        let of_us = lines.filter(|line| line.starts_with("rouse_activator_resent_total"));
        let of_us: Vec<_> = of_us.filter(|line| line.contains("default/lone")).collect();
        of_us
            .first()
            .map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    let before: usize = resent(&metrics.render());
    assert!(before <= 300 / 50 + 2, "{before} attempts in vain");
    lone.model.state.go.add_permits(2);
    for client in &mut here {
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let ids = lone.model.ids();
    let each: BTreeSet<_> = ids.iter().collect();
    assert_eq!((each.len(), ids.len()), (42, 42));
    assert_eq!(lone.model.state.most.load(SeqCst), 1);
    until("all to be even", || {
        lone.proxy.open() == 0 && site.workload.held() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_who_stays_at_a_pod_nor_who_is_handed_on_starves() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let lone = pod("a", &site);
    all_ready(&site, &[&lone]).await;
    // One after the other each, so there are always more than the pod keeps: whoever finds no place is handed on.
    let length = Duration::from_secs(3);
    let mut clients = JoinSet::new();
    for client in 0..6 {
        let address = front(&lone);
        clients.spawn(async move {
            let mut raw = Raw::open(address).await;
            let (began, mut served) = (Instant::now(), 0_u32);
            while began.elapsed() < length {
                raw.send(get("/sleep?10", &format!("{client}-{served}")))
                    .await;
                assert_eq!(raw.answer().await.expect("an answer").status, 200);
                served += 1;
            }
            (client, served)
        });
    }
    let mut fates = BTreeMap::new();
    while let Some(fate) = clients.join_next().await {
        let (client, fate) = fate.unwrap();
        fates.insert(client, fate);
    }
    let all: u32 = fates.values().sum();
    // Six of them would have a sixth each, if it were always exactly their turn.
    assert!(
        fates.values().all(|served| served * 6 * 3 > all),
        "{fates:?}"
    );
}
