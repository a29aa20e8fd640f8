//! A pod as the activator sees it: connections to its queue-proxy, and the wait for its model.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header::HOST};
use shared::{
    headers::{OP, POD_UID, PORT, PORT_OPEN_AGE, READY_AGE, STARTED_AGE, WAIT_MS, op},
    http::{
        body::Body,
        client::{self, Client},
    },
};
use tokio::time::{Instant, sleep, timeout};

use crate::workload::Workload;

/// How long one `wait-ready` takes at most; then it is asked anew, on a connection that is known to live.
const WAIT: Duration = Duration::from_secs(30);

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) uid: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
}

/// What the queue-proxy said of its model's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Milestones {
    pub(crate) sidecar_started: Option<Instant>,
    pub(crate) port_open: Option<Instant>,
    pub(crate) model_ready: Instant,
}

impl Pod {
    pub(crate) fn new(uid: Arc<str>, address: SocketAddr, config: client::Config) -> Arc<Self> {
        Arc::new(Self {
            uid,
            address,
            client: Client::new(address, config),
        })
    }
}

/// After `first`, asks the pod's queue-proxy until its model is ready, then tells the workload. Ends early when either is
/// gone.
pub(crate) async fn await_ready(workload: Weak<Workload>, pod: Arc<Pod>, first: Duration) {
    if !first.is_zero() {
        sleep(first).await;
    }
    let began = Instant::now();
    loop {
        match ask(&pod).await {
            Ok(milestones) => {
                if let Some(workload) = workload.upgrade() {
                    workload.pod_is_ready(&pod.uid, milestones);
                }
                return;
            }
            Err(error) => tracing::trace!(pod = %pod.uid, %error, "Pod is not ready"),
        }
        sleep(pause(began.elapsed())).await;
        if workload.strong_count() == 0 {
            return;
        }
    }
}

/// A sidecar that is not there yet refuses at once, so asking often is cheap; a dead address must not be flooded. What is lost
/// by not asking at the right moment is a 32nd of what it took.
fn pause(waited: Duration) -> Duration {
    (waited / 32).clamp(Duration::from_millis(2), Duration::from_millis(250))
}

async fn ask(pod: &Pod) -> Result<Milestones, shared::BoxError> {
    let request = Request::builder()
        .method(Method::GET)
        .uri("/")
        .header(HOST, "rouse")
        .header(OP, op::WAIT_READY)
        .header(WAIT_MS, WAIT.as_millis().to_string())
        .header(POD_UID, &*pod.uid)
        .header(PORT, 0)
        .body(Body::empty())?;
    let sent = timeout(WAIT + Duration::from_secs(5), pod.client.send(request)).await?;
    let answer = sent.map_err(|error| match error {
        client::SendError::NotSent { error, .. } | client::SendError::Sent(error) => error,
    })?;
    if answer.status() != StatusCode::OK {
        return Err(format!("status {}", answer.status()).into());
    }
    let now = Instant::now();
    let at = |name| age(answer.headers(), &name).and_then(|age| now.checked_sub(age));
    Ok(Milestones {
        sidecar_started: at(STARTED_AGE),
        port_open: at(PORT_OPEN_AGE),
        model_ready: at(READY_AGE).unwrap_or(now),
    })
}

fn age(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    headers
        .get(name)?
        .to_str()
        .ok()?
        .parse()
        .ok()
        .map(Duration::from_micros)
}
