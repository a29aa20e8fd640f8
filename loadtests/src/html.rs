//! A report as a page: one file that needs no network, no server and no other file, and tells the same without its script.
//!
//! All there is to say is written here, as figures and tables. The script draws a chart from each table and nothing else, so that a chart
//! and its table cannot disagree. Text from elsewhere (the URL, names of servers, a report that somebody else wrote) is always escaped,
//! and the page's own policy lets nothing run or load but what is in it by its hash.

mod chart;
mod cold;
mod latency;
mod load;
mod streams;
mod summary;
mod text;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::report::Report;

use self::{
    chart::Chart,
    text::{escaped, in_script},
};

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The page of a report.
pub fn page(report: &Report) -> String {
    // Nothing in a report can fail to be written as JSON: its keys are text.
    let value = serde_json::to_value(report).unwrap_or_default();
    let title = format!("Load test of {}", text::clipped(&report.config.url));
    fill(PAGE, |name| match name {
        "policy" => policy(),
        "title" => escaped(&title),
        "style" => STYLE.to_owned(),
        "script" => SCRIPT.to_owned(),
        "report" => in_script(&value.to_string()),
        _ => body(report, &value),
    })
}

/// The template with each `{{name}}` replaced: what is put in is not looked at again.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = template.split("{{");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        page.push_str(&value(name));
        page.push_str(rest);
    }
    page
}

/// Only this style and this script, and nothing from anywhere.
fn policy() -> String {
    let hash = |text: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        STANDARD.encode(digest)
    };
    format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn body(report: &Report, value: &Value) -> String {
    // What a run was about comes first.
    let cold = report.cold.as_ref().map_or_else(Vec::new, cold::charts);
    let sections = [
        section("Cold starts", "", cold),
        section("Latency", "", latency::charts(report)),
        section("Load", "", load::charts(report)),
        section("Streams", &streams::figures(value), streams::charts(value)),
        section("Answers", "", load::counts(report)),
    ];
    format!(
        "{}<main>{}{}{}{}</main>",
        summary::header(report),
        summary::figures(report),
        sections.concat(),
        summary::settings(value),
        summary::footer(report),
    )
}

/// Charts under a heading; nothing if there is nothing.
fn section(title: &str, before: &str, mut charts: Vec<Chart>) -> String {
    charts.retain(Chart::has_rows);
    if charts.is_empty() && before.is_empty() {
        return String::new();
    }
    fill_rows(&mut charts);
    let charts: String = charts.iter().map(ToString::to_string).collect();
    format!(
        "<section><h2>{}</h2><div class=\"grid\">{before}{charts}</div></section>",
        escaped(title)
    )
}

/// Two charts are beside each other; one that would be alone takes the whole row.
fn fill_rows(charts: &mut [Chart]) {
    let mut index = 0;
    while let Some(chart) = charts.get(index) {
        let is_alone = charts.get(index + 1).is_none_or(|next| next.is_wide);
        if chart.is_wide {
            index += 1;
        } else if is_alone {
            charts[index].is_wide = true;
            index += 1;
        } else {
            index += 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fill, page, policy};
    use crate::report::Report;
    use serde_json::{Value, json};

    /// A report with nothing in it.
    pub(super) fn empty() -> Value {
        let none = json!({
            "count": 0, "mean": null, "p50": null, "p90": null, "p95": null, "p99": null, "p999": null, "max": null
        });
        json!({
            "schema_version": 1, "tool": "rouse-load 0", "started_at": 0.0, "interrupted": false,
            "config": {
                "url": "http://h/", "method": "GET", "http": "1.1", "headers": [], "body_bytes": 0, "connections": 1,
                "threads": 1, "timeout": 1.0, "warmup": 0.0, "expect_status": "2xx", "max_waiting": 0, "load": "closed",
                "duration": 10.0, "requests": null, "stages": [], "arrivals": null, "seed": null
            },
            "summary": {
                "requests": 0, "successes": 0, "unfinished": 0, "duration": 0.0, "throughput": 0.0, "latency": none.clone(),
                "failed_latency": none, "error_count": 0, "errors": {}, "body_bytes": 0, "connections_opened": 0
            },
            "status": {}, "served_by": {}, "pacing": null
        })
    }

    pub(super) fn report(value: Value) -> Report {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_put_into_the_template_is_not_taken_for_a_part_of_it() {
        let filled = fill("<{{a}}|{{b}}>", |name| format!("{name}={{{{b}}}}"));
        assert_eq!(filled, "<a={{b}}|b={{b}}>");
    }

    #[test]
    fn no_text_of_others_becomes_markup() {
        let hostile = "</script><script>x()</script><img src=x onerror=x()>\u{2028}'\"{{script}}";
        let mut value = empty();
        value["config"]["url"] = hostile.into();
        value["config"]["method"] = hostile.into();
        value["config"]["headers"] = json!([hostile]);
        value["tool"] = hostile.into();
        value["served_by"] = json!({hostile: 3});
        value["status"] = json!({hostile: 3});
        value["slo"] = json!([{"objective": hostile, "value": null, "limit": 1.0, "met": false}]);
        let page = page(&report(value));
        for tag in ["<img", "<script>x", "</script><script>x", "\u{2028}"] {
            assert!(!page.contains(tag), "{tag}");
        }
        assert_eq!(page.matches("</script>").count(), 2);
        // Whoever reads it still finds the whole text.
        assert!(page.contains("&lt;img src=x onerror=x()&gt;"));
    }

    #[test]
    fn the_report_is_in_the_page_as_it_is() {
        let report = report(empty());
        let page = page(&report);
        let (_, rest) = page.split_once("id=\"report\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        assert_eq!(serde_json::from_str::<Report>(json).unwrap(), report);
    }

    #[test]
    fn nothing_runs_but_the_script_that_is_hashed() {
        let policy = policy();
        assert!(
            !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
        assert_eq!(policy.matches("'sha256-").count(), 2);
        let page = page(&report(empty()));
        assert!(page.contains(&policy));
        assert!(
            !page.contains("style=\"") && !page.contains("onclick"),
            "inline"
        );
    }
}
