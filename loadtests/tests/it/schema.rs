//! `schema.json` and real reports say the same.

use crate::server::{http, ok, run};
use loadtests::config::{Limit, Load};
use loadtests::plan::{Arrivals, Replay, Stages, Timing, Trace};
use loadtests::record::ErrorKind;
use loadtests::unit::Rate;
use loadtests::{Config, Report};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../schema.json")).unwrap()
}

/// The part of JSON Schema that ours uses.
pub(crate) fn check(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        if let Some(reference) = reference.strip_prefix("schema.json") {
            let other = self::schema();
            let pointed = serde_json::json!({ "$ref": reference });
            return check(&other, &pointed, value, at);
        }
        let target = root
            .pointer(reference.trim_start_matches('#'))
            .expect("the reference exists");
        return check(root, target, value, at);
    }
    if let Some(constant) = schema.get("const") {
        return assert_eq!(value, constant, "{at}");
    }
    if let Some(options) = schema["enum"].as_array() {
        return assert!(options.contains(value), "{at}: {value}");
    }
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{at}: unknown type {other}"),
    };
    let types = &schema["type"];
    assert!(
        types
            .as_array()
            .map_or_else(|| is(types), |types| types.iter().any(is)),
        "{at}: {value}"
    );
    if let Some(items) = value.as_array() {
        items
            .iter()
            .enumerate()
            .for_each(|(i, item)| check(root, &schema["items"], item, &format!("{at}/{i}")));
    }
    if let Some(fields) = value.as_object() {
        let required = schema["required"].as_array().into_iter().flatten();
        required.for_each(|name| {
            assert!(
                fields.contains_key(name.as_str().unwrap()),
                "{at}: {name} is missing"
            );
        });
        for (name, field) in fields {
            let known = schema["properties"]
                .get(name)
                .or_else(|| schema.get("additionalProperties"));
            let known = known.filter(|known| !known.is_boolean());
            check(
                root,
                known.unwrap_or_else(|| panic!("{at}: {name} is not in the schema")),
                field,
                &format!("{at}/{name}"),
            );
        }
    }
}

/// A report that some command wrote fits, too.
pub(crate) fn fits(report: &Value) {
    check(&schema(), &schema(), report, "");
    serde_json::from_value::<Report>(report.clone()).unwrap();
}

/// Panics where a report and the schema differ.
pub(crate) fn check_report(report: &Report) {
    let json = serde_json::to_value(report).unwrap();
    check(&schema(), &schema(), &json, "");
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), *report);
}

async fn report(load: Load) -> Report {
    let url = http(|_| async {
        let mut response = ok();
        response
            .headers_mut()
            .insert("x-served-by", "a".parse().unwrap());
        response
    });
    run(Config {
        load,
        warmup: Duration::from_millis(20),
        ..Config::new(&url.await).unwrap()
    })
    .await
}

#[tokio::test]
async fn reports_fit_the_schema_and_read_back() {
    let steady = Config::steady(
        Rate::new(50.0).unwrap(),
        Duration::from_millis(100),
        Arrivals::Poisson,
        9,
    );
    let Load::Open(mut shaped) = steady.clone() else {
        panic!("a rate makes an open loop");
    };
    let Stages(stages) = "60ms@10..90,40ms@10+3/20ms".parse().unwrap();
    shaped.timing = Timing::Stages(stages);
    (shaped.arrivals, shaped.variation) = (Arrivals::Gamma, 0.5);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "F,1,2\na,20,0\nb,9,9\n").unwrap();
    let mut replayed = shaped.clone();
    let replay = Replay {
        speed: 600.0,
        rows: vec!["a".to_owned()],
        seed: 1,
        until: None,
    };
    replayed.timing = Timing::Trace(Trace::read(file.path(), replay).unwrap());
    let open = [shaped, replayed].map(Load::Open);
    for load in [Load::Closed(Limit::Requests(10)), steady]
        .into_iter()
        .chain(open)
    {
        let report = report(load).await;
        check_report(&report);
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["summary"]["throughput"].as_f64() > Some(0.0));
        assert!(json["summary"]["latency"]["p999"].as_f64() > Some(0.0));
    }
}

#[test]
fn the_schema_lists_every_kind_of_error_in_a_report() {
    let schema = schema();
    let listed = schema
        .pointer("/properties/summary/properties/errors/properties")
        .unwrap()
        .as_object()
        .unwrap();
    let kinds = [
        ErrorKind::Connect,
        ErrorKind::Tls,
        ErrorKind::Timeout,
        ErrorKind::Status1xx,
        ErrorKind::Status2xx,
        ErrorKind::Status3xx,
        ErrorKind::Status4xx,
        ErrorKind::Status5xx,
        ErrorKind::StatusOther,
        ErrorKind::ClosedFresh,
        ErrorKind::ClosedReused,
        ErrorKind::Protocol,
        ErrorKind::Body,
        ErrorKind::Content,
        ErrorKind::Grpc,
        ErrorKind::Dropped,
    ];
    let name = |kind| {
        serde_json::to_value(kind)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let named: BTreeSet<String> = kinds.into_iter().map(name).collect();
    assert_eq!(named, listed.keys().cloned().collect());
}
