//! Connections that have become old end after an answer, and nothing on them is lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use hyper::body::Frame;
use queue_proxy::QueueProxy;
use shared::{
    headers::{POD_UID, PORT},
    http::{
        body::Body,
        client::{Client, Config},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};

use crate::{
    h2,
    model::{Model, echo, streamed, text},
    raw::{Raw, get},
    rig::{UID, activator, addressed, config, front, ready, until, within},
};

const AGE: Duration = Duration::from_millis(300);
/// Longer than the age of any connection: it is up to a tenth more than the limit.
const OLD: Duration = Duration::from_millis(350);

/// A pod that lets connections become as old as this.
async fn aging(model: SocketAddr, age: Duration) -> QueueProxy {
    let mut config = config(&[model], 0);
    config.max_connection_age = Some(age);
    ready(config).await
}

#[tokio::test]
async fn the_next_answer_on_an_old_connection_is_its_last_and_an_idle_one_stays_for_it() {
    let model = Model::ok().await;
    let proxy = aging(model.address, AGE).await;
    let mut old = Raw::connect(front(&proxy)).await;
    assert_eq!(old.get("/").await.header("connection"), None);
    sleep(OLD).await;
    let mut young = Raw::connect(front(&proxy)).await;
    let open = timeout(OLD / 2, old.stream.readable()).await;
    assert!(open.is_err(), "an idle connection carries nothing");
    assert_eq!(young.get("/").await.header("connection"), None);
    let answer = old.get("/").await;
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("ok", Some("close"))
    );
    old.closed().await;
    // One that was never used stays for its first answer, too.
    let mut unused = Raw::connect(front(&proxy)).await;
    sleep(OLD).await;
    assert_eq!(unused.get("/").await.header("connection"), Some("close"));
    unused.closed().await;
}

#[tokio::test]
async fn without_a_limit_a_connection_is_kept() {
    let model = Model::ok().await;
    let mut config = config(&[model.address], 0);
    config.max_connection_age = None;
    let proxy = ready(config).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for _ in 0..5 {
        sleep(OLD / 5).await;
        assert_eq!(client.get("/").await.header("connection"), None);
    }
}

