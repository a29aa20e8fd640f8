//! A pod that goes away: who is told what, and when it may go.

use http_body_util::BodyExt;
use queue_proxy::drain::Rule;
use shared::TargetId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Duration, Instant, sleep, timeout},
};

use crate::{
    h2, model,
    model::Model,
    raw::{Raw, get},
    rig::{TOKEN, activator, addressed, config, front, pod, ready, stat, until, within},
    timeouts::counted,
};

const AT_ONCE: Rule = Rule {
    settle: Duration::ZERO,
    quiet: Duration::ZERO,
};

#[tokio::test]
async fn answers_close_their_connections_once_a_drain_has_begun() {
    let (model, gate) = Model::gated().await;
    let proxy = pod(model.address, 2).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        let mut lane = Raw::sent(listener, get("/", &lines)).await;
        gate.add_permits(1);
        assert_eq!(lane.answer().await.header("connection"), None);
    }
    let mut in_flight = Raw::sent(front(&proxy), get("/before", "")).await;
    until("it to arrive", || model.seen.active() == 1).await;
    proxy.begin_drain();
    proxy.begin_drain();
    assert!(stat(&proxy, "").await.draining);
    gate.add_permits(3);
    let answer = in_flight.answer().await;
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("/before", Some("close"))
    );
    in_flight.closed().await;
    // Requests that arrive during a drain are served.
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        let mut late = Raw::sent(listener, get("/late", &lines)).await;
        let answer = late.answer().await;
        assert_eq!(
            (answer.text(), answer.header("connection")),
            ("/late", Some("close"))
        );
        late.closed().await;
    }
}

