//! Request bodies: small ones travel along and can be sent again, large ones wait until a pod has admitted their request.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::time::timeout;

use crate::{
    bed::{Bed, Pod, until},
    fake::Fake,
    http1::{Raw, ask, get, post, post_chunked},
};

/// Bytes that show any mix-up.
fn pattern(n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_bodies_are_sent_again_whole_and_identical() {
    for (n, chunked) in [(0, false), (1, false), (65_536, false), (50_000, true)] {
        let bed = Bed::new();
        let site = bed.site("a", |_| {});
        let mut fake = Fake::start("p").await;
        let body = pattern(n);
        let request = if chunked {
            post_chunked("/", "x", &body)
        } else {
            post("/", "x", &body)
        };
        // Held first, so that also the chunked one is read whole.
        let mut raw = Raw::sent(site.address(), request).await;
        site.holds(1).await;
        site.endpoints(vec![fake.endpoint.clone()]);
        for _ in 0..3 {
            let mut got = fake.request().await;
            assert_eq!(got.header("expect"), None);
            assert_eq!(got.body().await, body);
            got.answer(503, "full", "").await;
        }
        fake.request().await.answer(200, "admitted", "ok").await;
        assert_eq!(raw.answer().await.unwrap().text(), "ok");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_waits_for_admission_and_goes_whole_to_the_pod_that_admits() {
    let body = pattern(1_000_000);
    for request in [post("/", "x", &body), post_chunked("/", "x", &body)] {
        let bed = Bed::new();
        let site = bed.site("a", |_| {});
        let mut fake = Fake::start("refuses").await;
        site.endpoints(vec![fake.endpoint.clone()]);
        site.ready().await;
        let address = site.address();
        let client = tokio::spawn(async move { ask(address, request).await });
        for _ in 0..2 {
            let mut got = fake.request().await;
            assert_eq!(got.header("expect"), Some("100-continue"));
            assert!(
                timeout(Duration::from_millis(50), got.raw.fill())
                    .await
                    .is_err(),
                "a byte before it was asked for"
            );
            got.answer(503, "full", "").await;
        }
        let pod = Pod::start("p", 0);
        site.pods(&[&pod]);
        let answer = client.await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "echoed whole");
        assert!(pod.model.entry("x").body == body);
        assert!(!pod.model.entry("x").headers.contains_key("expect"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_that_is_held_from_zero_arrives_whole() {
    let body = pattern(1_000_000);
    for request in [post("/", "x", &body), post_chunked("/", "x", &body)] {
        let bed = Bed::new();
        let site = bed.site("a", |_| {});
        let address = site.address();
        let client = tokio::spawn(async move { ask(address, request).await });
        site.holds(1).await;
        let pod = Pod::start("p", 1);
        site.pods(&[&pod]);
        let answer = client.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_the_body_was_wanted_reaches_the_client() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    site.ready().await;
    for i in 0..5 {
        // Only the head and the beginning: the client waits to see what comes of it.
        let head = format!(
            "POST /large HTTP/1.1\r\nhost: t\r\nx-id: {i}\r\ncontent-length: 1000000\r\n\r\n"
        );
        let mut raw = Raw::sent(site.address(), head).await;
        raw.send(vec![1; 10_000]).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
    until("no slot is taken", || pod.proxy.open() == 0).await;
    assert_eq!(ask(site.address(), get("/", "next")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_expects_100_continue_gets_it_only_when_a_pod_has_admitted() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    for n in [10, 100_000] {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: t\r\nx-id: {n}\r\nexpect: 100-continue\r\ncontent-length: {n}\r\n\r\n"
        );
        let mut raw = Raw::sent(site.address(), head).await;
        site.holds(1).await;
        let mut fake = Fake::start("refuses").await;
        site.endpoints(vec![fake.endpoint.clone()]);
        let mut got = fake.request().await;
        assert!(
            timeout(Duration::from_millis(50), raw.fill())
                .await
                .is_err(),
            "too early"
        );
        let pod = Pod::start("p", 1);
        site.pods(&[&pod]);
        site.ready().await;
        got.answer(503, "full", "").await;
        assert_eq!(raw.answer().await.unwrap().status, 100);
        let body = pattern(n);
        raw.send(&body).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == body);
        site.zero();
        until("at zero", || !site.workload.any_ready()).await;
    }
    let mut raw = Raw::sent(
        site.address(),
        "POST / HTTP/1.1\r\nhost: t\r\nexpect: tea\r\ncontent-length: 1\r\n\r\n",
    )
    .await;
    assert_eq!(raw.answer().await.unwrap().status, 417);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_answer_without_100_continue_is_all_that_the_client_sees() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    for expect in ["expect: 100-continue\r\n", ""] {
        let head = format!("POST / HTTP/1.1\r\nhost: t\r\n{expect}content-length: 100000\r\n\r\n");
        let mut raw = Raw::sent(site.address(), head).await;
        let mut got = fake.request().await;
        got.answer(413, "admitted", "too large").await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (413, "too large"));
        assert!(
            raw.ends().await,
            "its body was never read, so nothing can follow"
        );
    }
}

/// A pod says no `100 Continue` any more once its model's answer has begun, and its model may need the body to go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_goes_on_when_the_answer_begins_before_it_was_asked_for() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    let body = pattern(200_000);
    let mut raw = Raw::sent(site.address(), post("/", "x", &body)).await;
    let mut got = fake.request().await;
    assert_eq!(got.header("expect"), Some("100-continue"));
    let head = "HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\ncontent-length: 200000\r\n\r\n";
    got.raw.send(head).await;
    let read = got.body().await;
    assert_eq!(read, body);
    got.raw.send(read).await;
    assert_eq!(raw.answer().await.unwrap().body, body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_the_clients_fault_and_aborts_the_request_at_the_pod() {
    use tokio::io::AsyncWriteExt;
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    site.ready().await;
    let large = post("/", "large", &pattern(1_000_000))[..500_000].to_vec();
    let chunked = post_chunked("/", "chunked", &pattern(1_000_000))[..500_000].to_vec();
    let mut junk = post_chunked("/", "junk", &pattern(200_000));
    junk.truncate(junk.len() - 5);
    junk.extend_from_slice(b"zz\r\n");
    for (broken, at_model) in [
        (large, true),
        (chunked, true),
        (junk, true),
        (
            post("/", "small", &pattern(50_000))[..20_000].to_vec(),
            false,
        ),
    ] {
        let before = pod.model.ids().len();
        let mut raw = Raw::sent(site.address(), broken).await;
        raw.stream.shutdown().await.unwrap();
        if let Some(answer) = raw.answer().await {
            assert_eq!(answer.status, 400, "{}", answer.text());
        }
        until("the slot is free", || pod.proxy.open() == 0).await;
        let seen = pod.model.ids().len() - before;
        assert_eq!(seen, usize::from(at_model));
        assert!(
            pod.model
                .state
                .journal
                .lock()
                .iter()
                .all(|e| e.body.is_empty()),
            "no broken body looks whole"
        );
    }
    assert_eq!(
        ask(site.address(), post("/", "next", b"x")).await.text(),
        "x"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_before_its_large_body_was_wanted_is_noticed() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let head = b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    // Of this one a part has come, which was read ahead.
    let mut begun = post_chunked("/", "x", &[1; 10_000]);
    begun.truncate(begun.len() - b"0\r\n\r\n".len());
    for (request, ahead) in [(head, 0), (begun, 10_000)] {
        let raw = Raw::sent(site.address(), request).await;
        site.holds(1).await;
        until("read ahead", || {
            format!("{:?}", site.workload).contains(&format!(" held_bytes: {ahead},"))
        })
        .await;
        let mut fake = Fake::start("p").await;
        site.endpoints(vec![fake.endpoint.clone()]);
        let mut got = fake.request().await;
        assert_eq!(got.header("expect"), Some("100-continue"));
        drop(raw);
        assert!(got.raw.ends().await, "the pod is kept waiting");
        until("its place is free", || {
            !format!("{:?}", site.workload).contains("ours: 1")
        })
        .await;
        site.zero();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_while_the_model_works_frees_its_place() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    site.ready().await;
    let requests = [get("/wait", "1").into_bytes(), post("/wait", "2", b"small")];
    for (left, request) in requests.into_iter().enumerate() {
        let raw = Raw::sent(site.address(), request).await;
        until("at the model", || pod.model.state.now.load(SeqCst) == 1).await;
        drop(raw);
        until("given up", || pod.proxy.open() == 0).await;
        // Before the next one comes: the model is the last to know.
        until("the model knows", || {
            pod.model.state.dropped.load(SeqCst) == left + 1
        })
        .await;
    }
    assert_eq!(ask(site.address(), get("/", "next")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_of_ours_passes_from_the_model_to_the_client_or_from_the_client_to_the_model() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    site.ready().await;
    let spoof = "GET /spoof HTTP/1.1\r\nhost: real.example\r\nx-id: x\r\n\
        connection: x-forwarded-for, rouse-pod-uid, x-id2\r\nx-id2: gone\r\n\
        rouse-port: 7\r\nrouse-pod-uid: other\r\nrouse-op: wait-ready\r\nrouse-ticket: 1\r\nrouse-timing: x\r\n\
        x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\nforwarded: for=6.6.6.6\r\n\r\n";
    for _ in 0..3 {
        let answer = ask(site.address(), spoof).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
        let ours: Vec<_> = answer
            .head
            .lines()
            .filter(|l| l.starts_with("rouse-"))
            .collect();
        assert!(
            matches!(ours[..], [timing] if timing.starts_with("rouse-timing: hold;dur=")),
            "{ours:?}"
        );
    }
    let seen = pod.model.entry("x").headers;
    assert!(
        seen.keys()
            .all(|k| !k.as_str().starts_with("rouse-") && k != "x-id2"),
        "{seen:?}"
    );
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(seen["x-forwarded-host"], "real.example");
    assert_eq!(seen["host"], "real.example");
    assert!(!seen.contains_key("forwarded"));
}
