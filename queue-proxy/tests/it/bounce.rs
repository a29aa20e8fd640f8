//! Requests that are handed on to the activators, and what becomes of them where there are none. Activators are played by models: what
//! real ones make of it is in the activator's tests.

use std::{collections::BTreeMap, net::SocketAddr};

use http_body_util::BodyExt as _;
use queue_proxy::{Config, QueueProxy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    time::{Duration, Instant},
};

use crate::{
    h2,
    model::{Model, echo, empty, text},
    raw::{Raw, get, post},
    rig::{
        activator, addressed, any, config, front, metrics, outcomes, ready, soon, stat, until,
        within,
    },
};

const QUICKLY: Duration = Duration::from_millis(250);

/// A pod's settings whose requests are bounced to `there`; with a limit, one may wait for each slot.
fn bouncing(model: SocketAddr, limit: u32, there: SocketAddr) -> Config {
    let mut config = config(&[model], limit);
    config.bounce_to = vec![Some(there.into())];
    config
}

/// Takes the one slot and the one place in the queue of a pod with a limit of one.
async fn crowd(proxy: &QueueProxy, model: &Model) -> [Raw; 2] {
    let before = model.seen.count();
    let inside = Raw::sent(front(proxy), get("/inside", "")).await;
    until("the slot to be taken", || model.seen.count() == before + 1).await;
    let waiting = Raw::sent(front(proxy), get("/waiting", "")).await;
    until("one to wait", || proxy.stats().gauges() == (1, 1)).await;
    [inside, waiting]
}

