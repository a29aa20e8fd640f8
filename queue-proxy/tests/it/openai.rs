//! Errors of our own in the form of OpenAI's, and the entry in `Server-Timing`.

use crate::{
    model::{Model, text},
    raw::{Raw, get},
    rig::{activator, addressed, config, front, ready, until},
};

#[tokio::test]
async fn errors_below_v1_have_openais_form_also_for_a_client_behind_an_activator() {
    let (model, gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    (config.queue_depth, config.activator_queue_depth) = (0, 0);
    config.openai_errors = true;
    let proxy = ready(config).await;
    let mut busy = Raw::sent(front(&proxy), get("/", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    for (address, lines, marker) in [
        (front(&proxy), String::new(), None),
        (activator(&proxy), addressed(), Some("full")),
    ] {
        let mut client = Raw::connect(address).await;
        client.send(get("/v1/models?x", &lines)).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("rouse-admission"), marker);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(
            answer.text(),
            r#"{"error":{"message":"too many requests are waiting","type":"server_error","param":null,"code":"queue-full"}}"#
        );
        client.send(get("/v2/models", &lines)).await;
        let answer = client.answer().await;
        assert_eq!(
            answer.text(),
            "rouse: queue-full: too many requests are waiting\n"
        );
    }
    gate.add_permits(1);
    assert_eq!(busy.answer().await.status, 200);
}

#[tokio::test]
async fn what_was_queued_is_added_to_what_the_model_has_in_server_timing() {
    let model = Model::start(|_| async {
        let mut answer = text("mine");
        let own = "total;dur=3, db".parse().unwrap();
        answer.headers_mut().insert("server-timing", own);
        answer
    })
    .await;
    for (timing_header, wanted) in [(true, 2), (false, 1)] {
        let mut config = config(&[model.address], 1);
        config.timing_header = timing_header;
        let proxy = ready(config).await;
        let entries = |answer: crate::raw::Answer| -> Vec<String> {
            let named = answer
                .headers
                .into_iter()
                .filter(|h| h.0 == "server-timing");
            named.map(|(_, value)| value).collect()
        };
        let answer = Raw::connect(front(&proxy)).await.get("/").await;
        let found = entries(answer);
        assert_eq!(
            (found.len(), found[0].as_str()),
            (wanted, "total;dur=3, db")
        );
        if let Some(ours) = found.get(1) {
            let millis = ours.strip_prefix("queue;dur=").expect(ours);
            assert!(millis.parse::<f64>().unwrap() >= 0.0);
        }
        // What waited here is not what a client behind an activator asks about.
        let mut lane = Raw::sent(activator(&proxy), get("/", &addressed())).await;
        assert_eq!(entries(lane.answer().await), ["total;dur=3, db"]);
    }
}
