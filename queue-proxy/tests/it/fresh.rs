//! A new connection is never closed before its first request was answered, whatever happens to the pod meanwhile.

use std::sync::Arc;

use shared::http::{
    body::Body,
    h1::Refusal,
    serve::{Config, Disposition, Handler, Peer, Server, bind},
};
use tokio::time::{Duration, sleep};

use crate::{
    model::Model,
    raw::{Raw, get},
    rig::{any, front, pod, within},
};

/// Answers at once.
#[derive(Clone)]
struct Quick;

impl Handler for Quick {
    async fn handle(
        &self,
        _: http::Request<hyper::body::Incoming>,
        _: Arc<Peer>,
    ) -> http::Response<Body> {
        http::Response::new(Body::full("ok"))
    }

    fn refuse(&self, _: Refusal, _: &Arc<Peer>) -> http::Response<Body> {
        unreachable!("everything sent here is proper")
    }
}

fn server() -> Server {
    Server::spawn(bind(any()).unwrap(), Config::default(), Quick).unwrap()
}

#[tokio::test]
async fn a_connection_opened_before_or_after_closing_began_gets_its_first_answer() {
    for disposition in [Disposition::CloseAfterAnswer, Disposition::CloseIdle] {
        for (opened_first, taken_first) in [(true, true), (true, false), (false, false)] {
            for split in [0, 1, 10] {
                let server = server();
                let mut client = None;
                if opened_first {
                    client = Some(Raw::connect(server.address()).await);
                }
                if taken_first {
                    let taken = || server.connections() == 1;
                    crate::rig::until("the connection to be taken", taken).await;
                }
                server.disposer().set(disposition);
                let mut client = match client {
                    Some(client) => client,
                    None => Raw::connect(server.address()).await,
                };
                let request = get("/", "");
                client.send(&request[..split]).await;
                sleep(Duration::from_millis(2)).await;
                client.send(&request[split..]).await;
                let answer = client.answer().await;
                assert_eq!(answer.text(), "ok");
                assert_eq!(answer.header("connection"), Some("close"));
                client.closed().await;
            }
        }
    }
}

#[tokio::test]
async fn closing_at_any_instant_of_a_first_request_never_loses_it() {
    for round in 0_u64..300 {
        let server = server();
        let address = server.address();
        let client = tokio::spawn(async move { Raw::connect(address).await.get("/").await });
        for _ in 0..round % 40 {
            tokio::task::yield_now().await;
        }
        server.disposer().set(Disposition::CloseIdle);
        let answer = within("an answer", client).await.unwrap();
        assert_eq!(answer.text(), "ok", "round {round}");
    }
}

#[tokio::test]
async fn what_waits_in_the_backlog_when_accepting_stops_is_still_answered() {
    for _ in 0..20 {
        let server = server();
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(Raw::sent(server.address(), get("/", "")).await);
        }
        let stopped = tokio::spawn(server.shut_down(Duration::from_secs(5)));
        for mut client in clients {
            assert_eq!(client.answer().await.text(), "ok");
        }
        assert_eq!(within("the end", stopped).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_but_one_with_half_a_request_is_not() {
    let server = server();
    let mut idle = Raw::connect(server.address()).await;
    assert_eq!(idle.get("/").await.text(), "ok");
    let mut halfway = Raw::connect(server.address()).await;
    assert_eq!(halfway.get("/").await.text(), "ok");
    let request = get("/", "");
    halfway.send(&request[..10]).await;
    sleep(Duration::from_millis(20)).await;
    server.disposer().set(Disposition::CloseIdle);
    idle.closed().await;
    halfway.send(&request[10..]).await;
    assert_eq!(halfway.answer().await.text(), "ok");
    halfway.closed().await;
}

#[tokio::test]
async fn a_client_that_connects_as_the_pod_drains_is_served() {
    for _ in 0..20 {
        let model = Model::ok().await;
        let proxy = pod(model.address, 1).await;
        let mut before = Raw::connect(front(&proxy)).await;
        proxy.begin_drain();
        let mut after = Raw::connect(front(&proxy)).await;
        assert_eq!(after.get("/").await.text(), "ok");
        let address = front(&proxy);
        let stopping = tokio::spawn(proxy.stop(Duration::from_secs(5)));
        assert_eq!(before.get("/").await.text(), "ok");
        assert_eq!(within("the end", stopping).await.unwrap(), 0);
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
