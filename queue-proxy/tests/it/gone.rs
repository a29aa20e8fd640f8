//! Clients that leave leave nothing behind: no place in the queue, no slot, no request at the model.

use std::io::ErrorKind;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use queue_proxy::QueueProxy;
use shared::TargetId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use crate::{
    h2,
    model::{Model, streaming},
    raw::{Raw, get, post},
    rig::{activator, addressed, config, front, metrics, pod, ready, soon, until, within},
    timeouts::counted,
};

const QUICKLY: Duration = Duration::from_millis(250);

#[tokio::test]
async fn one_who_leaves_the_queue_gives_up_his_place_and_no_slot_is_lost() {
    let (model, gate) = Model::gated().await;
    let proxy = pod(model.address, 1).await;
    let mut busy = Raw::sent(front(&proxy), get("/first", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let large = format!("{}x", "y".repeat(1000));
    for request in [
        get("/nothing", ""),
        post("/small", "", &large),
        // A body that is still on its way.
        "POST /part HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_owned(),
        "POST /chunks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
            .to_owned(),
        "POST /expect HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 99999\r\n\r\n"
            .to_owned(),
    ] {
        for (listener, lines) in [
            (front(&proxy), String::new()),
            (activator(&proxy), addressed()),
        ] {
            let request = request.replace("host: a\r\n", &format!("host: a\r\n{lines}"));
            let client = Raw::sent(listener, &request).await;
            until("it to wait", || proxy.stats().gauges() == (1, 1)).await;
            drop(client);
            soon(QUICKLY, &format!("{request:?} to leave"), || {
                proxy.stats().gauges() == (1, 0)
            })
            .await;
        }
    }
    gate.add_permits(2);
    assert_eq!(busy.answer().await.text(), "/first");
    assert_eq!(busy.get("/next").await.text(), "/next");
    assert_eq!(model.seen.paths(), ["/first", "/next"]);
    until("the account to be even", || {
        proxy.stats().totals() == (12, 12)
    })
    .await;
    assert_eq!(proxy.open(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_gone_at_the_model_too() {
    let (model, _gate) = Model::gated().await;
    let proxy = pod(model.address, 1).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        for request in [get("/", &lines), post("/", &lines, "small")] {
            let client = Raw::sent(listener, request).await;
            until("it to arrive", || model.seen.active() == 1).await;
            drop(client);
            soon(QUICKLY, "the end at the model", || model.seen.active() == 0).await;
            until("the connection's end", || model.seen.open() == 0).await;
            until("the slot to be free", || proxy.open() == 0).await;
        }
    }
    assert_eq!(proxy.stats().totals(), (4, 4));
    assert_eq!(model.seen.cancelled(), 4);
}

#[tokio::test]
async fn a_client_that_leaves_mid_answer_ends_it_at_a_model_that_is_silent() {
    let (model, mut taken) = streaming(false).await;
    let proxy = pod(model.address, 1).await;
    for round in 1..=5 {
        let mut client = Raw::sent(front(&proxy), get("/", "")).await;
        let feed = within("the request", taken.recv()).await.unwrap();
        client.head().await;
        if round > 1 {
            feed.send(Frame::data(Bytes::from("one"))).unwrap();
            assert_eq!(client.chunk().await.unwrap(), "one");
        }
        assert_eq!(proxy.open(), 1);
        drop(client);
        soon(QUICKLY, "the slot to be free", || proxy.open() == 0).await;
        soon(QUICKLY, "the connection's end", || model.seen.open() == 0).await;
        assert_eq!(proxy.stats().totals(), (round, round));
        assert!(feed.is_closed());
    }
    // A half-read answer never becomes part of the next one.
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", taken.recv()).await.unwrap();
    feed.send(Frame::data(Bytes::from("whole"))).unwrap();
    drop(feed);
    assert_eq!(client.answer().await.text(), "whole");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_body_aborts_it_at_the_model() {
    let model = Model::start(|request| async { crate::model::echo(request) }).await;
    let proxy = pod(model.address, 1).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nabc";
    let mut client = Raw::sent(front(&proxy), head).await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), "abc");
    drop(client);
    soon(QUICKLY, "the connection's end", || model.seen.open() == 0).await;
    until("the slot to be free", || proxy.open() == 0).await;
}

#[tokio::test]
async fn connections_whose_answers_were_read_to_the_end_are_used_again() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert!(
        model.seen.connections() <= 3,
        "{}",
        model.seen.connections()
    );
}

/// A pod of the workload `default/NAME`, with one slot, whose clients have so long to take something.
async fn named(model: &Model, name: &str, send: Duration) -> QueueProxy {
    metrics();
    let mut config = config(&[model.address], 1);
    config.target = TargetId::new("default", name).unwrap();
    config.serve.send = Some(send);
    ready(config).await
}

/// How a connection ends for a model that reads on after the head of a request.
async fn end_of(mut stream: TcpStream, answer: &[u8]) -> Result<usize, ErrorKind> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read_buf(&mut head).await;
        if read.map_err(|e| e.kind())? == 0 {
            return Ok(0);
        }
    }
    let _gone = stream.write_all(answer).await;
    stream.read(&mut [0; 64]).await.map_err(|e| e.kind())
}

