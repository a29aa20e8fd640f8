//! Clients that leave, or stop reading, while their request is at a model behind the activator and its pod.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use crate::{
    bed::{Bed, Pod, Site, until},
    h2::{self, Frames},
    http1::{Raw, get, post_chunked},
};

/// Nothing of a request is left anywhere, and the model has seen `n` of them given up.
async fn left(site: &Site, pod: &Pod, n: usize) {
    let state = &pod.model.state;
    until("the model sees it", || state.dropped.load(SeqCst) == n).await;
    until("the slot is free", || pod.proxy.open() == 0).await;
    assert_eq!((state.now.load(SeqCst), site.workload.held()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_gone_at_the_model_whether_it_answers_yet_or_is_silent() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    site.ready().await;
    let now = || pod.model.state.now.load(SeqCst);

    let client = Raw::sent(site.address(), get("/wait", "1")).await;
    until("it is at the model", || now() == 1).await;
    drop(client);
    left(&site, &pod, 1).await;

    // The answer has begun, and nothing more of it comes: its request is still open.
    let mut part = post_chunked("/mirror", "2", b"part");
    part.truncate(part.len() - b"0\r\n\r\n".len());
    let mut client = Raw::sent(site.address(), part).await;
    assert!(client.until(b"part").await.is_some());
    drop(client);
    left(&site, &pod, 2).await;

    let connection = h2::Connection::open(site.address()).await;
    let (writer, body) = Frames::new();
    let answer = connection.send(h2::post("/mirror", "3", body)).await;
    until("it is at the model", || now() == 1).await;
    drop((answer, writer));
    left(&site, &pod, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_nothing_is_cut_and_keeps_no_slot() {
    let bed = Bed::with(|config| config.serve.send = Some(Duration::from_secs(1)));
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    site.ready().await;
    // It is mirrored, so that what is not read fills every buffer on the way.
    let head = b"POST /mirror HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999\r\n\r\n";
    let client = Raw::sent(site.address(), head).await;
    let (reading, mut writing) = client.stream.into_split();
    let flood = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let bytes = vec![7; 65_536];
        while writing.write_all(&bytes).await.is_ok() {}
    });
    until("it is at the model", || {
        pod.model.state.now.load(SeqCst) == 1
    })
    .await;
    left(&site, &pod, 1).await;
    drop(reading);
    flood.await.unwrap();
}
