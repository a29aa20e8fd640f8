//! What takes long: streams, sockets, uploads.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use integration::{
    Ledger, Running, Scene,
    client::{Account, Connection, get, post, post_in_pieces},
    scene::LONG,
    wait,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// Longer than what is idle takes to go to zero: the window, the grace and some ticks are about 9 s, more on a busy
/// machine. The test checks it with a workload that is.
const LONGER_THAN_IDLE: Duration = Duration::from_secs(16);
const WINDOW: (&str, &str) = ("window", "6s");
const GRACE: [(&str, &str); 1] = [("scale-to-zero-grace-period", "1s")];

/// Local mode with `names`, all of them quick to go to zero.
fn quick(scene: &Scene, names: &[&str]) -> Running {
    let models: Vec<_> = names
        .iter()
        .map(|name| scene.model(name, &[]).annotate(WINDOW.0, WINDOW.1))
        .collect();
    scene.run(&models, &GRACE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_or_socket_keeps_its_replica_longer_than_the_window() {
    let scene = crate::scene();
    let running = quick(&scene, &["events", "socket", "idle"]);

    let events = async {
        let mut connection = Connection::open(running.address("events")).await.unwrap();
        let count = LONGER_THAN_IDLE.as_millis() / 100;
        let asked = connection.start(get(&format!("/sse?n={count}&ms=100")));
        let response = timeout(LONG, asked).await.unwrap().unwrap();
        let server = response.headers()["x-served-by"]
            .to_str()
            .unwrap()
            .to_owned();
        let body = response.into_body().collect();
        let body = timeout(LONG, body).await.unwrap().unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(body.matches("data: {").count() as u128, count);
        assert!(body.ends_with("data: [DONE]\n\n"), "it came to its end");
        stayed(&running, "events", &server);
    };
    let socket = async {
        let address = running.address("socket");
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/ws").into_client_request().unwrap();
        let opening = timeout(LONG, client_async(url, stream));
        let (mut socket, response) = opening.await.unwrap().unwrap();
        let server = response.headers()["x-served-by"]
            .to_str()
            .unwrap()
            .to_owned();
        for (text, silence) in [("before", LONGER_THAN_IDLE), ("after", Duration::ZERO)] {
            socket.send(Message::text(text)).await.unwrap();
            let echo = timeout(LONG, socket.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert_eq!(echo, Message::text(text));
            wait::throughout("the replica is wanted", silence, || {
                running.snapshot("socket").wanted == 1
            })
            .await;
        }
        socket.close(None).await.unwrap();
        stayed(&running, "socket", &server);
    };
    // What proves that the others stayed because of what was open.
    let idle = async {
        let address = running.address("idle");
        let account = Account::default();
        account.send(address, None, get("/work")).await.unwrap();
        wait::until("the idle one went to zero", LONGER_THAN_IDLE, || {
            running.snapshot("idle").wanted == 0
        })
        .await;
    };
    tokio::join!(events, socket, idle);
    for name in ["events", "socket"] {
        running.settled(name, 0, LONG).await;
        assert_eq!(
            scene.journal(name).lines().count(),
            1,
            "{name} was asked once"
        );
    }
    running.stop().await;
}

/// The one replica is still the one that answered.
fn stayed(running: &Running, name: &str, server: &str) {
    let pids: Vec<_> = running
        .ready(name)
        .iter()
        .map(|replica| replica.pid.unwrap().to_string())
        .collect();
    assert_eq!(pids, [server], "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_through_a_cold_start_is_executed_once_and_whole() {
    const SIZE: usize = 1 << 20;
    let scene = crate::scene();
    let running = quick(&scene, &["stated", "chunked"]);
    let account = Account::default();
    // Too large to be kept and sent again, with its length stated and without.
    let uploads = [
        ("stated", post("/work", vec![7; SIZE])),
        ("chunked", post_in_pieces("/work", vec![7; SIZE / 64], 64)),
    ];
    for (name, upload) in uploads {
        let answer = account.send(running.address(name), None, upload);
        let answer = timeout(LONG, answer).await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    running.stop().await;
    let journal = scene.journal("stated") + &scene.journal("chunked");
    for line in journal.lines() {
        assert!(line.ends_with(&format!("POST /work {SIZE}")), "{line}");
    }
    Ledger::compare(&account.told(), &journal).assert_exact();
}
