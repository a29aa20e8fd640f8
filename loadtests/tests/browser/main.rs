//! Pages of reports in a real browser: `.ci/run browser`, or `cargo test -p loadtests --test browser`. Needs Chromium.
//!
//! The pages and pictures of them are kept under `target/tmp/browser`, to be looked at.
#![expect(clippy::unwrap_used, reason = "a test may stop where its set-up fails")]

mod chromium;
mod reports;

use chromium::Browser;
use loadtests::{Report, cold::report::Wake, html::page};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// As a phone has it, and as a desk has it.
const PHONE: (u32, u32) = (360, 740);
const DESK: (u32, u32) = (1280, 900);

/// Rows of a chart's table: the text and the number of each cell.
const ROWS: &str = "(id) => [...document.getElementById(id).querySelectorAll('tbody tr')].map((row) => \
     [...row.cells].map((cell) => [cell.textContent, cell.dataset.v === undefined ? null : Number(cell.dataset.v)]))";

/// Charts, each with the number of its rows, and of what is drawn and can be seen.
const CHARTS: &str = "[...document.querySelectorAll('[data-kind]')].map((section) => ({ \
     id: section.id, rows: section.querySelectorAll('tbody tr').length, \
     marks: [...section.querySelectorAll('.plot svg .mark')].filter((mark) => { \
       const box = mark.getBoundingClientRect(); return box.width + box.height > 0; }).length, \
     isInside: [...section.querySelectorAll('.plot svg .mark')].every((mark) => { \
       const [box, plot] = [mark.getBoundingClientRect(), mark.ownerSVGElement.getBoundingClientRect()]; \
       return box.left >= plot.left - 8 && box.right <= plot.right + 8 && box.top >= plot.top - 8 && box.bottom <= plot.bottom + 8; }) }))";

/// Which row of a chart's table the tooltip is about: all of the row's text, and nothing else; none if it is not to be seen.
const TOLD: &str = "(id) => { const tip = document.getElementById('tip'); \
     if (tip.hidden || tip.getBoundingClientRect().height === 0) return null; \
     const section = document.getElementById(id); \
     const heads = [...section.querySelectorAll('thead th')].map((head) => head.textContent); \
     const rows = [...section.querySelectorAll('tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent)); \
     const wanted = rows.map((row) => [`${heads[0]} ${row[0]}`.trim(), \
       ...row.slice(1).flatMap((text, i) => (text ? [heads[i + 1], text] : []))].join('|')); \
     const told = [...tip.querySelectorAll('b, dt, dd')].map((node) => node.textContent).join('|'); \
     const box = tip.getBoundingClientRect(); \
     if (box.left < 0 || box.top < 0 || box.right > innerWidth || box.bottom > innerHeight) throw new Error('out of sight'); \
     return wanted.flatMap((text, i) => (text === told ? [i] : [])); }";

fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Looks at a report in every way that a person does.
fn look(name: &str, report: &Report) -> Browser {
    let file = folder().join(format!("{name}.html"));
    fs::write(&file, page(report)).unwrap();
    let mut browser = Browser::start();
    browser.show(DESK.0, DESK.1, "light");
    browser.open(&file);
    let mut backgrounds = Vec::new();
    for ((width, height), scheme) in [
        (DESK, "light"),
        (DESK, "dark"),
        (PHONE, "light"),
        (PHONE, "dark"),
    ] {
        browser.show(width, height, scheme);
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.value(fits), true, "{name} at {width}");
        backgrounds.push(browser.value("getComputedStyle(document.body).backgroundColor"));
        charts(&mut browser, name);
        browser.picture(&folder().join(format!("{name}-{width}-{scheme}.png")));
    }
    assert_ne!(backgrounds[0], backgrounds[1], "{name}: light and dark");
    assert_eq!(backgrounds[0], backgrounds[2]);
    browser.show(DESK.0, DESK.1, "light");
    browser.value("document.getElementById('theme').click()");
    let dark = browser.value("getComputedStyle(document.body).backgroundColor");
    assert_eq!(dark, backgrounds[1], "{name}: the button");
    assert_eq!(browser.complaints(), [""; 0], "{name}");
    let own = format!("file://{}", file.display());
    assert_eq!(browser.requests(), [own], "{name}");
    browser
}

