//! Is the model ready? Asked often while it starts, at the probe's own pace afterwards.

use std::{net::SocketAddr, time::Duration};

use shared::http::probe::{Probe, ProbeError};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// How the model is asked, after the pod's readiness probe.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to ask.
    pub probe: Probe,
    /// Where.
    pub address: SocketAddr,
    /// Limit of one attempt. Kubernetes' `timeoutSeconds`, default 1 s.
    pub timeout: Duration,
    /// Between attempts once ready. Kubernetes' `periodSeconds`, default 10 s.
    pub period: Duration,
    /// Failures in a row that make a ready model unready. Kubernetes' `failureThreshold`, default 3.
    pub failure_threshold: u32,
    /// Successes in a row that make it ready. Kubernetes' `successThreshold`, default 1.
    pub success_threshold: u32,
}

impl Config {
    /// Kubernetes' defaults for a probe of `address`.
    pub fn new(probe: Probe, address: SocketAddr) -> Self {
        Self {
            probe,
            address,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            failure_threshold: 3,
            success_threshold: 1,
        }
    }
}

/// What is known of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// When its port first took a connection.
    pub port_open: Option<Instant>,
    /// When it first was ready.
    pub first_ready: Option<Instant>,
    /// Whether it is ready now.
    pub ready: bool,
}

/// Asks for ever and publishes changes.
pub async fn watch(config: Config, state: watch::Sender<Model>) {
    let started = Instant::now();
    let mut model = Model::default();
    let (mut successes, mut failures) = (0_u32, 0_u32);
    loop {
        let outcome = config.probe.ask(config.address, config.timeout).await;
        let now = Instant::now();
        if model.port_open.is_none() && !matches!(outcome, Err(ProbeError::Connect(_))) {
            model.port_open = Some(now);
        }
        if let Err(error) = outcome {
            tracing::trace!(%error, "Model is not ready");
            (successes, failures) = (0, failures.saturating_add(1));
            if failures >= config.failure_threshold {
                model.ready = false;
            }
        } else {
            (successes, failures) = (successes.saturating_add(1), 0);
            if successes >= config.success_threshold {
                model.ready = true;
                model.first_ready.get_or_insert(now);
            }
        }
        state.send_if_modified(|current| std::mem::replace(current, model) != model);
        sleep(pause(&config, &model, started.elapsed())).await;
    }
}

/// Time to the next attempt: a fiftieth of the time the start has taken so far, from 1 to 250 ms, so that asking adds
/// about one per cent to any cold start and costs a few hundred probes at most.
fn pause(config: &Config, model: &Model, starting_for: Duration) -> Duration {
    if model.first_ready.is_some() && model.ready {
        config.period
    } else if model.first_ready.is_some() {
        config.period.min(Duration::from_secs(1))
    } else {
        (starting_for / 50).clamp(Duration::from_millis(1), Duration::from_millis(250))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn asks_often_at_first_and_seldom_later() {
        let config = Config::new(Probe::Tcp, ([127, 0, 0, 1], 1).into());
        let starting = Model::default();
        let ms = Duration::from_millis;
        assert_eq!(pause(&config, &starting, ms(10)), ms(1));
        assert_eq!(pause(&config, &starting, ms(1000)), ms(20));
        assert_eq!(pause(&config, &starting, ms(600_000)), ms(250));
        let ready = Model {
            first_ready: Some(Instant::now()),
            ready: true,
            ..starting
        };
        assert_eq!(pause(&config, &ready, ms(600_000)), ms(10_000));
    }

    #[tokio::test]
    async fn notices_the_port_then_readiness() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = port.local_addr().unwrap();
        drop(port);
        let (tx, mut rx) = watch::channel(Model::default());
        let task = tokio::spawn(watch(Config::new(Probe::Tcp, address), tx));
        sleep(Duration::from_millis(30)).await;
        assert_eq!(*rx.borrow(), Model::default());
        let _port = TcpListener::bind(address).await.unwrap();
        let model = *rx.wait_for(|m| m.ready).await.unwrap();
        assert!(model.port_open.is_some() && model.first_ready.is_some());
        task.abort();
    }
}
