//! Everything as JSON.

use autoscaler_core::sim::Overall;
use serde_json::{Value, json};

use super::Done;

pub(super) fn page(done: &[Done], overall: Option<&Overall>, seeds: u32) -> String {
    let scenarios: Vec<Value> = done.iter().map(one).collect();
    let mut page = json!({ "seeds": seeds, "scenarios": scenarios });
    if let Some(overall) = overall {
        page["overall"] = json!(overall);
    }
    // A map of plain values: it cannot fail.
    serde_json::to_string_pretty(&page).unwrap_or_default() + "\n"
}

fn one(done: &Done) -> Value {
    let scenario = &done.scenario;
    let mut policies = serde_json::Map::new();
    for run in &done.runs {
        let told =
            json!({ "summary": run.summary, "first_run": run.first, "points": run.first.points });
        policies.insert(run.policy.as_str().to_owned(), told);
    }
    let mut value = json!({
        "name": scenario.name,
        "about": scenario.about,
        "length_seconds": scenario.length.as_secs_f64(),
        "service_seconds": scenario.service.mean().as_secs_f64(),
        "start_seconds": scenario.start.mean().as_secs_f64(),
        "concurrency": scenario.concurrency,
        "start_failures": scenario.start_failures,
        "scrape_loss": scenario.scrape_loss,
        "annotations": scenario.annotations,
        "policies": policies,
    });
    if let Some(compared) = done.comparison() {
        value["ratios"] = json!({
            "replica_seconds": compared.cost(),
            "held_p95": compared.held(),
            "seconds_over_target": compared.over_target(),
        });
    }
    value
}