/// Each chart shows something, and tells each of its rows to a pointer and to keys.
fn charts(browser: &mut Browser, name: &str) {
    for chart in browser.value(CHARTS).as_array().unwrap().clone() {
        let id = chart["id"].as_str().unwrap();
        let rows = chart["rows"].as_u64().unwrap();
        assert!(
            rows > 0 && chart["marks"].as_u64() > Some(0),
            "{name}: {chart}"
        );
        assert_eq!(chart["isInside"], true, "{name}: {chart}");
        let told = format!("({TOLD})({id:?})");
        let svg = format!("document.querySelector('#{id} .plot svg')");
        browser.value(&format!("{svg}.scrollIntoView({{block: 'center'}})"));
        browser.settle();
        let place = browser.value(&format!(
            "(() => {{ const box = {svg}.getBoundingClientRect(); \
             return [box.left + box.width * 0.6, Math.max(1, box.top) + Math.min(box.height, innerHeight) * 0.45]; }})()"
        ));
        browser.move_to(place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
        let told_rows = browser.value(&told);
        assert!(
            told_rows.as_array().is_some_and(|rows| !rows.is_empty()),
            "{name}: {id}: hovering at {place} tells {told_rows}"
        );
        browser.move_to(0.0, 0.0);
        assert_eq!(browser.value(&told), Value::Null, "{name}: {id}: away");
        browser.value(&format!("{svg}.focus()"));
        for (key, row) in [
            ("Home", 0),
            ("End", rows - 1),
            ("ArrowLeft", rows.saturating_sub(2)),
        ] {
            browser.press(key);
            let told_rows = browser.value(&told);
            assert!(
                told_rows
                    .as_array()
                    .is_some_and(|rows| rows.contains(&row.into())),
                "{name}: {id}: {key} tells {told_rows}, not {row}"
            );
        }
        browser.press("Escape");
        assert_eq!(browser.value(&told), Value::Null, "{name}: {id}: Escape");
        browser.value("document.activeElement.blur()");
    }
}

/// Numbers of one column of a chart's table.
fn column(browser: &mut Browser, id: &str, index: usize) -> Vec<Option<f64>> {
    let rows = browser.value(&format!("({ROWS})({id:?})"));
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| row[index][1].as_f64()).collect()
}

/// The sum of the counts of a column.
fn sum(browser: &mut Browser, id: &str, index: usize) -> u64 {
    let rows = browser.value(&format!("({ROWS})({id:?})"));
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| row[index][1].as_u64().unwrap()).sum()
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn float(count: u64) -> f64 {
    count as f64
}

#[test]
fn a_closed_loop() {
    let report = reports::closed();
    let browser = &mut look("closed", &report);
    let points = &report.series.points;
    let p50: Vec<_> = points.iter().map(|point| point.p50).collect();
    assert_eq!(column(browser, "latency-over-time", 1), p50);
    assert_eq!(sum(browser, "statuses", 1), report.summary.requests);
    let text = browser.value("document.body.innerText");
    assert!(!text.as_str().unwrap().contains("Errors over time"));
}

#[test]
fn an_open_loop_with_errors_and_objectives() {
    let report = reports::open();
    assert!(report.summary.error_count > 0 && report.pacing.is_some());
    let browser = &mut look("open", &report);
    let errors: Vec<_> = report
        .series
        .points
        .iter()
        .map(|p| Some(float(p.errors)))
        .collect();
    assert_eq!(column(browser, "errors-over-time", 1), errors);
    let kinds = report.summary.errors.len();
    assert_eq!(column(browser, "errors-by-kind", 1).len(), kinds);
    assert_eq!(
        sum(browser, "errors-by-kind", 1),
        report.summary.error_count
    );
    assert_eq!(
        sum(browser, "servers", 1),
        report.served_by.values().sum::<u64>()
    );
    let planned = column(browser, "throughput", 1);
    assert_eq!(planned[..2], [Some(75.0), Some(100.0)]);
    let slices = report.series.points.len().max(report.series.answered.len());
    assert!(planned.len() <= slices && planned.len() >= 2);
    let verdicts = browser.value("document.querySelector('.verdicts').innerText");
    let verdicts = verdicts.as_str().unwrap();
    for text in ["met: p99<10s", "missed: errors<1%", "lag p99"] {
        assert!(verdicts.contains(text), "{text}: {verdicts}");
    }
    let last = report.summary.latency.max;
    assert_eq!(
        *column(browser, "latency-by-percentile", 1).last().unwrap(),
        last
    );
}

