//! Who may send to a workload.

use std::net::SocketAddr;

use http::HeaderValue;
use integration::client::{Account, Answer, get};
use tokio::time::timeout;

use crate::{
    Space,
    space::{LONG, Model},
};

/// A pod of a namespace that asks others for us. Returns where it is asked to.
async fn asker(space: &Space) -> SocketAddr {
    let model = Model::new("asker").plain().replicas(1);
    let address = space.deploy(&model).await;
    space.settled("asker", 1, LONG).await;
    space.reachable("asker").await;
    address
}

/// Has `asker` ask, with headers that say that `friend` does.
async fn ask(account: &Account, asker: SocketAddr, address: SocketAddr, friend: &str) -> Answer {
    let mut request = get(&format!("/ask?{address}/work"));
    let forwarded = format!("for={friend}");
    for (name, value) in [
        ("x-forwarded-for", friend),
        ("x-real-ip", friend),
        ("forwarded", forwarded.as_str()),
        ("rouse-pod-uid", "a"),
        ("rouse-admission", "admitted"),
    ] {
        let value = HeaderValue::try_from(value).unwrap();
        request
            .headers_mut()
            .insert(name.parse::<http::HeaderName>().unwrap(), value);
    }
    timeout(LONG, account.send(asker, None, request))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pods_of_allowed_namespaces_wake_a_workload_whatever_their_requests_say() {
    let (space, friends, strangers) = (
        Space::new("access").await,
        Space::new("friends").await,
        Space::new("strangers").await,
    );
    let model = Model::new("m").annotate("rouse.dev/allowed-namespaces", &friends.name);
    let address = space.deploy(&model).await;
    let (friend, stranger) = (asker(&friends).await, asker(&strangers).await);
    let own = friends.pods("asker").await.remove(0);
    let ip = own.status.unwrap().pod_ip.unwrap();
    let account = Account::default();

    let refused = ask(&account, stranger, address, &ip).await;
    // This test itself has the address of the node.
    let nobody = account.send(address, None, get("/work")).await.unwrap();
    for answer in [refused, nobody] {
        assert_eq!(answer.status, 403, "{}", answer.text());
        let text = answer.text();
        assert!(text.contains("namespace-not-allowed"), "{text}");
        assert!(!text.contains("friends"), "{text}");
    }
    assert_eq!(space.replicas("m").await, (0, 0));

    let answer = ask(&account, friend, address, &ip).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let _ledger = space.ledger("m", &account.told()).checked();
    space.end().await;
    friends.end().await;
    strangers.end().await;
}
