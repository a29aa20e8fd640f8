//! Models that speak TLS.

use queue_proxy::{Config, model};
use shared::http::{
    probe::Probe,
    tls::{ClientTls, Look},
};
use tokio::{
    io::AsyncWriteExt,
    time::{Duration, timeout},
};

use crate::{
    h2,
    model::{Model, echo, text},
    pki::Pki,
    raw::{Raw, get},
    rig::{config, front, ready, start, until},
    websocket,
};

const MODEL: &str = "model.example";

fn towards(model: &Model, tls: ClientTls) -> Config {
    let mut config = config(&[model.address], 1);
    config.client.tls = Some(tls);
    config
}

#[tokio::test]
async fn requests_go_to_the_model_over_tls_on_kept_connections() {
    let pki = Pki::new();
    let acceptor = pki.acceptor(&pki.issue(MODEL), &["http/1.1"], false);
    let model = Model::start_tls(acceptor, false, |request| async move {
        text(request.uri().path().to_owned())
    })
    .await;
    let proxy = ready(towards(&model, pki.client(MODEL, None))).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for _ in 0..5 {
        assert_eq!(client.get("/x").await.text(), "/x");
    }
    assert_eq!(model.seen.connections(), 1);
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn http_2_goes_to_the_model_over_tls_by_agreement_and_only_then() {
    let pki = Pki::new();
    let pair = pki.issue("spiffe://cluster.local/ns/a/sa/model");
    let name = "spiffe://cluster.local/ns/a/*";
    let acceptor = pki.acceptor(&pair, &["h2"], false);
    let model = Model::start_tls(acceptor, true, |request| async move {
        assert_eq!(request.uri().scheme_str(), Some("https"));
        echo(request)
    })
    .await;
    let proxy = ready(towards(&model, pki.client(name, None))).await;
    let (mut client, _connection) = h2::connect(front(&proxy)).await;
    for _ in 0..3 {
        assert_eq!(h2::get(&mut client, "/").await.0.status(), 200);
    }
    assert_eq!(model.seen.connections(), 1);
    // One that knows HTTP/1.1 alone, or does not say.
    for protocols in [&["http/1.1"][..], &[]] {
        let acceptor = pki.acceptor(&pair, protocols, false);
        let model = Model::start_tls(acceptor, false, |_| async { text("no") }).await;
        let proxy = ready(towards(&model, pki.client(name, None))).await;
        let (mut client, _connection) = h2::connect(front(&proxy)).await;
        let (answer, said) = h2::get(&mut client, "/").await;
        assert_eq!(answer.status(), 502);
        assert!(said.contains("model-unreachable"), "{said}");
        assert_eq!(model.seen.count(), 0);
    }
}

#[tokio::test]
async fn a_model_that_is_not_who_it_should_be_is_sent_nothing() {
    let (pki, other) = (Pki::new(), Pki::new());
    let id = "spiffe://cluster.local/ns/a/sa/model";
    for (what, pair, name) in [
        ("authority", other.issue(MODEL), MODEL),
        ("name", pki.issue("another.example"), MODEL),
        ("expired", pki.expired(MODEL), MODEL),
        ("authority of an ID", other.issue(id), id),
        ("ID", pki.issue("spiffe://cluster.local/ns/b/sa/model"), id),
        ("name for an ID", pki.issue(MODEL), id),
    ] {
        let acceptor = pki.acceptor(&pair, &[], false);
        let model = Model::start_tls(acceptor, false, |_| async { text("no") }).await;
        let mut config = towards(&model, pki.client(name, None));
        // What will never come about is not waited for.
        config.restart_patience = Duration::from_mins(1);
        let proxy = ready(config).await;
        let answer = Raw::connect(front(&proxy)).await.get("/").await;
        assert_eq!(answer.status, 502, "{what}");
        assert!(answer.text().contains("model-unreachable"), "{what}");
        assert_eq!(model.seen.count(), 0, "{what}");
    }
    // Without TLS nothing is sent either.
    let model = Model::ok().await;
    let proxy = ready(towards(&model, pki.client(MODEL, None))).await;
    let answer = Raw::connect(front(&proxy)).await.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(model.seen.count(), 0);
}

#[tokio::test]
async fn a_model_that_asks_for_a_certificate_gets_the_one_that_is_in_the_file_now() {
    let (pki, other) = (Pki::new(), Pki::new());
    let acceptor = pki.acceptor(&pki.issue(MODEL), &["http/1.1"], true);
    let model = Model::start_tls(acceptor, false, |_| async { text("ok") }).await;
    let tls = pki.client(MODEL, Some(&other.issue("sidecar")));
    let proxy = ready(towards(&model, tls.clone())).await;
    let answer = Raw::connect(front(&proxy)).await.get("/").await;
    assert_eq!(answer.status, 502);
    let right = pki.issue("sidecar");
    pki.client(MODEL, Some(&right));
    let seen = tls.look();
    // The program, which looks every few seconds, may have been first.
    assert!(matches!(seen, Look::Taken | Look::Same), "{seen:?}");
    let answer = Raw::connect(front(&proxy)).await.get("/").await;
    assert_eq!((answer.status, model.seen.count()), (200, 1));
}

#[tokio::test]
async fn a_handshake_that_the_model_never_answers_ends_with_the_limit_on_connecting() {
    let model = Model::raw(|stream| async move {
        let _silent = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let pki = Pki::new();
    let mut config = towards(&model, pki.client(MODEL, None));
    config.client.connect = Duration::from_millis(200);
    let proxy = ready(config).await;
    let answer = Raw::connect(front(&proxy)).await.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("model-unreachable"));
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_client_that_is_gone_and_a_websocket_reach_through_tls_to_the_model() {
    let pki = Pki::new();
    let acceptor = pki.acceptor(&pki.issue(MODEL), &[], false);
    let model = Model::start_tls(acceptor.clone(), false, |_| std::future::pending()).await;
    let proxy = ready(towards(&model, pki.client(MODEL, None))).await;
    let mut client = Raw::connect(front(&proxy)).await;
    client.send(get("/", "")).await;
    until("it to arrive", || model.seen.active() == 1).await;
    drop(client);
    until("the model's end", || model.seen.active() == 0).await;
    until("the slot to be free", || proxy.open() == 0).await;

    let model = websocket::echoing_over(acceptor).await;
    let proxy = ready(towards(&model, pki.client(MODEL, None))).await;
    let mut client = Raw::sent(front(&proxy), get("/ws", websocket::ASK)).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exact(5).await, "hello");
    client.send(b"\x00\xff").await;
    assert_eq!(client.exact(2).await, &b"\x00\xff"[..]);
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "bye");
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_readiness_probe_over_https_believes_whoever_answers() {
    let pki = Pki::new();
    // Nobody here knows this authority.
    let acceptor = pki.acceptor(&pki.expired("whoever"), &[], false);
    let secure = Model::start_tls(acceptor, false, |_| async { text("ok") }).await;
    let plain = Model::ok().await;
    let probe = |address| {
        let https = Probe::Http {
            path: "/ready".into(),
            headers: http::HeaderMap::new(),
            https: true,
        };
        model::Config::new(https, address)
    };
    let mut config = config(&[plain.address], 0);
    config.model = probe(secure.address);
    let proxy = ready(config.clone()).await;
    assert_eq!(secure.seen.paths().first().unwrap(), "/ready");
    drop(proxy);
    config.model = probe(plain.address);
    let proxy = start(config);
    let asked = plain.seen.count();
    let mut state = proxy.model();
    let ready = timeout(Duration::from_millis(300), state.wait_for(|m| m.ready)).await;
    assert!(ready.is_err(), "one without TLS is not ready");
    assert_eq!(plain.seen.count(), asked);
}
