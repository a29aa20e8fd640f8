//! Down to zero and up again, with requests at any instant.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    bed::{Bed, Pod},
    http1::{Raw, get, post},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sleeps_lose_no_request_and_run_none_twice() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 4);
    let mut clients = JoinSet::new();
    let (tx, mut sent) = mpsc::unbounded_channel();
    let mut journal: HashMap<String, usize> = HashMap::new();
    let mut random = 12_345_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for round in 0..100 {
        let pod = Pod::start(&format!("p{round}"), 4);
        site.pods(&[&pod]);
        for i in 0..6 {
            let (address, tx) = (site.address(), tx.clone());
            let delay = Duration::from_micros(below(12_000));
            let large = i == 0;
            clients.spawn(async move {
                tokio::time::sleep(delay).await;
                let id = format!("{round}-{i}");
                let request = if large {
                    post("/", &id, &vec![1; 100_000])
                } else {
                    get("/", &id).into_bytes()
                };
                let mut raw = Raw::sent(address, request).await;
                let answer = raw.answer().await;
                tx.send(id.clone()).unwrap();
                (id, answer.map(|a| (a.status, a.text())))
            });
        }
        tokio::time::sleep(Duration::from_micros(below(10_000))).await;
        // As the autoscaler and the kubelet do it: no new requests, then those that run end, then the pod.
        site.tell(|e| e.replicas = 0);
        site.workload.retire(&pod.uid).await;
        site.zero();
        for id in pod.model.ids() {
            *journal.entry(id).or_default() += 1;
        }
        assert_eq!(
            pod.proxy.stop(Duration::ZERO).await,
            0,
            "round {round}: cut a request"
        );
    }
    let last = Pod::start("last", 4);
    site.pods(&[&last]);
    while let Some(done) = clients.join_next().await {
        let (id, answer) = done.unwrap();
        let (status, text) = answer.unwrap_or_else(|| panic!("{id} was not answered"));
        assert_eq!(status, 200, "{id}: {text}");
    }
    for id in last.model.ids() {
        *journal.entry(id).or_default() += 1;
    }
    drop(tx);
    let mut count = 0;
    while let Some(id) = sent.recv().await {
        assert_eq!(journal.get(&id), Some(&1), "{id}");
        count += 1;
    }
    assert_eq!((count, journal.len()), (600, 600));
}