/// An address at which nobody is.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(any()).await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn who_would_wait_for_long_is_answered_by_an_activator_and_counts_nowhere_else() {
    let _counted = metrics();
    let (model, gate) = Model::gated().await;
    let there = Model::start(|request| async move {
        let mut answer = echo(request);
        answer
            .headers_mut()
            .insert("x-from", "there".parse().unwrap());
        for ours in ["rouse-timing", "rouse-admission", "rouse-load"] {
            answer.headers_mut().insert(ours, "1".parse().unwrap());
        }
        answer
    })
    .await;
    let mut config = bouncing(model.address, 1, there.address);
    config.target = "default/bounced".parse().unwrap();
    let proxy = ready(config).await;
    let mut here = crowd(&proxy, &model).await;
    let large = "y".repeat(300_000);
    for body in ["", "small", large.as_str()] {
        let lines = "connection: x-hop\r\nx-hop: 1\r\nrouse-ticket: 7\r\nx-mine: 1\r\n";
        let mut client = Raw::sent(front(&proxy), post("/bounced?x=1", lines, body)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
        assert_eq!(answer.header("x-from"), Some("there"));
        let ours = answer
            .headers
            .iter()
            .find(|(name, _)| name.starts_with("rouse-"));
        assert_eq!(ours, None);
    }
    let asked = there.seen.last();
    assert_eq!([&asked["host"], &asked["x-mine"]], ["a", "1"]);
    assert_eq!(asked["x-forwarded-for"], "127.0.0.1");
    assert!(!asked.contains_key("x-hop") && !asked.contains_key("rouse-ticket"));
    // What the pod has, so that the activator looks for another one.
    let told = [&asked["rouse-pod-uid"], &asked["rouse-load"]];
    assert_eq!(told, [crate::rig::UID, "2"]);
    assert_eq!(there.seen.paths(), ["/bounced"; 3]);
    until("only two to be here", || proxy.open() == 2).await;
    let told = stat(&proxy, "").await;
    assert_eq!((told.open, told.load, told.relayed), (2, 2, 0));
    assert_eq!((told.started_total, told.relayed_total), (2, 3));
    gate.add_permits(2);
    for client in &mut here {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(model.seen.paths(), ["/inside", "/waiting"]);
    until("the last outcome", || {
        outcomes("bounced").values().sum::<u64>() == 5
    })
    .await;
    let expected = BTreeMap::from([("2xx".to_owned(), 2), ("relayed".to_owned(), 3)]);
    assert_eq!(outcomes("bounced"), expected);
}

#[tokio::test]
async fn a_relayed_request_keeps_the_pod_open_until_its_last_byte_and_is_no_load() {
    let (model, _gate) = Model::gated().await;
    let (there, theirs) = Model::gated().await;
    let mut config = bouncing(model.address, 1, there.address);
    config.target = "default/relaying".parse().unwrap();
    let proxy = QueueProxy::start(config, Some(metrics().clone())).unwrap();
    let mut known = proxy.model();
    within("the model", known.wait_for(|m| m.ready))
        .await
        .unwrap();
    let _here = crowd(&proxy, &model).await;
    let mut relayed = Raw::sent(front(&proxy), get("/r", "")).await;
    until("it to be there", || there.seen.active() == 1).await;
    assert_eq!(
        (proxy.open(), proxy.load(), proxy.stats().relayed()),
        (3, 2, 1)
    );
    let mut reader = Raw::connect(proxy.stats_address().unwrap()).await;
    let told = reader.get("/metrics").await;
    let gauge = "rouse_queue_proxy_relayed_requests{target=\"default/relaying\"} 1\n";
    assert!(told.text().contains(gauge), "{}", told.text());
    // Of 8030's room it took none.
    let _held = Raw::sent(activator(&proxy), get("/held", &addressed())).await;
    until("it to wait", || proxy.stats().gauges() == (1, 2)).await;
    theirs.add_permits(1);
    assert_eq!(relayed.answer().await.text(), "/r");
    until("it to be gone", || proxy.stats().relayed() == 0).await;
    // One who leaves takes the request with him.
    let gone = Raw::sent(front(&proxy), get("/gone", "")).await;
    until("it to be there", || there.seen.active() == 1).await;
    drop(gone);
    soon(QUICKLY, "it to leave", || {
        there.seen.active() == 0 && proxy.stats().relayed() == 0
    })
    .await;
}

#[tokio::test]
async fn an_unlimited_pod_hands_on_what_is_above_its_soft_limit() {
    let (model, gate) = Model::gated().await;
    let there = Model::start(|_| async { text("there") }).await;
    let mut config = bouncing(model.address, 0, there.address);
    config.bounce.soft_limit = Some(2);
    let proxy = ready(config).await;
    let mut inside = Vec::new();
    for count in 1..=2 {
        inside.push(Raw::sent(front(&proxy), get("/", "")).await);
        until("it to be inside", || model.seen.count() == count).await;
    }
    let mut third = Raw::connect(front(&proxy)).await;
    assert_eq!(third.get("/").await.text(), "there");
    // An activator has chosen this pod knowing what it has.
    inside.push(Raw::sent(activator(&proxy), get("/", &addressed())).await);
    until("it to be inside", || model.seen.count() == 3).await;
    gate.add_permits(4);
    for client in &mut inside {
        assert_eq!(client.answer().await.status, 200);
    }
    until("room", || proxy.load() == 0).await;
    assert_eq!(third.get("/here").await.text(), "/here");
}

#[tokio::test]
async fn an_activators_request_is_never_bounced_however_full_the_pod_is() {
    let (model, _gate) = Model::gated().await;
    let there = Model::ok().await;
    let mut config = bouncing(model.address, 1, there.address);
    config.activator_queue_depth = 0;
    let proxy = ready(config).await;
    let _here = crowd(&proxy, &model).await;
    proxy.begin_drain();
    let mut lane = Raw::connect(activator(&proxy)).await;
    lane.send(get("/", &addressed())).await;
    assert_eq!(lane.answer().await.header("rouse-admission"), Some("full"));
    assert_eq!(there.seen.count(), 0);
}

#[tokio::test]
async fn a_pod_that_goes_away_serves_what_it_has_room_for_and_hands_on_the_rest() {
    let (model, gate) = Model::gated().await;
    let there = Model::start(|_| async { text("there") }).await;
    let proxy = ready(bouncing(model.address, 1, there.address)).await;
    proxy.begin_drain();
    let mut inside = Raw::sent(front(&proxy), get("/inside", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let mut next = Raw::connect(front(&proxy)).await;
    assert_eq!(next.get("/next").await.text(), "there");
    gate.add_permits(1);
    assert_eq!(inside.answer().await.text(), "/inside");
    until("nothing to be open", || proxy.open() == 0).await;
}

#[tokio::test]
async fn what_a_restarting_model_takes_no_connection_for_goes_elsewhere_first() {
    let model = Model::ok().await;
    let address = model.address;
    let (there, theirs) = Model::gated().await;
    let mut config = bouncing(address, 1, there.address);
    config.restart_patience = Duration::from_secs(10);
    let proxy = ready(config).await;
    drop(model);
    until("the refusal", || {
        std::net::TcpListener::bind(address).is_ok()
    })
    .await;
    let large = "y".repeat(300_000);
    let requests = [
        get("/0", ""),
        post("/1", "", "small"),
        post("/2", "", &large),
    ];
    let mut clients = Vec::new();
    for (count, request) in requests.iter().enumerate() {
        clients.push(Raw::sent(front(&proxy), request).await);
        until("it to be there", || there.seen.active() == count + 1).await;
    }
    // They have given their slots back.
    assert_eq!(
        (proxy.stats().gauges(), proxy.stats().relayed()),
        ((0, 0), 3)
    );
    assert_eq!((proxy.open(), proxy.load()), (3, 0));
    let _model = Model::on(TcpListener::bind(address).await.unwrap());
    let mut fresh = Raw::connect(front(&proxy)).await;
    assert_eq!(fresh.get("/").await.text(), "ok");
    theirs.add_permits(3);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(there.seen.paths(), ["/0", "/1", "/2"]);
    until("the end", || proxy.open() == 0).await;
    let told = stat(&proxy, "").await;
    assert_eq!(
        (told.started_total, told.ended_total, told.relayed_total),
        (4, 4, 3)
    );
}

#[tokio::test]
async fn a_restarting_model_is_waited_for_where_no_activator_is_either() {
    let metrics = metrics();
    let model = Model::ok().await;
    let address = model.address;
    let mut config = bouncing(address, 1, nobody().await);
    config.target = "default/comes-back".parse().unwrap();
    config.restart_patience = Duration::from_secs(10);
    let proxy = ready(config).await;
    drop(model);
    until("the refusal", || {
        std::net::TcpListener::bind(address).is_ok()
    })
    .await;
    let mut small = Raw::sent(front(&proxy), post("/small", "", "x")).await;
    until("it to be in flight", || proxy.stats().gauges() == (1, 0)).await;
    let large = "y".repeat(300_000);
    let mut next = Raw::sent(front(&proxy), post("/large", "", &large)).await;
    until("the next one to wait", || proxy.stats().gauges() == (1, 1)).await;
    let model = Model::start_on(TcpListener::bind(address).await.unwrap(), |r| async {
        echo(r)
    });
    assert_eq!(small.answer().await.text(), "x");
    assert_eq!(next.answer().await.body.len(), large.len());
    assert_eq!(model.seen.paths(), ["/small", "/large"]);
    until("the end", || proxy.open() == 0).await;
    assert_eq!(proxy.stats().relayed(), 0);
    // Who has left and come back has waited once.
    let waits = metrics.render();
    let count = waits.lines().find(|line| {
        line.starts_with("rouse_queue_proxy_queue_wait_seconds_count")
            && line.contains("default/comes-back")
    });
    assert!(count.unwrap().ends_with(" 2"), "{count:?}");
}

#[tokio::test]
async fn with_no_activator_all_is_as_if_there_were_none() {
    let (model, gate) = Model::gated().await;
    let mut config = bouncing(model.address, 1, nobody().await);
    config.queue_depth = 3;
    let proxy = ready(config).await;
    let mut clients: Vec<_> = crowd(&proxy, &model).await.into();
    for count in 2..=3 {
        let body = "z".repeat(100_000);
        let line = if count == 3 {
            "expect: 100-continue\r\n"
        } else {
            ""
        };
        let request = post(&format!("/{count}"), line, &body);
        let head = request.find("\r\n\r\n").unwrap() + 4;
        let mut client = Raw::sent(front(&proxy), &request[..head]).await;
        if line.is_empty() {
            client.send(&request[head..]).await;
        }
        until("it to wait", || proxy.stats().gauges() == (1, count)).await;
        clients.push(client);
    }
    let mut refused = Raw::connect(front(&proxy)).await;
    let answer = refused.get("/").await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert!(answer.text().starts_with("rouse: queue-full: "));
    gate.add_permits(4);
    for (count, client) in clients.iter_mut().enumerate() {
        if count == 3 {
            assert_eq!(client.head().await.status, 100);
            client.send("z".repeat(100_000)).await;
        }
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(model.seen.paths(), ["/inside", "/waiting", "/2", "/3"]);
    let ours = model
        .seen
        .requests
        .lock()
        .iter()
        .any(|r| r.headers().contains_key("rouse-load"));
    assert!(!ours, "what was for the activator");
    until("the account to be even", || {
        proxy.stats().totals() == (5, 5)
    })
    .await;
    assert_eq!((proxy.open(), proxy.stats().relayed()), (0, 0));
}

/// A port that takes no connection and refuses none, as one behind a firewall: nobody accepts, and its queue is full.
async fn silent() -> (TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(any()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut kept = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(200),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        kept.push(stream);
    }
    (listener, kept)
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_paid_for_once() {
    let (model, gate) = Model::gated().await;
    let (listener, _kept) = silent().await;
    let proxy = ready(bouncing(model.address, 1, listener.local_addr().unwrap())).await;
    let _here = crowd(&proxy, &model).await;
    let began = Instant::now();
    let mut first = Raw::sent(front(&proxy), get("/first", "")).await;
    until("it to be on its way", || proxy.stats().relayed() == 1).await;
    until("it to wait here", || proxy.stats().gauges() == (1, 2)).await;
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    let began = Instant::now();
    let mut second = Raw::sent(front(&proxy), get("/second", "")).await;
    until("it to wait here", || proxy.stats().gauges() == (1, 3)).await;
    assert!(began.elapsed() < QUICKLY, "{:?}", began.elapsed());
    gate.add_permits(4);
    assert_eq!(first.answer().await.text(), "/first");
    assert_eq!(second.answer().await.text(), "/second");
}

#[tokio::test]
async fn what_an_activator_has_had_is_never_sent_again_whatever_becomes_of_it() {
    let _counted = metrics();
    let (model, _gate) = Model::gated().await;
    let there = Model::raw(|mut stream| async move {
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        if head[..read].starts_with(b"GET /part") {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let mut config = bouncing(model.address, 1, there.address);
    config.target = "default/broken".parse().unwrap();
    let proxy = ready(config).await;
    let _here = crowd(&proxy, &model).await;
    let mut client = Raw::sent(front(&proxy), get("/part", "")).await;
    assert_eq!(client.head().await.status, 200);
    let mut rest = Vec::new();
    let _cut = within("the end", client.stream.read_to_end(&mut rest)).await;
    assert!(rest.len() < 9, "{rest:?}");
    let mut client = Raw::connect(front(&proxy)).await;
    let answer = client.get("/nothing").await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.text().starts_with("rouse: relay-broke: "),
        "{answer:?}"
    );
    assert_eq!((there.seen.connections(), model.seen.count()), (2, 1));
    until("both outcomes", || {
        outcomes("broken").get("relay-broke") == Some(&2)
    })
    .await;
}

#[tokio::test]
async fn what_takes_requests_and_answers_none_is_met_by_one() {
    let (model, _gate) = Model::gated().await;
    // As one that wants TLS, or is no activator.
    let there = Model::raw(|mut stream| async move {
        let _read = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let proxy = ready(bouncing(model.address, 1, there.address)).await;
    let _here = crowd(&proxy, &model).await;
    let mut client = Raw::connect(front(&proxy)).await;
    assert_eq!(client.get("/first").await.status, 502);
    let _second = Raw::sent(front(&proxy), get("/second", "")).await;
    until("it to wait here", || proxy.stats().gauges() == (1, 2)).await;
    assert_eq!(there.seen.connections(), 1);
}

#[tokio::test]
async fn an_activators_own_refusal_is_the_clients_answer() {
    let (model, _gate) = Model::gated().await;
    let there = Model::start(|_| async {
        let mut answer = empty(503);
        answer
            .headers_mut()
            .insert("retry-after", "7".parse().unwrap());
        answer
    })
    .await;
    let proxy = ready(bouncing(model.address, 1, there.address)).await;
    let _here = crowd(&proxy, &model).await;
    let mut client = Raw::connect(front(&proxy)).await;
    let answer = client.get("/").await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("7"))
    );
    assert_eq!((there.seen.count(), model.seen.count()), (1, 1));
}

/// Reads the head of a request whose body is not sent yet.
async fn read_head(stream: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_body_that_waits_to_be_wanted_waits_for_the_activator_to_want_it() {
    let (model, _gate) = Model::gated().await;
    let (wants, mut wanted) = tokio::sync::mpsc::unbounded_channel();
    let there = Model::raw(move |mut stream| {
        let wants = wants.clone();
        async move {
            let head = read_head(&mut stream).await.to_lowercase();
            assert!(head.contains("expect: 100-continue\r\n"), "{head}");
            let (go, gone) = tokio::sync::oneshot::channel::<()>();
            wants.send(go).unwrap();
            if gone.await.is_err() {
                let answer =
                    b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                return;
            }
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
            let mut body = vec![0; 300_000];
            stream.read_exact(&mut body).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let proxy = ready(bouncing(model.address, 1, there.address)).await;
    let _here = crowd(&proxy, &model).await;
    let head =
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 300000\r\n\r\n";
    let mut client = Raw::sent(front(&proxy), head).await;
    let go = within("the request", wanted.recv()).await.unwrap();
    go.send(()).unwrap();
    assert_eq!(client.head().await.status, 100);
    client.send(vec![b'x'; 300_000]).await;
    assert_eq!(client.answer().await.text(), "done");
    // Not wanted at all.
    let mut client = Raw::sent(front(&proxy), head).await;
    drop(within("the request", wanted.recv()).await.unwrap());
    assert_eq!(client.answer().await.status, 413);
    // Nobody waits for a client that has gone.
    let client = Raw::sent(front(&proxy), head).await;
    let _go = within("the request", wanted.recv()).await.unwrap();
    drop(client);
    soon(QUICKLY, "it to leave", || proxy.stats().relayed() == 0).await;
}

/// A server says no `100 Continue` any more once its answer has begun, and may need the body to go on.
#[tokio::test]
async fn a_body_goes_to_an_activator_whose_answer_begins_before_it_was_asked_for() {
    let (model, _gate) = Model::gated().await;
    let there = Model::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut body = vec![0; 300_000];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(&body).await.unwrap();
    })
    .await;
    let proxy = ready(bouncing(model.address, 1, there.address)).await;
    let _here = crowd(&proxy, &model).await;
    let head =
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 300000\r\n\r\n";
    let mut client = Raw::sent(front(&proxy), head).await;
    let body = "x".repeat(300_000);
    client.send(&body).await;
    let mut answer = client.answer().await;
    // Whether it is told to go on or not is a matter of which is first.
    if answer.status == 100 {
        answer = client.answer().await;
    }
    assert_eq!((answer.status, answer.text()), (200, body.as_str()));
}

#[tokio::test]
async fn an_http_2_call_stays_one_with_its_trailers_and_both_its_streams() {
    let (model, _gate) = Model::gated().await;
    let there = Model::start_h2(|request| async { echo(request) }).await;
    let proxy = ready(bouncing(model.address, 1, there.address)).await;
    let _here = crowd(&proxy, &model).await;
    let (mut client, _connection) = h2::connect(front(&proxy)).await;
    let (feed, body) = h2::fed();
    let answer = client.send_request(h2::request("/call", body));
    feed.send(hyper::body::Frame::data("one".into())).unwrap();
    let answer = within("the head", answer).await.unwrap();
    let mut body = answer.into_body();
    let frame = within("a frame", body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "one");
    assert_eq!(proxy.stats().relayed(), 1);
    let trailers =
        http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    feed.send(hyper::body::Frame::trailers(trailers.clone()))
        .unwrap();
    drop(feed);
    let frame = within("the trailers", body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), trailers);
    until("the end", || proxy.stats().relayed() == 0).await;
    assert_eq!(there.seen.paths(), ["/call"]);
}

#[tokio::test]
async fn a_tunnel_through_an_activator_lasts_until_both_sides_are_done() {
    let (model, _gate) = Model::gated().await;
    let there = crate::websocket::echoing().await;
    let proxy = ready(bouncing(model.address, 1, there.address)).await;
    let _here = crowd(&proxy, &model).await;
    let ask = get("/ws", crate::websocket::ASK);
    let mut client = Raw::sent(front(&proxy), ask).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exact(5).await, "hello");
    client.send("\u{0}bytes").await;
    assert_eq!(client.exact(6).await, "\u{0}bytes");
    assert_eq!((proxy.open(), proxy.stats().relayed()), (3, 1));
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "bye");
    soon(QUICKLY, "its end", || proxy.stats().relayed() == 0).await;
}
