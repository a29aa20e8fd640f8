//! The bundled load tester, with its account of every request.

use std::time::Duration;

use loadtests::{
    Config, Report,
    config::{Limit, Load},
    journal::Journal,
    plan::Arrivals,
    unit::Rate,
};
use tokio::sync::watch;

use crate::ledger::Told;

/// As many requests as `connections` manage one after the other, for `length`.
pub fn closed(length: Duration) -> Load {
    Load::Closed(Limit::Duration(length))
}

/// Requests at a steady rate, whatever becomes of them, for `length`.
pub fn open(per_second: f64, length: Duration) -> Load {
    let rate = Rate::new(per_second).expect("tests have rates that make sense");
    Config::steady(rate, length, Arrivals::Constant, 1)
}

/// Loads `url` with GETs over HTTP/1.1 and returns the report with the fate of each.
pub async fn run(url: &str, connections: usize, load: Load) -> (Report, Vec<Told>) {
    let mut config = Config::new(url).expect("tests have good URLs");
    config.connections = connections;
    config.load = load;
    run_config(config).await
}

/// Loads as `config` says, on one thread, and returns the report with the fate of each request.
pub async fn run_config(mut config: Config) -> (Report, Vec<Told>) {
    let (journal, collected) = Journal::collect();
    config.threads = 1;
    config.journal = Some(journal);
    let (_running, stop) = watch::channel(false);
    let report = loadtests::run(config, |_| {}, stop)
        .await
        .expect("the load tester runs");
    let told = collected.lock().iter().map(Told::from).collect();
    (report, told)
}