#[tokio::test]
async fn an_answer_that_began_before_is_not_cut_by_age() {
    let (feeds, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let model = Model::start(move |_| {
        let (feed, answer) = streamed();
        feeds.send(feed).unwrap();
        async { answer }
    })
    .await;
    let proxy = aging(model.address, AGE).await;
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", taken.recv()).await.unwrap();
    assert_eq!(client.head().await.header("connection"), None);
    sleep(OLD).await;
    for part in ["one", "two"] {
        feed.send(Frame::data(part.into())).unwrap();
        assert_eq!(client.chunk().await.unwrap(), part);
    }
    drop(feed);
    assert_eq!(client.chunk().await, None);
    assert_eq!(client.exact(2).await, "\r\n");
    client.send(get("/", "")).await;
    drop(within("the request", taken.recv()).await);
    assert_eq!(client.answer().await.header("connection"), Some("close"));
    client.closed().await;
}

#[tokio::test]
async fn a_tunnel_has_no_age() {
    let model = Model::raw(|mut stream| async move {
        let _head = stream.read(&mut [0; 4096]).await;
        let accept = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(accept).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _gone = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let proxy = aging(model.address, AGE).await;
    let ask = get(
        "/ws",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    );
    // Opened young, and opened as the first thing on an old connection.
    let young = Raw::sent(front(&proxy), &ask).await;
    let mut old = Raw::connect(front(&proxy)).await;
    sleep(OLD).await;
    old.send(&ask).await;
    for mut tunnel in [young, old] {
        let head = tunnel.head().await;
        assert_eq!(
            (head.status, head.header("connection")),
            (101, Some("upgrade"))
        );
        for message in ["one", "two"] {
            tunnel.send(message).await;
            assert_eq!(tunnel.exact(3).await, message);
        }
    }
}

#[tokio::test]
async fn an_old_http_2_connection_gets_a_goaway_and_finishes_what_it_carries() {
    let model = Model::start_h2(|request| async { echo(request) }).await;
    let proxy = aging(model.address, AGE).await;
    let (mut client, connection) = h2::connect(front(&proxy)).await;
    let (mut unused, other) = h2::connect(front(&proxy)).await;
    let (feed, body) = h2::fed();
    let answer = client.send_request(h2::request("/", body)).await.unwrap();
    sleep(OLD).await;
    assert!(!connection.is_finished() && !other.is_finished());
    feed.send(Frame::data("still".into())).unwrap();
    drop(feed);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await;
    assert_eq!(body.unwrap().to_bytes(), "still");
    within("the end", connection).await.unwrap().unwrap();
    // A connection that was never used stays for its first call.
    assert_eq!(h2::get(&mut unused, "/").await.0.status(), 200);
    within("the end", other).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_of_activators_have_no_age() {
    for h2 in [false, true] {
        let handler = |_| async { text("ok") };
        let model = if h2 {
            Model::start_h2(handler).await
        } else {
            Model::start(handler).await
        };
        let proxy = aging(model.address, AGE).await;
        let mut raw = Raw::connect(activator(&proxy)).await;
        let client = Client::new(activator(&proxy), Config::default());
        let end = Instant::now() + 3 * OLD;
        while Instant::now() < end {
            let mut request = http::Request::new(Body::empty());
            if h2 {
                *request.version_mut() = http::Version::HTTP_2;
                *request.uri_mut() = "http://a/".parse().unwrap();
            }
            let headers = request.headers_mut();
            headers.insert("host", "a".parse().unwrap());
            headers.insert(POD_UID, UID.parse().unwrap());
            headers.insert(PORT, 0.into());
            let answer = within("an answer", client.send(request)).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.headers().get("connection")),
                (200, None)
            );
            if !h2 {
                raw.send(get("/", &addressed())).await;
                assert_eq!(raw.answer().await.header("connection"), None);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Clients at once, each with a connection that it keeps while it may.
const CLIENTS: usize = 20;
const LOAD: Duration = Duration::from_secs(2);

#[tokio::test]
async fn http_1_clients_lose_nothing_when_their_connections_are_closed_again_and_again() {
    let model = Model::start(|request| async { echo(request) }).await;
    let proxy = aging(model.address, Duration::from_millis(50)).await;
    let address = front(&proxy);
    let closings = Arc::new(AtomicUsize::new(0));
    let end = Instant::now() + LOAD;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let closings = Arc::clone(&closings);
        clients.spawn(async move {
            let mut client = Raw::connect(address).await;
            let mut sent = 0;
            while Instant::now() < end {
                let body = format!("{number} {sent}");
                client.send(crate::raw::post("/", "", &body)).await;
                let answer = client.answer().await;
                assert_eq!((answer.status, answer.text()), (200, body.as_str()));
                sent += 1;
                if answer.header("connection") == Some("close") {
                    client.closed().await;
                    client = Raw::connect(address).await;
                    closings.fetch_add(1, SeqCst);
                }
            }
            sent
        });
    }
    let sent: usize = within("the load", clients.join_all()).await.iter().sum();
    let closings = closings.load(SeqCst);
    println!("{sent} requests, {closings} closings");
    assert!(closings >= 3 * CLIENTS, "{closings} closings");
    assert_eq!(model.seen.count(), sent);
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn http_2_clients_lose_nothing_when_their_connections_go_away_again_and_again() {
    let model = Model::start_h2(|request| async { echo(request) }).await;
    let proxy = aging(model.address, Duration::from_millis(50)).await;
    let address = front(&proxy);
    let end = Instant::now() + LOAD;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(async move {
            let (mut client, mut connection) = h2::connect(address).await;
            let (mut sent, mut ended) = (0, 0);
            while Instant::now() < end {
                let body = format!("{number} {sent}");
                let answer = loop {
                    let out = http_body_util::Full::new(body.clone().into());
                    let request = h2::request("/", http_body_util::BodyExt::boxed(out));
                    match client.send_request(request).await {
                        Ok(answer) => break answer,
                        Err(error) => {
                            assert!(h2::is_unprocessed(&error), "lost: {error:?}");
                            within("the end", connection).await.unwrap().unwrap();
                            (client, connection) = h2::connect(address).await;
                            ended += 1;
                        }
                    }
                };
                assert_eq!(answer.status(), 200);
                let got = http_body_util::BodyExt::collect(answer.into_body()).await;
                assert_eq!(got.unwrap().to_bytes(), body);
                sent += 1;
            }
            (sent, ended)
        });
    }
    let done = within("the load", clients.join_all()).await;
    let (sent, ended) = done
        .iter()
        .fold((0, 0), |(sent, ended), one| (sent + one.0, ended + one.1));
    println!("{sent} calls, {ended} connections ended");
    assert!(ended >= 3 * CLIENTS, "{ended} connections ended");
    // What its client sends again was not processed, indeed.
    assert_eq!(model.seen.count(), sent);
    until("the end", || proxy.open() == 0).await;
}