#[test]
fn cold_starts() {
    let report = reports::cold();
    let cold = report.cold.as_ref().unwrap();
    let browser = &mut look("cold", &report);
    assert!(cold.wakes.len() > 100);
    let latencies: Vec<_> = cold
        .wakes
        .iter()
        .take(100)
        .map(|wake| Some(wake.latency))
        .collect();
    assert_eq!(column(browser, "cold-wakes", 2), latencies);
    let drawn = browser.value("document.querySelectorAll('#cold-wakes .plot .mark').length");
    // To be looked at as well.
    browser.value("document.querySelector('#cold-wakes .plot svg').focus()");
    browser.press("Home");
    browser.press("PageDown");
    browser.settle();
    browser.picture(&folder().join("cold-tooltip.png"));
    let parts = |wake: &Wake| {
        wake.phases
            .iter()
            .filter(|part| part.to > part.from)
            .count()
    };
    let phases: usize = cold
        .wakes
        .iter()
        .take(100)
        .map(|wake| parts(wake).max(1))
        .sum();
    assert_eq!(drawn, phases as u64);
    let medians: Vec<_> = cold.phases.iter().map(|phase| phase.latency.p50).collect();
    assert_eq!(column(browser, "cold-phases", 2), medians);
    let shares: Vec<_> = cold.owners.iter().map(|owner| Some(owner.share)).collect();
    assert_eq!(column(browser, "cold-owners", 1), shares);
    let ready: Vec<_> = cold
        .replicas
        .iter()
        .map(|moment| Some(f64::from(moment.ready)))
        .collect();
    assert_eq!(column(browser, "replicas-0", 2), ready);
    let text = browser.value("document.getElementById('cold-wakes').innerText");
    let all = cold.wakes.len() as u64 + cold.wakes_omitted;
    assert!(
        text.as_str()
            .unwrap()
            .contains(&format!("The first 100 of {all}."))
    );
}

#[test]
fn text_of_others_stays_text() {
    let report = reports::hostile();
    let browser = &mut look("hostile", &report);
    assert_eq!(
        browser.value("document.querySelectorAll('img, iframe, script:not(#report)').length"),
        1
    );
    assert_eq!(browser.value("typeof window.owned"), "undefined");
    let heading = browser.value("document.querySelector('h1').textContent");
    assert!(
        heading.as_str().unwrap().contains("</script><img"),
        "{heading}"
    );
    let kept =
        browser.value("JSON.parse(document.getElementById('report').textContent).config.url");
    assert_eq!(kept, report.config.url.as_str());
}

#[test]
fn a_report_of_no_request() {
    let report = reports::empty();
    let browser = &mut look("empty", &report);
    let text = browser.value("document.body.innerText");
    let text = text.as_str().unwrap();
    assert!(
        text.contains("no request") && !text.contains("NaN"),
        "{text}"
    );
    assert_eq!(
        browser.value("document.querySelectorAll('.plot svg').length"),
        0
    );
}

#[test]
fn without_its_script_the_page_has_all_figures() {
    let report = reports::open();
    let file = folder().join("no-script.html");
    fs::write(&file, page(&report)).unwrap();
    let mut browser = Browser::start();
    browser.show(PHONE.0, PHONE.1, "light");
    browser.ask(
        "Emulation.setScriptExecutionDisabled",
        &json!({"value": true}),
    );
    browser.open(&file);
    assert_eq!(
        browser.value("document.querySelectorAll('.plot svg').length"),
        0
    );
    let text = browser.value("document.body.innerText");
    let text = text.as_str().unwrap();
    for words in [
        "Throughput",
        "p99 latency",
        "missed: errors<1%",
        "Settings",
        "Table",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(
        browser.value("document.documentElement.scrollWidth <= innerWidth"),
        true
    );
    assert_eq!(browser.complaints(), [""; 0]);
}
