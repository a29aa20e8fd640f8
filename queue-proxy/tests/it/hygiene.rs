//! What must not travel on does not, in either direction.

use crate::{
    model::{Model, text},
    raw::{Raw, get, post},
    rig::{activator, addressed, config, front, pod, ready},
};

#[tokio::test]
async fn a_client_cannot_pose_as_one_of_us() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for lines in [
        "rouse-op: reserve\r\n".to_owned(),
        "rouse-op: wait-ready\r\nrouse-wait-ms: 1\r\n".to_owned(),
        "rouse-ticket: 1\r\n".to_owned(),
        "rouse-pod-uid: other\r\nrouse-port: 7\r\n".to_owned(),
        format!(
            "{}rouse-admission: full\r\nrouse-anything: x\r\n",
            addressed()
        ),
        "K-Network-Probe: probe\r\nuser-agent: kube-probe/1\r\nK-Proxy-Request: activator\r\n"
            .to_owned(),
    ] {
        let before = model.seen.count();
        client.send(get("/", &lines)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{lines}");
        let ours = |(name, _): &&(String, String)| name.starts_with("rouse-");
        let names: Vec<_> = answer
            .headers
            .iter()
            .filter(ours)
            .map(|h| h.0.as_str())
            .collect();
        assert_eq!(names, ["rouse-timing"], "{lines}");
        assert_eq!(model.seen.count(), before + 1, "served like any other");
        let last = model.seen.last();
        assert!(!last.keys().any(|name| name.as_str().starts_with("rouse-")));
    }
    let (started, ended) = proxy.stats().totals();
    assert_eq!((started, ended), (6, 6), "and counted like any other");
}

#[tokio::test]
async fn a_model_cannot_pose_as_one_of_us() {
    let model = Model::start(|_| async {
        let mut answer = text("mine");
        for (name, value) in [
            ("rouse-admission", "full"),
            ("rouse-load", "0"),
            ("rouse-ticket", "7"),
            ("rouse-timing", "hold;dur=1"),
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("x-kept", "1"),
        ] {
            answer.headers_mut().append(name, value.parse().unwrap());
        }
        answer
    })
    .await;
    let mut config = config(&[model.address], 0);
    config.timing_header = false;
    let proxy = ready(config).await;
    let answer = Raw::connect(front(&proxy)).await.get("/").await;
    let names: Vec<_> = answer.headers.iter().map(|h| h.0.as_str()).collect();
    assert!(
        !names
            .iter()
            .any(|n| n.starts_with("rouse-") || *n == "x-secret"),
        "{names:?}"
    );
    assert_eq!(answer.header("x-kept"), Some("1"));

    let mut lane = Raw::sent(activator(&proxy), get("/", &addressed())).await;
    let answer = lane.answer().await;
    assert_eq!(answer.text(), "mine");
    assert_eq!(answer.header("rouse-admission"), Some("admitted"));
    assert_eq!(answer.header("rouse-ticket"), None);
}

#[tokio::test]
async fn hop_by_hop_headers_end_here_and_a_client_cannot_have_ours_removed() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(front(&proxy)).await;
    client
        .send(get(
            "/",
            "connection: x-mine, x-forwarded-for, host, te\r\nx-mine: 1\r\nkeep-alive: 5\r\nproxy-connection: x\r\n\
             te: trailers\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nx-forwarded-for: 8.8.8.8\r\n\
             x-forwarded-proto: https\r\nforwarded: for=8.8.8.8\r\nproxy-authorization: x\r\nx-kept: 1\r\n",
        ))
        .await;
    assert_eq!(client.answer().await.status, 200, "h2c is not an error");
    let last = model.seen.last();
    for gone in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "forwarded",
        "proxy-authorization",
    ] {
        assert!(!last.contains_key(gone), "{gone}");
    }
    assert_eq!(last["x-forwarded-for"], "127.0.0.1");
    assert_eq!(last["x-forwarded-proto"], "http");
    assert_eq!(last["x-forwarded-host"], "a");
    assert_eq!(
        (&last["host"], &last["te"], &last["x-kept"]),
        (
            &"a".parse().unwrap(),
            &"trailers".parse().unwrap(),
            &"1".parse().unwrap()
        )
    );
}

#[tokio::test]
async fn what_an_activator_says_of_the_client_is_kept() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let lines = format!(
        "{}x-forwarded-for: 8.8.8.8\r\nx-forwarded-proto: https\r\n",
        addressed()
    );
    let mut lane = Raw::sent(activator(&proxy), get("/", &lines)).await;
    assert_eq!(lane.answer().await.status, 200);
    let last = model.seen.last();
    assert_eq!(last["x-forwarded-for"], "8.8.8.8");
    assert_eq!(last["x-forwarded-proto"], "https");
}

#[tokio::test]
async fn an_http_1_0_client_is_served_and_the_model_gets_a_host() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::sent(front(&proxy), "GET /old HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "ok");
    client.closed().await;
    assert!(model.seen.last().contains_key("host"));
}

#[tokio::test]
async fn neither_framing_nor_routing_can_be_named_away_and_a_long_via_is_a_field_like_others() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let via = format!("via: {}1.1 x\r\n", "1.1 x, ".repeat(1_000));
    for lines in [
        "connection: close, x-forwarded-for, host, content-length\r\n",
        &via,
    ] {
        let mut client = Raw::sent(front(&proxy), post("/", lines, "body")).await;
        assert_eq!(client.answer().await.status, 200);
        let last = model.seen.last();
        assert_eq!(
            (&last["host"], &last["content-length"]),
            (&"a".parse().unwrap(), &"4".parse().unwrap())
        );
        assert_eq!(last["x-forwarded-for"], "127.0.0.1");
    }
    let many = get("/", &"via: 1.1 x\r\n".repeat(1_000));
    let answer = Raw::sent(front(&proxy), many).await.answer().await;
    assert_eq!(answer.status, 431);
    let odd = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: \xff\r\n\r\n";
    let answer = Raw::sent(front(&proxy), odd).await.answer().await;
    assert_eq!(answer.status, 400);
    assert_eq!(model.seen.count(), 2);
}
