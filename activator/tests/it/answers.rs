//! What a pod may answer, proper or not, and what becomes of it at the client.

use tokio::io::AsyncWriteExt as _;

use crate::{
    bed::{Bed, Site},
    fake::Fake,
    http1::{Raw, get},
};

/// A workload with one pod that is written by hand.
async fn with_fake(bed: &Bed) -> (Site, Fake) {
    let site = bed.site("a", |_| {});
    let fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    site.ready().await;
    (site, fake)
}

/// Asks on a connection of its own and has the pod answer with these bytes and close.
async fn told(site: &Site, fake: &mut Fake, request: &str, answer: &[u8]) -> Raw {
    let raw = Raw::sent(site.address(), request).await;
    let mut got = fake.request().await;
    // It may have enough before the last byte.
    let _refused = got.raw.stream.write_all(answer).await;
    drop(got);
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_none_is_a_502_and_the_request_is_not_sent_again() {
    let bed = Bed::new();
    let (site, mut fake) = with_fake(&bed).await;
    for bad in [
        &b"HTTP/1.1 099 OK\r\nrouse-admission: admitted\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 1000 OK\r\nrouse-admission: admitted\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nrouse-admission: admitted\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nrouse-admission: admitted\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nrouse-admission: admitted\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\ncontent-length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\nx: a\0b\r\n\r\n",
        // Whoever says nothing of an admission is no queue-proxy.
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"garbage\r\n\r\n",
        b"",
    ] {
        let shown = bad.escape_ascii();
        let mut client = told(&site, &mut fake, &get("/", "x"), bad).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 502, "{shown}");
        assert!(!fake.has_request(), "{shown}: sent again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_beside_chunks_is_dropped() {
    let bed = Bed::new();
    let (site, mut fake) = with_fake(&bed).await;
    for order in [
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 3",
    ] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\n{order}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        let mut client = told(&site, &mut fake, &get("/", "x"), answer.as_bytes()).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.header("content-length"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_after_an_answer_without_a_body_never_become_another_answer() {
    let bed = Bed::new();
    let (site, mut fake) = with_fake(&bed).await;
    let evil = "HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\ncontent-length: 4\r\n\r\nevil";
    for (request, line) in [
        (get("/", "x"), "204 No Content"),
        (get("/", "x"), "304 Not Modified"),
        (
            get("/", "x").replace("GET", "HEAD"),
            "200 OK\r\ncontent-length: 4",
        ),
    ] {
        let answer = format!("HTTP/1.1 {line}\r\nrouse-admission: admitted\r\n\r\n{evil}");
        let mut client = told(&site, &mut fake, &request, answer.as_bytes()).await;
        let head = client.until(b"\r\n\r\n").await.unwrap();
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains(&line[..3]), "{head}");
        // The next answer of this connection is the next one of a pod's.
        client.send(get("/", "y")).await;
        let mut got = fake.request().await;
        got.answer(200, "admitted", "good").await;
        let answer = client.answer().await.unwrap();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "good"),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_are_swallowed_however_many_they_are() {
    let bed = Bed::new();
    let (site, mut fake) = with_fake(&bed).await;
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(10_000);
    let last = "HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\ncontent-length: 2\r\n\r\nok";
    let mut client = told(
        &site,
        &mut fake,
        &get("/", "x"),
        format!("{hints}{last}").as_bytes(),
    )
    .await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_answer_is_held_back_by_its_reader_not_kept_in_memory() {
    const MOST: usize = 16 * 1024 * 1024;
    let bed = Bed::new();
    let (site, mut fake) = with_fake(&bed).await;
    let mut client = Raw::sent(site.address(), get("/", "x")).await;
    let mut got = fake.request().await;
    got.raw
        .send("HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    assert!(client.until(b"\r\n\r\n").await.is_some());
    let chunk = [b"10000\r\n", &vec![b'x'; 0x10000][..], b"\r\n"].concat();
    let mut taken = 0;
    // What the kernel keeps on two connections is a few megabytes.
    while let Ok(done) = tokio::time::timeout(
        std::time::Duration::from_millis(500),
        got.raw.stream.write_all(&chunk),
    )
    .await
    {
        done.unwrap();
        taken += chunk.len();
        assert!(taken < MOST, "nobody reads it, and {taken} bytes are gone");
    }
    drop(client);
    assert!(got.raw.ends().await, "the pod learns that nobody wants it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_trailers_of_a_pod_are_not_without_end() {
    let bed = Bed::new();
    let (site, mut fake) = with_fake(&bed).await;
    let fields = "x: y\r\n".repeat(10_000);
    let large = format!("x: {}\r\n", "y".repeat(2_000_000));
    for fields in [&fields, &large] {
        let head = format!("HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\n{fields}\r\n");
        let mut client = told(&site, &mut fake, &get("/", "x"), head.as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().status, 502);
        let chunked = "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
        let trailers =
            format!("HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\n{chunked}{fields}\r\n");
        let mut client = told(&site, &mut fake, &get("/", "x"), trailers.as_bytes()).await;
        // The head may have gone out; the answer is not whole then.
        let whole = client
            .answer()
            .await
            .is_some_and(|answer| answer.status == 200);
        assert!(!whole, "{} bytes of trailers", fields.len());
    }
}
