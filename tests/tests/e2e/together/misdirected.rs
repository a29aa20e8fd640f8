//! Addresses that are used again: a pod's, and a port of the activators.

use std::{net::SocketAddr, time::Duration};

use http::Request;
use integration::{
    Fate,
    client::{Account, Answer, Connection, Payload, fetch, get},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{Api, api::DeleteParams};
use kubernetes::names;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    Space, activators,
    space::{LONG, Model},
};

/// A request as activators send it, named for the ledger.
fn addressed(account: &Account, uid: &str, port: &str) -> (String, Request<Payload>) {
    let (id, mut request) = (account.name(), get("/work"));
    for (name, value) in [
        ("x-request-id", id.as_str()),
        ("rouse-pod-uid", uid),
        ("rouse-port", port),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    (id, request)
}

async fn ask(address: SocketAddr, account: &Account, uid: &str, port: &str) -> Answer {
    let (id, request) = addressed(account, uid, port);
    let answer = timeout(LONG, fetch(address, request))
        .await
        .unwrap()
        .unwrap();
    account.tell(id, Fate::Answered(answer.status.as_u16()));
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_meant_for_the_pod_that_had_an_address_before_reaches_no_model() {
    let space = Space::new("uid").await;
    let model = Model::new("m")
        .replicas(1)
        .annotate("autoscaling.knative.dev/min-scale", "1");
    space.deploy(&model).await;
    space.settled("m", 1, LONG).await;
    let pod = space.pods("m").await.remove(0);
    let uid = pod.metadata.uid.unwrap();
    let ip = pod.status.unwrap().pod_ip.unwrap().parse().unwrap();
    let (address, account) = (
        SocketAddr::new(ip, names::ACTIVATOR_PORT),
        Account::default(),
    );
    let good = ask(address, &account, &uid, "0").await;
    assert_eq!(good.status, 200, "{}", good.text());
    let another = "00000000-0000-0000-0000-000000000000";
    for (uid, port) in [
        (another, "0"),
        ("", "0"),
        (&uid[..35], "0"),
        (&uid, "1"),
        (&uid, "x"),
    ] {
        let answer = ask(address, &account, uid, port).await;
        assert_eq!(answer.status, 421, "{uid} {port}: {}", answer.text());
        assert_eq!(answer.header("rouse-admission"), "misdirected");
    }
    let ledger = space.ledger("m", &account.told()).checked();
    assert_eq!((ledger.good, ledger.bad.len()), (1, 5));
    assert!(ledger.bad.iter().all(|(_, executed)| executed.is_none()));
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_the_activators_rests_before_it_is_another_workload_s() {
    let space = Space::new("port").await;
    space.deploy(&Model::new("x")).await;
    let claims = activators::claims(&space, "x").await;
    let [claim] = &claims[..] else {
        panic!("one port, one claim: {claims:?}");
    };
    // A client that has found an activator by itself, as one does that was there when the workload was at zero.
    let ips = activators::addresses(&space).await;
    let mut kept = Vec::new();
    for ip in &ips {
        let connection = timeout(LONG, Connection::open(SocketAddr::new(*ip, claim.port)));
        kept.push(connection.await.unwrap().unwrap());
    }
    let params = DeleteParams::background();
    let (services, deployments): (Api<Service>, Api<Deployment>) = (space.api(), space.api());
    deployments.delete("x", &params).await.unwrap();
    services.delete("x", &params).await.unwrap();
    space
        .until("the claim is given up", LONG, async || {
            let claims = activators::claims(&space, "x").await;
            claims.first()?.released.map(drop)
        })
        .await;
    space.deploy(&Model::new("y").replicas(1)).await;
    let next = activators::claims(&space, "y").await;
    println!("x had {}, y has {:?}", claim.port, next[0].port);
    assert!(next.iter().all(|next| next.port != claim.port));
    assert_eq!(activators::claims(&space, "x").await.len(), 1, "it rests");
    for ip in ips {
        let address = SocketAddr::new(ip, claim.port);
        let fresh = timeout(Duration::from_secs(5), TcpStream::connect(address)).await;
        let refused = fresh.expect("an answer at once").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let account = Account::default();
    for mut connection in kept {
        let sent = account.send(
            ([0, 0, 0, 0], 0).into(),
            Some(&mut connection),
            get("/work"),
        );
        match timeout(LONG, sent).await.unwrap() {
            Ok(answer) => {
                println!("on an old connection: {} {}", answer.status, answer.text());
                assert_eq!(answer.status, 503, "{}", answer.text());
            }
            Err(fate) => println!("on an old connection: {fate:?}"),
        }
    }
    let ledger = space.ledger("y", &account.told()).checked();
    assert_eq!(ledger.good, 0);
    assert!(ledger.bad.iter().all(|(_, executed)| executed.is_none()));
    space.end().await;
}