#[tokio::test]
async fn a_model_sees_a_reset_when_its_client_is_gone_and_a_plain_end_when_it_was_answered() {
    const PART: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\npart";
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for (name, answer, gone) in [
        ("gone-before-answer", &b""[..], true),
        ("gone-in-answer", PART, true),
        ("not-gone", WHOLE, false),
    ] {
        let (ends, mut ended) = mpsc::unbounded_channel();
        let model = Model::raw(move |stream| {
            let ends = ends.clone();
            async move {
                ends.send(end_of(stream, answer).await).unwrap();
            }
        })
        .await;
        let proxy = named(&model, name, Duration::from_mins(1)).await;
        let mut client = Raw::sent(front(&proxy), get("/", "")).await;
        if answer == WHOLE {
            assert_eq!(client.answer().await.text(), "ok");
        } else if answer == PART {
            client.head().await;
            assert_eq!(client.exact(4).await, "part");
        } else {
            until("it to be seen", || model.seen.open() == 1).await;
        }
        let left = Instant::now();
        drop(client);
        if gone {
            let end = within("the end", ended.recv()).await.unwrap();
            assert_eq!(end, Err(ErrorKind::ConnectionReset), "{name}");
            // 250 ms are meant; the rest is for a machine that is busy.
            assert!(
                left.elapsed() < Duration::from_secs(2),
                "{:?}",
                left.elapsed()
            );
            until("the slot to be free", || proxy.open() == 0).await;
            counted(name, &[("client-gone", 1)]).await;
        } else {
            // It is kept, and closed with the queue-proxy.
            counted(name, &[("2xx", 1)]).await;
            drop(proxy);
            let end = within("the end", ended.recv()).await.unwrap();
            assert_eq!(end, Ok(0), "{name}");
        }
    }
}

