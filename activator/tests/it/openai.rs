//! Errors of our own in the form of OpenAI's.

use std::sync::Arc;

use activator::{Failed, WorkloadConfig};
use autoscaler_core::OptIns;
use tokio::time::{Duration, Instant};

use crate::{
    bed::{Bed, Pod},
    h2::{Connection, Frames},
    http1::{Answer, Raw, ask, get},
};

fn openai(config: &mut WorkloadConfig) {
    config.opt_ins = Some(Arc::new(OptIns {
        openai_errors: true,
        ..OptIns::default()
    }));
}

fn error_of(body: &[u8]) -> serde_json::Value {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["error"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_below_v1_have_openais_form_and_all_others_are_text() {
    let bed = Bed::new();
    let site = bed.site("a", |c| {
        openai(c);
        c.max_held = 1;
    });
    let plain = bed.site("b", |c| c.max_held = 1);
    let mut held = Vec::new();
    for site in [&site, &plain] {
        held.push(Raw::sent(site.address(), get("/", "x")).await);
        site.holds(1).await;
    }
    let refused = ask(site.address(), get("/v1/models?a=/x", "x")).await;
    assert_eq!(
        (
            refused.status,
            refused.header("retry-after"),
            refused.header("content-type"),
            refused.text().as_str()
        ),
        (
            503,
            Some("1"),
            Some("application/json"),
            r#"{"error":{"message":"too many requests are waiting for this workload","type":"server_error","param":null,"code":"hold-full"}}"#
        )
    );
    let over_h2 = Connection::open(site.address()).await;
    let refused = over_h2.ask("/v1/x", "x", Frames::whole(b"")).await.unwrap();
    assert_eq!(
        (refused.status, refused.headers["retry-after"].len()),
        (503, 1)
    );
    assert_eq!(error_of(&refused.body)["code"], "hold-full");

    let is_text = |answer: &Answer| {
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(answer.text().starts_with("rouse: hold-full: "));
    };
    is_text(&ask(site.address(), get("/v2/models", "x")).await);
    is_text(&ask(site.address(), get("/v1", "x")).await);
    is_text(&ask(plain.address(), get("/v1/models", "x")).await);
    // Whatever was refused before it was a request has no path.
    let malformed = "GET /v1/models HTTP/1.1\r\nhost: t\r\nhost: t\r\n\r\n";
    let refused = ask(site.address(), malformed).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().starts_with("rouse: malformed: "));

    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(held[0].answer().await.unwrap().status, 200);
    let models = ask(site.address(), get("/v1/as?404&text/plain", "x")).await;
    assert_eq!(
        (models.status, models.header("content-type")),
        (404, Some("text/plain")),
        "the model's own errors are its own"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_workload_cannot_start_is_part_of_the_message() {
    let bed = Bed::with(|c| c.explain_failures = true);
    let site = bed.site("a", openai);
    site.tell(|e| {
        e.failed = Some(Failed {
            reason: "exited with status 3".into(),
            detail: "a \"quoted\" line\nboom\n".into(),
            retry_at: Instant::now() + Duration::from_mins(1),
        });
    });
    // Refused at once, or as soon as that is known here.
    let refused = ask(site.address(), get("/v1/models", "x")).await;
    assert_eq!(refused.status, 503);
    let error = error_of(&refused.body);
    assert_eq!(
        error["message"],
        "the workload cannot start: exited with status 3\na \"quoted\" line\nboom"
    );
    assert_eq!(error["code"], "cannot-start");
    assert_eq!(error["type"], "server_error");
}
