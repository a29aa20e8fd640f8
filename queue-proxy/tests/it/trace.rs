//! Trace context: what is well formed reaches the model as it came, and what is not does not.

use crate::{
    model::Model,
    raw::{Raw, get},
    rig::{activator, addressed, front, pod},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Names of headers that tell of traces, and their values.
const KNOWN: [&str; 6] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-request-id",
];

#[tokio::test]
async fn a_proper_context_and_other_propagation_pass_unchanged() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let given = [
        ("traceparent", PARENT),
        ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("baggage", "userId=alice,serverNode=DF 28"),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
        ("x-b3-traceid", "80F198EE56343BA864FE8B2A57D3EFF7"),
        ("x-request-id", "not ours"),
    ];
    let lines: Vec<_> = given
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let lines = lines.concat();
    for (listener, lines) in [
        (front(&proxy), lines.clone()),
        (activator(&proxy), addressed() + &lines),
    ] {
        let mut client = Raw::sent(listener, get("/", &lines)).await;
        assert_eq!(client.answer().await.status, 200);
        let seen = model.seen.last();
        for (name, value) in given {
            let values: Vec<_> = seen.get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
    }
}

#[tokio::test]
async fn a_broken_context_does_not_reach_the_model_and_the_request_does() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let state = "tracestate: a=1\r\n";
    let huge = format!("tracestate: a={}\r\n", "x".repeat(8_000));
    let many = format!("tracestate: {}\r\n", "a=1,".repeat(33));
    let line = |value: &str| format!("traceparent: {value}\r\n");
    for (lines, left) in [
        (line("garbage") + state, None),
        (line(&PARENT.to_uppercase()) + state, None),
        (
            line("00-00000000000000000000000000000000-00f067aa0ba902b7-01") + state,
            None,
        ),
        (line(&format!("{PARENT}-more")) + state, None),
        (line(PARENT) + &line(PARENT) + state, None),
        (state.to_owned(), None),
        (line(PARENT) + &huge, Some(PARENT)),
        (line(PARENT) + &many, Some(PARENT)),
    ] {
        let mut client = Raw::sent(front(&proxy), get("/", &lines)).await;
        assert_eq!(client.answer().await.status, 200, "{lines}");
        let seen = model.seen.last();
        let found: Vec<_> = KNOWN
            .iter()
            .filter_map(|name| Some((*name, seen.get(*name)?.to_str().unwrap())))
            .collect();
        let expected: Vec<_> = left.iter().map(|parent| ("traceparent", *parent)).collect();
        assert_eq!(found, expected, "{lines}");
    }
}
