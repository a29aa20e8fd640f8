//! The page that a browser gets while a workload sleeps.

use std::sync::Arc;

use activator::{Barred, Failed, WorkloadConfig};
use autoscaler_core::OptIns;
use shared::stat::ActivatorStat;
use tokio::time::{Duration, Instant};

use crate::{
    bed::{Bed, Pod, metrics, outcomes, until},
    http1::{Raw, ask, get},
};

const BROWSER: &str = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n\
                       sec-fetch-mode: navigate\r\n";

fn titled(title: &str) -> impl FnOnce(&mut WorkloadConfig) {
    move |config| {
        config.opt_ins = Some(Arc::new(OptIns {
            placeholder: Some(title.to_owned()),
            ..OptIns::default()
        }));
    }
}

fn visit(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: t\r\n{fields}\r\n")
}

/// What the autoscaler is told.
async fn told(bed: &Bed, target: &str) -> Option<(u64, u64)> {
    let address = bed.activator.stats_address().unwrap();
    let answer = ask(address, get("/stat?since=0", "-")).await;
    let stat = ActivatorStat::decode(&answer.body).unwrap();
    let workload = stat.workloads.into_iter().find(|w| w.target == target)?;
    let waiting = workload.seconds.iter().map(|s| s.waiting_us + s.started);
    Some((workload.held, waiting.sum()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_gets_a_page_at_once_and_the_workload_is_woken_for_it() {
    let metrics = metrics();
    let bed = Bed::new();
    let site = bed.site("page", titled("Iris & <b>co</b>"));
    assert_eq!(told(&bed, "default/page").await, None);
    let mut raw = Raw::sent(site.address(), visit("/docs?a=secret", BROWSER)).await;
    let page = raw.answer().await.unwrap();
    assert_eq!(page.status, 503);
    for (name, value) in [
        ("retry-after", "5"),
        ("cache-control", "no-store"),
        ("content-type", "text/html; charset=utf-8"),
    ] {
        assert_eq!(page.header(name), Some(value), "{}", page.head);
    }
    let html = page.text();
    assert!(
        html.len() < 4096 && html.contains("<h1>Iris &amp; &lt;b&gt;co&lt;/b&gt;</h1>"),
        "{html}"
    );
    assert!(
        !html.contains("docs") && !html.contains("secret"),
        "nothing of the request is in it"
    );
    until("woken", || bed.scale.count() == 1).await;
    assert_eq!(site.workload.held(), 0);
    assert_eq!(
        told(&bed, "default/page").await,
        Some((1, 0)),
        "as if held, and no load"
    );

    // Somebody takes it back, which its next look at the page cannot know: it is woken again meanwhile.
    site.zero();
    until("woken again", || bed.scale.count() == 2).await;
    // Nobody is sent away for want of a place, and what scripts ask for is held.
    let mut script = Raw::sent(
        site.address(),
        visit("/", "accept: text/html\r\nsec-fetch-mode: cors\r\n"),
    )
    .await;
    site.holds(1).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(script.answer().await.unwrap().header("x-model"), Some("p"));
    raw.send(visit("/docs", BROWSER)).await;
    assert_eq!(raw.answer().await.unwrap().header("x-model"), Some("p"));
    assert_eq!(
        outcomes(&metrics, "default/page"),
        [("2xx".to_owned(), 2), ("placeholder".to_owned(), 1)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_prefer_a_page_is_held() {
    let bed = Bed::new();
    let site = bed.site("a", titled("Iris"));
    let plain = bed.site("b", |_| {});
    let mut held = Vec::new();
    for (n, asked) in [
        visit("/", ""),
        visit("/", "accept: */*\r\n"),
        visit("/", "accept: application/json, text/html;q=0.9\r\n"),
        visit("/", BROWSER).replace("GET", "HEAD"),
        visit("/", &format!("{BROWSER}content-length: 0\r\n")).replace("GET", "POST"),
    ]
    .into_iter()
    .enumerate()
    {
        held.push(Raw::sent(site.address(), asked).await);
        site.holds(n + 1).await;
    }
    held.push(Raw::sent(plain.address(), visit("/", BROWSER)).await);
    plain.holds(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_will_not_wake_is_told_and_wants_nobody() {
    let bed = Bed::new();
    let site = bed.site("a", titled("Iris"));
    site.workload.bar(Some(Barred::Paused));
    let refused = ask(site.address(), visit("/", BROWSER)).await;
    assert!(
        refused.text().starts_with("rouse: paused"),
        "{}",
        refused.text()
    );
    assert_eq!((site.workload.is_wanted(), bed.scale.count()), (false, 0));

    site.workload.bar(None);
    let page = ask(site.address(), visit("/", BROWSER)).await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(site.workload.is_wanted());
    until("woken", || bed.scale.count() == 1).await;
    site.tell(|e| {
        e.failed = Some(Failed {
            reason: "ImagePullBackOff".into(),
            detail: String::new(),
            retry_at: Instant::now() + Duration::from_mins(1),
        });
    });
    until("given up", || !site.workload.is_wanted()).await;
    let refused = ask(site.address(), visit("/", BROWSER)).await;
    assert!(
        refused.text().starts_with("rouse: cannot-start"),
        "{}",
        refused.text()
    );
    assert_eq!(
        site.workload.turned_away(),
        1,
        "which is demand all the same"
    );
}