#[tokio::test]
async fn http_2_connections_get_a_goaway_and_finish_what_they_carry() {
    let model = Model::start_h2(|request| async { model::echo(request) }).await;
    let proxy = pod(model.address, 0).await;
    let (mut client, connection) = h2::connect(front(&proxy)).await;
    let (feed, body) = h2::fed();
    let answer = client.send_request(h2::request("/", body)).await.unwrap();
    proxy.begin_drain();
    sleep(Duration::from_millis(50)).await;
    feed.send(hyper::body::Frame::data("still".into())).unwrap();
    drop(feed);
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "still"
    );
    within("the end", connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_http_2_connection_made_during_a_drain_serves_its_first_call_and_closes() {
    let model = Model::start_h2(|_| async { model::text("ok") }).await;
    let proxy = pod(model.address, 0).await;
    for before in [true, false] {
        let early = tokio::net::TcpStream::connect(front(&proxy)).await.unwrap();
        if !before {
            proxy.begin_drain();
        }
        drop(early);
        proxy.begin_drain();
        let (mut client, connection) = h2::connect(front(&proxy)).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!(h2::get(&mut client, "/").await.1, "ok");
        within("the goaway", connection).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_pod_is_drained_when_nothing_is_open_and_the_rule_says_so() {
    let (model, gate) = Model::gated().await;
    let proxy = pod(model.address, 1).await;
    let mut served = Raw::sent(front(&proxy), get("/", "")).await;
    let mut waiting = Raw::sent(front(&proxy), get("/", "")).await;
    until("both to be here", || proxy.stats().gauges() == (1, 1)).await;
    proxy.begin_drain();
    assert!(
        timeout(Duration::from_millis(100), proxy.drained(AT_ONCE))
            .await
            .is_err()
    );
    gate.add_permits(1);
    assert_eq!(served.answer().await.status, 200);
    assert!(
        timeout(Duration::from_millis(100), proxy.drained(AT_ONCE))
            .await
            .is_err()
    );
    gate.add_permits(1);
    assert_eq!(waiting.answer().await.status, 200);
    within("the end of the drain", proxy.drained(AT_ONCE)).await;
    let started = Instant::now();
    proxy
        .drained(Rule {
            settle: Duration::ZERO,
            quiet: Duration::from_millis(400),
        })
        .await;
    assert!(
        started.elapsed() > Duration::from_millis(100),
        "quiet is waited for"
    );
}

#[tokio::test]
async fn the_grace_period_ends_every_drain() {
    let (model, _gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    config.grace = Duration::from_millis(200);
    config.target = TargetId::new("default", "cut-at-the-end").unwrap();
    let proxy = ready(config).await;
    let mut stuck = Raw::sent(front(&proxy), get("/", "")).await;
    until("it to arrive", || model.seen.count() == 1).await;
    proxy.begin_drain();
    let started = Instant::now();
    within("the end of the drain", proxy.drained(Rule::default())).await;
    assert!(started.elapsed() >= Duration::from_millis(190));
    // Stopping cuts what is left, and says how many that were.
    assert_eq!(
        within("the stop", proxy.stop(Duration::from_millis(50))).await,
        1
    );
    stuck.closed().await;
    until("the end at the model", || model.seen.active() == 0).await;
    counted("cut-at-the-end", &[("cut", 1)]).await;
}

#[tokio::test]
async fn stopping_gives_answers_and_tunnels_their_time_then_cuts_and_counts_them() {
    let model = Model::raw(|mut stream| async move {
        let _head = stream.read(&mut [0; 4096]).await;
        let accept = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(accept).await.unwrap();
        let _gone = stream.read(&mut [0]).await;
        let _gone = stream.write_all(b"bye").await;
    })
    .await;
    let ask = get(
        "/ws",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    );
    let mut config = config(&[model.address], 0);
    config.target = TargetId::new("default", "cut-tunnel").unwrap();
    let proxy = ready(config).await;
    let mut stuck = Raw::sent(front(&proxy), &ask).await;
    let mut polite = Raw::sent(front(&proxy), &ask).await;
    assert_eq!(stuck.head().await.status, 101);
    assert_eq!(polite.head().await.status, 101);
    let stopping = tokio::spawn(proxy.stop(Duration::from_millis(500)));
    sleep(Duration::from_millis(50)).await;
    polite.send("x").await;
    assert_eq!(polite.rest().await, "bye", "a tunnel may end by itself");
    drop(polite);
    assert_eq!(within("the stop", stopping).await.unwrap(), 1);
    stuck.closed().await;
    counted("cut-tunnel", &[("1xx", 1), ("cut", 1)]).await;
}

#[tokio::test]
async fn the_life_cycle_port_knows_its_token() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let mut kubelet = Raw::connect(proxy.lifecycle_address().unwrap()).await;
    for path in [
        "/".to_owned(),
        "/drain".into(),
        "/wrong/drain".into(),
        "//drain".into(),
        format!("/{TOKEN}drain"),
        format!("/{TOKEN}"),
        format!("/{TOKEN}/"),
        format!("/{TOKEN}x/drain"),
        format!("/x{TOKEN}/drain"),
    ] {
        assert_eq!(kubelet.get(&path).await.status, 404, "{path}");
    }
    assert!(!stat(&proxy, "").await.draining);
    // A restart by the liveness probe: nothing was begun, nobody waits for long.
    let started = Instant::now();
    let answer = kubelet.get(&format!("/{TOKEN}/wait-for-drain")).await;
    assert_eq!(answer.status, 200);
    assert!(started.elapsed() < Duration::from_millis(1500));
    assert!(!stat(&proxy, "").await.draining);
}

#[tokio::test]
async fn the_model_s_hook_waits_until_the_pod_is_drained_whichever_hook_comes_first() {
    for first in [true, false] {
        let (model, gate) = Model::gated().await;
        let proxy = pod(model.address, 1).await;
        let lifecycle = proxy.lifecycle_address().unwrap();
        let mut client = Raw::sent(front(&proxy), get("/", "")).await;
        until("it to arrive", || model.seen.count() == 1).await;
        let drain = async move {
            if first {
                sleep(Duration::from_millis(100)).await;
            }
            let mut kubelet = Raw::connect(lifecycle).await;
            assert_eq!(kubelet.get(&format!("/{TOKEN}/drain")).await.status, 200);
        };
        if first {
            tokio::spawn(drain);
        } else {
            drain.await;
        }
        let mut hook = Raw::sent(lifecycle, get(&format!("/{TOKEN}/wait-for-drain"), "")).await;
        let early = timeout(Duration::from_millis(1300), hook.stream.readable()).await;
        assert!(early.is_err(), "returned while a request was in flight");
        gate.add_permits(1);
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(within("the hook", hook.answer()).await.status, 200);
    }
}

#[tokio::test]
async fn a_hook_that_waits_when_the_pod_stops_still_gets_its_answer() {
    for _ in 0..10 {
        let (model, gate) = Model::gated().await;
        let proxy = pod(model.address, 1).await;
        let lifecycle = proxy.lifecycle_address().unwrap();
        let mut client = Raw::sent(front(&proxy), get("/", "")).await;
        until("it to arrive", || model.seen.count() == 1).await;
        proxy.begin_drain();
        let mut hook = Raw::sent(lifecycle, get(&format!("/{TOKEN}/wait-for-drain"), "")).await;
        sleep(Duration::from_millis(5)).await;
        gate.add_permits(1);
        assert_eq!(client.answer().await.status, 200);
        proxy.drained(AT_ONCE).await;
        let stopping = tokio::spawn(proxy.stop(Duration::from_secs(2)));
        assert_eq!(within("the hook", hook.answer()).await.status, 200);
        within("the stop", stopping).await.unwrap();
    }
}
