//! h2spec: HTTP/2 and HPACK, by a client that breaks every rule once.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use integration::process::{free_port, run};

use crate::{
    Place,
    expected::{Exception, assert_only},
    place::takes_connections,
};

/// What h2spec finds and we leave as it is; both listeners are the same code.
const EXCEPTIONS: &[Exception] = &[Exception {
    name: "http2/3.5 Sends invalid connection preface",
    reason: "the listener speaks HTTP/1 too, so that what is no preface is a malformed request: it is answered 400 in HTTP/1 \
             and closed, and h2spec does not get over an answer that is no frame",
}];
/// Cases that h2spec has in this version, so that a run that ends early is not a good one.
const CASES: usize = 146;
/// For all of it: a case that fails takes as long as it is waited for.
const LIMIT: Duration = Duration::from_mins(4);

/// A case and whether it passed.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    name: String,
    failed: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2spec_finds_nothing_but_the_exceptions() {
    let place = Place::new();
    let model = free_port();
    let _model = place.start("tiny-model", &format!("--port {}", model.port()));
    takes_connections(model).await;
    let listeners = place.listen(model).await;
    let [(one, at_one), (other, at_other)] = listeners.both();
    let results = tokio::join!(cases(&place, one, at_one), cases(&place, other, at_other));
    for (name, cases) in [(one, results.0), (other, results.1)] {
        let failed: BTreeSet<_> = cases
            .iter()
            .filter(|case| case.failed)
            .map(|case| case.name.clone())
            .collect();
        println!("{name}: {} cases, {} failed", cases.len(), failed.len());
        assert_only(name, &failed, EXCEPTIONS);
        assert_eq!(cases.len(), CASES, "h2spec has another number of cases");
    }
}

/// Runs all of h2spec against a listener.
async fn cases(place: &Place, name: &str, address: SocketAddr) -> Vec<Case> {
    let report = place.folder().join(format!("h2spec-{name}.xml"));
    let port = address.port().to_string();
    let done = run(
        &place.tool("h2spec"),
        &[
            "--port",
            &port,
            "--path",
            // Long enough for the cases about flow control, and the body of a POST is read first.
            "/big?bytes=1000",
            "--timeout",
            "5",
            "--strict",
            "--junit-report",
            report.to_str().unwrap(),
            "generic",
            "http2",
            "hpack",
        ],
        place.folder(),
        LIMIT,
    )
    .await;
    let report = std::fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("no report of {name} ({error}): {}", done.stderr));
    let cases = read(&report);
    if cases.iter().any(|case| case.failed) {
        println!("{name}:\n{}", done.stdout);
    }
    cases
}

/// Reads the cases of a report in the form of `JUnit`, as far as h2spec writes it.
fn read(report: &str) -> Vec<Case> {
    report
        .split("<testcase ")
        .skip(1)
        .map(|text| {
            let text = text.split("</testcase>").next().unwrap_or(text);
            let attribute = |name: &str| {
                let from = text.split(&format!("{name}=\"")).nth(1).unwrap_or_default();
                unescape(from.split('"').next().unwrap_or_default())
            };
            Case {
                name: format!("{} {}", attribute("package"), attribute("classname")),
                failed: text.contains("<failure") || text.contains("<error"),
            }
        })
        .collect()
}

fn unescape(text: &str) -> String {
    text.replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[test]
fn a_report_is_read_with_its_failures() {
    let report = r#"<testsuite name="x" package="generic/1"><testcase package="generic/1" classname="Sends &#34;a&#34;" time="0.1"></testcase>
        <testcase package="http2/6" classname="Sends b" time="5"><failure>x</failure></testcase></testsuite>"#;
    let case = |name: &str, failed| Case {
        name: name.to_owned(),
        failed,
    };
    let cases = read(report);
    assert_eq!(
        cases,
        [
            case("generic/1 Sends \"a\"", false),
            case("http2/6 Sends b", true)
        ]
    );
}
