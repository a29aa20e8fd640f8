//! Clients that attack an HTTP/2 listener: each is told to go, refused or cut off within a bound, leaves nothing behind, and others
//! are served all the while.

use std::{net::SocketAddr, time::Duration};

use attacks::{
    Attack, Client, Fate, Outcome, Plan,
    frame::{self, END_STREAM, GET, POST, block, field, headers, kind},
    malformed, run,
};
use http_body_util::BodyExt;
use queue_proxy::QueueProxy;
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{advance, pause, resume, sleep},
};

use crate::{
    h2,
    model::{Model, text},
    raw::{Raw, get},
    rig::{activator, config, front, ready, stat, until, within},
};

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
/// A burst of frames that carry nothing, twice: while they are sent, a few more become allowed, and the kernel takes what nobody reads.
const BURST: u64 = 2 * 10_000 + 100_000;

/// A pod whose model has two ends: `/` in HTTP/2 for the attackers, and HTTP/1 for a client that means well.
async fn pod() -> (Model, Model, QueueProxy, SocketAddr, SocketAddr) {
    let attacked = Model::start_h2(|_| async { text("ok") }).await;
    let other = Model::ok().await;
    let mut config = config(&[attacked.address, other.address], 0);
    config.serve.send = Some(Duration::from_millis(300));
    let proxy = ready(config).await;
    let (to, victim) = (proxy.addresses()[0], proxy.addresses()[1]);
    (attacked, other, proxy, to, victim)
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn plan(frames: u64) -> Plan {
    Plan {
        frames,
        pace: None,
        patience: Duration::from_secs(20),
    }
}

/// Attacks, and has another client ask for something again and again until the attack is over; at least ten times.
async fn attacked(to: SocketAddr, victim: SocketAddr, attack: Attack, frames: u64) -> Outcome {
    let attacking: JoinHandle<_> = tokio::spawn(run(to, attack, plan(frames)));
    let mut client = Raw::connect(victim).await;
    let mut asked = 0;
    while !attacking.is_finished() || asked < 10 {
        client.send(get("/", "")).await;
        assert_eq!(client.answer().await.status, 200, "{attack:?}");
        asked += 1;
    }
    attacking.await.unwrap().unwrap()
}

/// Attacks that end with the attacker's connection, each with the frames after which it must be over.
const ENDED: [(Attack, u64); 11] = [
    // One buffer's: as long as nobody has taken them, twenty may be taken back.
    (Attack::RapidReset, BURST),
    // Two frames each.
    (Attack::MadeYouReset, 2 * 1_024 + 10_000),
    (Attack::Refused, 128 + 1_024 + 10_000),
    (Attack::Continuation, 10_000),
    (Attack::Settings, BURST),
    (Attack::Ping, BURST),
    (Attack::Priority, BURST),
    (Attack::Window, BURST),
    (Attack::Unknown, BURST),
    (Attack::EmptyData, 10_000),
    (Attack::HeaderBomb, 10),
];

#[tokio::test]
async fn requests_that_were_reset_before_they_had_a_turn_are_not_begun() {
    let (_model, _other, proxy, to, _victim) = pod().await;
    // A hundred, which is what may be open at once and no reason to end the connection.
    let attack = Plan {
        patience: Duration::from_secs(2),
        ..plan(2 * 100)
    };
    let outcome = run(to, Attack::MadeYouReset, attack).await.unwrap();
    assert_eq!(outcome.resets.values().sum::<u64>(), 100, "{outcome:?}");
    let begun = stat(&proxy, "").await.started_total;
    // The first ones, and those between whose two frames a read ended.
    assert!((1..50).contains(&begun), "{begun}");
}

#[tokio::test]
async fn an_attacker_is_cut_off_within_a_bound_while_others_are_served() {
    let (attacked_model, _other, proxy, to, victim) = pod().await;
    // What is kept between requests is there before the first look.
    let mut client = Raw::connect(victim).await;
    assert_eq!(client.get("/").await.status, 200);
    let before = tasks();
    for (attack, most) in ENDED {
        let outcome = attacked(to, victim, attack, most).await;
        println!("{}: {outcome:?}", attack.name());
        assert!(outcome.closed, "{attack:?}: {outcome:?}");
        let known = [ENHANCE_YOUR_CALM, 1];
        // Its word may be lost: an end while the attacker sends is a reset.
        assert!(
            outcome
                .goaway
                .as_ref()
                .is_none_or(|(reason, _)| known.contains(reason)),
            "{attack:?}: {outcome:?}"
        );
        until("no request of it to be left", || {
            proxy.open() == 0 && attacked_model.seen.active() == 0
        })
        .await;
    }
    // Connections to the model that are kept are a few; what an attack leaves behind would be hundreds.
    until("its tasks to be gone", || tasks() < before + 20).await;
}

#[tokio::test]
async fn a_body_in_single_bytes_goes_at_the_model_s_pace_or_ends() {
    // The model takes each as it comes. As soon as too many wait for it, h2 ends the connection.
    let (_model, _other, proxy, to, victim) = pod().await;
    let before = tasks();
    let outcome = attacked(to, victim, Attack::TinyData, 20_000).await;
    println!("{outcome:?}");
    assert!(outcome.closed || outcome.answers == 1, "{outcome:?}");
    until("the end", || proxy.open() == 0).await;
    until("its tasks to be gone", || tasks() < before + 20).await;
}

#[tokio::test]
async fn answers_that_nobody_takes_are_reset_and_their_slots_free_again() {
    let (_model, _other, proxy, to, victim) = pod().await;
    let before = tasks();
    let attacking = tokio::spawn(run(to, Attack::ZeroWindow, plan(200)));
    until("the requests to arrive", || proxy.open() > 0).await;
    assert_eq!(Raw::connect(victim).await.get("/").await.status, 200);
    until("their slots to be free", || proxy.open() == 0).await;
    assert_eq!(Raw::connect(victim).await.get("/").await.status, 200);
    attacking.abort();
    until("its tasks to be gone", || tasks() < before + 20).await;
}

#[tokio::test]
async fn a_malformed_request_is_refused_alone_and_reaches_nobody() {
    let model = Model::start_h2(|_| async { text("ok") }).await;
    let proxy = ready(config(&[model.address], 0)).await;
    for listener in [front(&proxy), activator(&proxy)] {
        let mut client = Client::connect(listener).await.unwrap();
        let mut stream = 1;
        for (what, block) in malformed::requests() {
            client
                .send(&headers(stream, END_STREAM, &block))
                .await
                .unwrap();
            match client.fate(stream).await {
                Fate::Reset(_) | Fate::Answered(_) => stream += 2,
                // What h2 takes for an error of the connection ends it.
                Fate::Ended(Some(1 | 9)) => {
                    client = Client::connect(listener).await.unwrap();
                    stream = 1;
                }
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!(model.seen.count(), 0, "{what} reached the model");
        }
    }
    let mut client = Client::connect(front(&proxy)).await.unwrap();
    client
        .send(&headers(1, END_STREAM, &block(GET)))
        .await
        .unwrap();
    assert_eq!(
        client.fate(1).await,
        Fate::Good,
        "what differs is well-formed"
    );
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_was_said_to_be_is_never_whole() {
    let model = Model::start_h2(|request| async move {
        let whole = request.into_body().collect().await.is_ok();
        text(if whole { "whole" } else { "broken" })
    })
    .await;
    let proxy = ready(config(&[model.address], 0)).await;
    for body in [&b"hell"[..], b"hello!", b""] {
        let mut client = Client::connect(front(&proxy)).await.unwrap();
        let fields = [block(POST), field("content-length", "5")].concat();
        client.send(&headers(1, 0, &fields)).await.unwrap();
        let data = frame::frame(kind::DATA, END_STREAM, 1, body);
        client.send(&data).await.unwrap();
        let fate = client.fate(1).await;
        assert_eq!(fate, Fate::Reset(PROTOCOL_ERROR), "{} bytes", body.len());
    }
    until("the end", || proxy.open() == 0).await;
    until("the model to know", || model.seen.active() == 0).await;
}

#[tokio::test]
async fn trailers_cannot_frame_or_route_and_are_not_without_end() {
    let model = Model::start_h2(|request| async move {
        let body = request.into_body().collect().await;
        let trailers = body.ok().and_then(|body| body.trailers().cloned());
        let names = trailers.iter().flat_map(http::HeaderMap::keys);
        let names: Vec<_> = names.map(http::HeaderName::as_str).collect();
        let mut answer = text("");
        answer
            .headers_mut()
            .insert("x-trailers", names.join(",").parse().unwrap());
        answer
    })
    .await;
    let proxy = ready(config(&[model.address], 0)).await;
    // Those that h2 refuses itself are for the connection alone.
    for (fields, passes) in [
        (
            vec![
                ("grpc-status", "0"),
                ("content-length", "5"),
                ("host", "b"),
                ("rouse-ticket", "1"),
            ],
            true,
        ),
        (vec![("transfer-encoding", "chunked")], false),
        (vec![("connection", "close")], false),
        // h2 leaves it out, so that nobody sees it.
        (vec![(":path", "/")], true),
        (vec![("x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"); 10_000], false),
    ] {
        let mut client = Client::connect(front(&proxy)).await.unwrap();
        client.send(&headers(1, 0, &block(POST))).await.unwrap();
        client
            .send(&frame::frame(kind::DATA, 0, 1, b"x"))
            .await
            .unwrap();
        let trailers = block(&fields);
        // As many frames as it takes; the other side may have enough before the last.
        let mut pieces = trailers.chunks(16_000).peekable();
        let mut first = true;
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() {
                frame::END_HEADERS
            } else {
                0
            };
            let (kind, flags) = if first {
                (kind::HEADERS, END_STREAM | end)
            } else {
                (kind::CONTINUATION, end)
            };
            first = false;
            if client
                .send(&frame::frame(kind, flags, 1, piece))
                .await
                .is_err()
            {
                break;
            }
        }
        let fate = client.fate(1).await;
        let shown = &fields[0];
        assert_eq!(fate == Fate::Good, passes, "{shown:?}: {fate:?}");
    }
    until("the end", || proxy.open() == 0).await;
    let (mut client, _connection) = h2::connect(front(&proxy)).await;
    let (feed, body) = h2::fed();
    let answer = client.send_request(h2::request("/", body));
    let mut trailers = http::HeaderMap::new();
    for name in [
        "grpc-status",
        "content-length",
        "host",
        "authorization",
        "rouse-ticket",
        "trailer",
    ] {
        trailers.insert(name, "0".parse().unwrap());
    }
    feed.send(hyper::body::Frame::trailers(trailers)).unwrap();
    drop(feed);
    let answer = within("an answer", answer).await.unwrap();
    assert_eq!(answer.headers()["x-trailers"], "grpc-status");
}

/// Whether the other side has ended the connection; what it said before is thrown away.
fn is_over(client: &Raw) -> bool {
    let mut bytes = [0; 1_024];
    loop {
        match client.stream.try_read(&mut bytes) {
            Ok(1..) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Ok(0) | Err(_) => return true,
        }
    }
}

#[tokio::test]
async fn a_connection_on_which_a_head_or_the_settings_never_come_is_closed() {
    let model = Model::start_h2(|_| async { text("ok") }).await;
    let proxy = ready(config(&[model.address], 0)).await;
    let preface_only = Raw::sent(front(&proxy), frame::PREFACE).await;
    let mut half_a_head = Raw::sent(front(&proxy), frame::PREFACE).await;
    half_a_head.send(frame::settings(&[])).await;
    half_a_head
        .send(frame::frame(kind::HEADERS, END_STREAM, 1, &block(GET)))
        .await;
    // Neither answers the PING that comes after 20 s.
    let mut seconds = 0;
    while !(is_over(&preface_only) && is_over(&half_a_head)) {
        assert!(seconds < 40, "still open");
        pause();
        advance(Duration::from_secs(1)).await;
        resume();
        // What the clock has caused is to be read and written.
        sleep(Duration::from_millis(2)).await;
        seconds += 1;
    }
    assert!(seconds >= 20, "over after {seconds} s");
    assert_eq!(model.seen.count(), 0);
}
