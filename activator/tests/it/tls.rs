//! TLS of the listeners for clients, and of the hop to sidecars.

use std::{net::SocketAddr, time::Duration};

use shared::http::tls::Mode;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::client::TlsStream;

use crate::{
    bed::{Bed, Pod, until},
    h2::Connection,
    http1::{Answer, Raw, get, post},
    pki::{Pki, handshake},
    websocket::HANDSHAKE,
};

const SIDECAR: &str = "spiffe://cluster.local/ns/models/sa/iris";
const ACTIVATOR: &str = "spiffe://cluster.local/ns/rouse-system/sa/rouse-activator";

async fn secure(address: SocketAddr, pki: &Pki) -> Raw<TlsStream<TcpStream>> {
    let connector = pki.connector(&["http/1.1"], None);
    handshake(address, &connector).await.unwrap().into()
}

async fn ask(raw: &mut Raw<TlsStream<TcpStream>>, request: impl AsRef<[u8]>) -> Answer {
    raw.send(request).await;
    raw.answer().await.expect("an answer")
}

/// A pod whose port for activators takes none but them.
fn pod(uid: &str, pki: &Pki) -> Pod {
    let tls = pki.server_as(SIDECAR, Mode::Strict, &[ACTIVATOR]);
    Pod::with(uid, 1, |config| config.tls = Some(tls))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_held_and_handed_out_over_tls_on_both_hops() {
    let (clients, mesh) = (Pki::new(), Pki::new());
    let bed = Bed::with(|config| {
        config.tls = Some(clients.server(Mode::Strict, &[]));
        let own = mesh.issue(ACTIVATOR);
        let towards = mesh.client("spiffe://cluster.local/ns/models/*", Some(&own));
        config.client.tls = Some(towards);
    });
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let mut first = secure(site.address(), &clients).await;
    first.send(get("/", "first")).await;
    let mut large = secure(site.address(), &clients).await;
    // More than can be sent again: it waits for the pod's 100 Continue.
    let body = vec![b'x'; 300_000];
    site.holds(1).await;
    let ((), ()) = tokio::join!(large.send(post("/", "large", &body)), site.holds(2));
    let pod = pod("p", &mesh);
    site.pods(&[&pod]);
    assert_eq!(first.answer().await.unwrap().status, 200);
    assert_eq!(large.answer().await.unwrap().body, body);
    let entry = pod.model.entry("first");
    assert_eq!(entry.headers["x-forwarded-proto"], "https");
    // In HTTP/2, which goes on as it came.
    let connector = clients.connector(&["h2"], None);
    let stream = handshake(site.address(), &connector).await.unwrap();
    let client = Connection::over(stream).await;
    assert_eq!(client.get("/", "second").await.unwrap().status, 200);
    assert_eq!(pod.model.ids(), ["first", "large", "second"]);
    until("nothing to be left", || pod.proxy.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_goes_over_tls_on_both_hops() {
    let (clients, mesh) = (Pki::new(), Pki::new());
    let bed = Bed::with(|config| {
        config.tls = Some(clients.server(Mode::Permissive, &[]));
        let own = mesh.issue(ACTIVATOR);
        config.client.tls = Some(mesh.client(SIDECAR, Some(&own)));
    });
    let site = bed.site("a", |_| {});
    let pod = pod("p", &mesh);
    site.pods(&[&pod]);
    site.ready().await;
    let mut socket = secure(site.address(), &clients).await;
    assert_eq!(ask(&mut socket, HANDSHAKE).await.status, 101);
    for i in 0_u8..10 {
        let bytes = vec![i, 0, 255, b'\n', 13, 10, 13, 10];
        socket.send(&bytes).await;
        assert_eq!(socket.exactly(bytes.len()).await.unwrap(), bytes);
    }
    drop(socket);
    until("the slot to be free", || pod.proxy.open() == 0).await;
    // Who comes without TLS is served as well.
    let plain = crate::http1::ask(site.address(), get("/", "plain")).await;
    assert_eq!(plain.status, 200);
    assert_eq!(
        pod.model.entry("plain").headers["x-forwarded-proto"],
        "http"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_not_who_it_should_be_gets_nothing_and_what_it_was_for_stays_held() {
    let mesh = Pki::new();
    let own = mesh.issue(ACTIVATOR);
    for (what, towards) in [
        (
            "another ID",
            mesh.client("spiffe://cluster.local/ns/other/*", Some(&own)),
        ),
        ("another authority", Pki::new().client(SIDECAR, Some(&own))),
        ("a client without a certificate", mesh.client(SIDECAR, None)),
    ] {
        let bed = Bed::with(|config| config.client.tls = Some(towards));
        let site = bed.site("a", |_| {});
        let wrong = pod("p", &mesh);
        site.pods(&[&wrong]);
        let mut client = Raw::sent(site.address(), get("/", "held")).await;
        site.holds(1).await;
        // Many attempts to ask it whether it is ready.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!site.workload.any_ready(), "{what}");
        assert_eq!(site.workload.held(), 1, "{what}");
        assert_eq!(wrong.model.ids(), [""; 0], "{what}");
        bed.activator.remove(site.workload.id());
        assert_eq!(client.answer().await.unwrap().status, 503, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_holds_nobody_without_tls_and_nobody_without_a_name() {
    let pki = Pki::new();
    let bed = Bed::with(|config| {
        config.tls = Some(pki.server(Mode::Strict, &["spiffe://cluster.local/ns/a/*"]));
    });
    let site = bed.site("a", |_| {});
    let mut plain = Raw::sent(site.address(), get("/", "plain")).await;
    let mut got = Vec::new();
    let _reset = plain.stream.read_to_end(&mut got).await;
    assert!(got.is_empty() || got[0] == 21, "an alert at most: {got:?}");
    for own in [None, Some(pki.issue("spiffe://cluster.local/ns/b/sa/c"))] {
        let connector = pki.connector(&[], own.as_ref());
        if let Ok(stream) = handshake(site.address(), &connector).await {
            let mut raw = Raw::from(stream);
            // It may be told so before it has sent this.
            raw.try_send(get("/", "stranger")).await;
            assert!(!raw.fill().await);
        }
    }
    assert_eq!((site.workload.held(), bed.scale.count()), (0, 0));
    let own = pki.issue("spiffe://cluster.local/ns/a/sa/c");
    let stream = handshake(site.address(), &pki.connector(&[], Some(&own))).await;
    let mut raw = Raw::from(stream.unwrap());
    raw.send(get("/", "known")).await;
    site.holds(1).await;
    until("woken", || bed.scale.count() == 1).await;
    // Who leaves is held no longer.
    drop(raw);
    site.holds(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_answers_what_is_at_pods_and_says_goodbye() {
    let (clients, mesh) = (Pki::new(), Pki::new());
    let bed = Bed::with(|config| {
        config.tls = Some(clients.server(Mode::Strict, &[]));
        let own = mesh.issue(ACTIVATOR);
        config.client.tls = Some(mesh.client(SIDECAR, Some(&own)));
    });
    let site = bed.site("a", |_| {});
    let pod = pod("p", &mesh);
    site.pods(&[&pod]);
    site.ready().await;
    let mut client = secure(site.address(), &clients).await;
    client.send(get("/wait", "last")).await;
    until("it to be at the model", || pod.model.ids() == ["last"]).await;
    let stopping = tokio::spawn(bed.activator.stop(Duration::from_secs(5)));
    // Answers say so from the moment at which nobody is let in any more.
    until("closed", || {
        std::net::TcpStream::connect(site.address()).is_err()
    })
    .await;
    pod.model.state.go.add_permits(1);
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.closes());
    // An end without a goodbye would be an error.
    assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
    stopping.await.unwrap();
}