/// Reads HTTP/2 frames until one resets a stream, and returns its code. Answers the first request with a head if told so.
async fn reset_of(mut stream: TcpStream, answers: bool) -> Option<u32> {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    // Our SETTINGS, and the answer to theirs.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.ok()?;
    stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        match head[3] {
            // `:status: 200` is number 8 of the static table.
            HEADERS if answers => {
                let mut answer = vec![0, 0, 1, HEADERS, 4];
                answer.extend_from_slice(&head[5..9]);
                answer.push(0x88);
                stream.write_all(&answer).await.ok()?;
            }
            RST_STREAM => return Some(u32::from_be_bytes(payload.try_into().ok()?)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_stream_of_an_http_2_client_that_is_gone_is_cancelled_at_the_model() {
    const CANCEL: u32 = 8;
    for (name, answers) in [
        ("h2-gone-before-answer", false),
        ("h2-gone-in-answer", true),
    ] {
        let (ends, mut ended) = mpsc::unbounded_channel();
        let model = Model::raw(move |stream| {
            let ends = ends.clone();
            async move {
                ends.send(reset_of(stream, answers).await).unwrap();
            }
        })
        .await;
        let proxy = named(&model, name, Duration::from_mins(1)).await;
        let (mut client, _connection) = h2::connect(front(&proxy)).await;
        let sending = tokio::spawn(client.send_request(h2::request("/", h2::nothing())));
        until("it to be at the model", || model.seen.open() == 1).await;
        if answers {
            let answer = within("an answer", sending).await.unwrap().unwrap();
            drop(answer);
        } else {
            sleep(Duration::from_millis(100)).await;
            sending.abort();
        }
        let end = within("the reset", ended.recv()).await.unwrap();
        assert_eq!(end, Some(CANCEL), "{name}");
        until("the slot to be free", || proxy.open() == 0).await;
        counted(name, &[("client-gone", 1)]).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_slot_and_one_that_reads_slowly_does_not() {
    let (model, mut taken) = streaming(false).await;
    let name = "stalled";
    let proxy = named(&model, name, Duration::from_secs(1)).await;
    // Far more than the buffers between here and there hold.
    let chunk = Bytes::from(vec![7; 256 * 1024]);
    let fill = |feed: &crate::model::Feed| {
        for _ in 0..100 {
            let _gone = feed.send(Frame::data(chunk.clone()));
        }
    };
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", taken.recv()).await.unwrap();
    client.head().await;
    fill(&feed);
    let began = Instant::now();
    until("the slot to be free", || proxy.open() == 0).await;
    assert!(began.elapsed() >= Duration::from_millis(900));
    until("its end at the model", || feed.is_closed()).await;
    counted(name, &[("client-stalled", 1)]).await;

    // A pause before each of them is shorter than the limit, and all of them are longer.
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", taken.recv()).await.unwrap();
    fill(&feed);
    drop(feed);
    client.head().await;
    let began = Instant::now();
    let (mut read, mut pauses) = (0, 0);
    while let Some(part) = client.chunk().await {
        read += part.len();
        if read / (2 * 1024 * 1024) > pauses {
            pauses += 1;
            sleep(Duration::from_millis(150)).await;
        }
    }
    assert_eq!(read, 100 * chunk.len());
    assert!(began.elapsed() > Duration::from_millis(1_500));
    counted(name, &[("2xx", 1), ("client-stalled", 1)]).await;
}

#[tokio::test]
async fn an_http_2_stream_that_is_not_read_is_reset_and_the_others_go_on() {
    let (model, mut taken) = streaming(true).await;
    let name = "h2-stalled";
    metrics();
    let mut config = config(&[model.address], 0);
    config.target = TargetId::new("default", name).unwrap();
    config.serve.send = Some(Duration::from_secs(1));
    let proxy = ready(config).await;
    let (mut client, _connection) = h2::connect(front(&proxy)).await;
    let deaf = client.send_request(h2::request("/deaf", h2::nothing()));
    let mut deaf = within("an answer", deaf).await.unwrap().into_body();
    let flood = within("the request", taken.recv()).await.unwrap();
    // More than the window of the stream, and less than would fill that of the connection.
    for _ in 0..40 {
        flood
            .send(Frame::data(Bytes::from(vec![7; 64 * 1024])))
            .unwrap();
    }
    let lively = client.send_request(h2::request("/lively", h2::nothing()));
    let mut lively = within("an answer", lively).await.unwrap().into_body();
    let feed = within("the request", taken.recv()).await.unwrap();
    until("the flood to end", || flood.is_closed()).await;
    until("one to be left", || proxy.open() == 1).await;
    feed.send(Frame::data(Bytes::from("x"))).unwrap();
    let frame = within("a frame", lively.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "x");
    drop(feed);
    within("the end", lively.collect()).await.unwrap();
    let end = within("the reset", async {
        loop {
            match deaf.frame().await {
                Some(Ok(_)) => {}
                other => return other,
            }
        }
    })
    .await;
    assert!(format!("{end:?}").contains("CANCEL"), "{end:?}");
    counted(name, &[("2xx", 1), ("client-stalled", 1)]).await;
}
