//! The demo's load: the bundled load tester as a library.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderValue, Method, header::CONTENT_TYPE};
use loadtests::{
    Config, Report,
    config::{Limit, Load},
};
use tokio::{sync::watch, time::Instant};

use super::{Failed, call};
use crate::local::{LocalWorkload, supervisor::Snapshot};

/// Requests at once under load: more than five replicas should have at most, by the example's target.
pub(super) const CONNECTIONS: usize = 20;
/// Length of one piece of load while waiting for replicas: between two the state is looked at.
const PIECE: Duration = Duration::from_secs(2);

/// Latencies of one way to the model: one report a round.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) rounds: Vec<Report>,
}

/// The three ways, measured side by side.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) direct: Way,
    pub(super) sidecar: Way,
    pub(super) rouse: Way,
}

async fn run(
    step: &'static str,
    url: &str,
    connections: usize,
    limit: Limit,
) -> Result<Report, Failed> {
    let failed = |error: loadtests::Error| Failed::new(step, error.to_string());
    let mut config = Config::new(url).map_err(failed)?;
    config.connections = connections;
    config.threads = 1;
    config.method = Method::POST;
    config
        .headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    config.body = call::BODY.into();
    config.load = Load::Closed(limit);
    let (_running, ends) = watch::channel(false);
    let report = loadtests::run(config, |_| {}, ends).await.map_err(failed)?;
    if report.summary.error_count > 0 || report.summary.unfinished > 0 {
        return Err(Failed::new(
            step,
            format!(
                "of {} requests {} failed and {} did not end: {:?}",
                report.summary.requests,
                report.summary.error_count,
                report.summary.unfinished,
                report.summary.errors
            ),
        ));
    }
    Ok(report)
}

/// One request at a time to the one warm replica: directly, through its queue-proxy, and through everything; in turn, so
/// that a machine that changes its speed changes all three.
pub(super) async fn three_ways(
    iris: &LocalWorkload,
    url: &str,
    rounds: usize,
    requests: u64,
) -> Result<Ways, Failed> {
    const STEP: &str = "warm latency";
    let mut ways = Ways::default();
    for round in 0..=rounds {
        // Asked anew each time: the replica may have been replaced.
        let (model, sidecar) = {
            let snapshot = iris.snapshot.borrow();
            let replica = snapshot
                .replicas
                .iter()
                .find(|replica| replica.ready && !replica.terminating);
            let replica = replica.ok_or_else(|| Failed::new(STEP, "no replica is ready"))?;
            (call::at(replica.model), call::at(replica.sidecar))
        };
        let mut arms = [
            (&mut ways.direct, model),
            (&mut ways.sidecar, sidecar),
            (&mut ways.rouse, url.to_owned()),
        ];
        // Each way is the first, the second and the last equally often.
        arms.rotate_left(round % 3);
        for (way, url) in arms {
            let report = run(STEP, &url, 1, Limit::Requests(requests)).await?;
            // The first round warms all three up.
            if round > 0 {
                way.rounds.push(report);
            }
        }
    }
    Ok(ways)
}

/// Sends load until `reached`.
pub(super) async fn until(
    url: &str,
    reached: impl Fn() -> bool,
    limit: Duration,
) -> Result<Vec<Report>, Failed> {
    const STEP: &str = "scale out";
    let started = Instant::now();
    let mut reports = Vec::new();
    while !reached() {
        if started.elapsed() > limit {
            return Err(Failed::new(
                STEP,
                format!("not enough replicas within {} s of load", limit.as_secs()),
            ));
        }
        reports.push(run(STEP, url, CONNECTIONS, Limit::Duration(PIECE)).await?);
    }
    Ok(reports)
}

/// Load on all replicas, measured.
pub(super) async fn steady(url: &str, length: Duration) -> Result<Report, Failed> {
    run(
        "load on all replicas",
        url,
        CONNECTIONS,
        Limit::Duration(length),
    )
    .await
}

/// Requests that each replica has been given so far, by UID.
pub(super) fn served(snapshot: &Arc<Snapshot>) -> HashMap<Arc<str>, u64> {
    let replicas = snapshot.replicas.iter();
    replicas
        .map(|replica| (Arc::clone(&replica.uid), replica.proxy.stats().totals().0))
        .collect()
}

/// Each replica's share of the requests since `before`, in the order of the replicas.
#[allow(clippy::cast_precision_loss, reason = "shares for people")]
pub(super) fn shares(
    before: &HashMap<Arc<str>, u64>,
    snapshot: &Arc<Snapshot>,
) -> Vec<(Arc<str>, f64)> {
    let now = served(snapshot);
    let gained = |uid: &Arc<str>| now[uid] - before.get(uid).copied().unwrap_or(0).min(now[uid]);
    let all: u64 = now.keys().map(gained).sum();
    let replicas = snapshot.replicas.iter();
    replicas
        .map(|replica| {
            (
                Arc::clone(&replica.uid),
                gained(&replica.uid) as f64 / all.max(1) as f64,
            )
        })
        .collect()
}

/// Every replica has its part: between half and twice its fair share.
pub(super) fn check_even(shares: &[(Arc<str>, f64)], count: u32) -> Result<(), Failed> {
    let fair = 1.0 / f64::from(count);
    let even = shares.len() == count as usize
        && shares
            .iter()
            .all(|(_, share)| *share > fair / 2.0 && *share < fair * 2.0);
    if even {
        Ok(())
    } else {
        Err(Failed::new(
            "load on all replicas",
            format!("it is spread unevenly: {shares:.2?}"),
        ))
    }
}
