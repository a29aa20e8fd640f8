//! The command line and environment of `rouse-activator`, and what they mean.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ::kubernetes::names;
use clap::Parser;
use shared::{
    TargetId,
    http::{body::Pace, client, sanitize::TrustedProxies, serve, tls::TlsError},
    scale::ScaleUrl,
};

use crate::{
    BoxFuture, Config, Endpoint, Endpoints, InPath, Lookups, Scale, WakeError, WakeOutcome,
    WorkloadConfig,
    config::{MAX_HELD, max_connections},
    kubernetes,
};

/// Holds requests while a workload has no pod, wakes it, and hands them out.
///
/// Run alone it serves one workload whose pods are given by flags, and wakes it by writing the
/// scale behind a URL, such as that of a Deployment behind kubectl proxy. With --kubernetes it learns
/// of workloads and pods from a cluster instead, and is its admission webhook.
///
/// Example: one pod whose queue-proxy has --activator-listen 127.0.0.1:8030 and --pod-uid a:
///
///     rouse-activator --listen 127.0.0.1:8080 --pod a=127.0.0.1:8030
///
/// Exit status: 0 after it was stopped, 2 for a flag that cannot be, a file that cannot be used, or a
/// port that cannot be had.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, Parser)]
#[command(
    name = "rouse-activator",
    version,
    max_term_width = 100,
    verbatim_doc_comment
)]
pub struct Args {
    /// Address and port for requests. May be repeated: the n-th is for the n-th port of every pod.
    #[arg(
        long,
        env = "ROUSE_LISTEN",
        required_unless_present = "kubernetes",
        value_delimiter = ',',
        value_name = "ADDR:PORT"
    )]
    pub listen: Vec<SocketAddr>,

    /// Serve the enabled workloads of a cluster, found as kubectl finds it or from the pod's service account. They are
    /// listened for on the ports that the autoscaler claims; the admission webhook is served too.
    #[arg(long, env = "ROUSE_KUBERNETES", conflicts_with_all = ["listen", "pod", "scale_url", "target", "wake_replicas", "container_concurrency", "max_held", "max_cold_start", "always_in_path"])]
    pub kubernetes: bool,

    /// Cluster: the namespace of Rouse.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::NAMESPACE, value_name = "NAMESPACE")]
    namespace: String,

    /// Cluster: this activator's name in Events [default: the host's].
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    instance: Option<String>,

    /// Cluster: addresses to listen on for requests [default: all, of IPv4 and IPv6 as far as there are].
    #[arg(
        long,
        env = "ROUSE_LISTEN_IPS",
        value_delimiter = ',',
        value_name = "IPS"
    )]
    listen_ips: Vec<IpAddr>,

    /// Cluster: seconds that a pod may wait for a node before its requests are refused; one may be on its way.
    #[arg(long, env = "ROUSE_UNSCHEDULABLE_PATIENCE", default_value_t = 120, value_parser = clap::value_parser!(u32).range(0..=86_400), value_name = "SECONDS")]
    unschedulable_patience: u32,

    /// Cluster: seconds from SIGTERM for which new requests are still taken, until everybody knows that this one leaves.
    #[arg(long, env = "ROUSE_LEAVE_DELAY", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3_600), value_name = "SECONDS")]
    leave_delay: u32,

    /// Cluster: address and port of the admission webhook.
    #[arg(
        long,
        env = "ROUSE_WEBHOOK_LISTEN",
        default_value = "0.0.0.0:8443",
        value_name = "ADDR:PORT"
    )]
    webhook_listen: SocketAddr,

    /// Cluster: image of the sidecars.
    #[arg(
        long,
        env = "ROUSE_SIDECAR_IMAGE",
        default_value = "rouse:dev",
        value_name = "IMAGE"
    )]
    sidecar_image: String,

    /// Cluster: when the sidecars' image is pulled [default: as Kubernetes decides].
    #[arg(long, env = "ROUSE_SIDECAR_IMAGE_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"], value_name = "POLICY")]
    sidecar_image_pull_policy: Option<String>,

    /// A pod: its UID and its queue-proxy's port for activators. May be repeated.
    #[arg(long, env = "ROUSE_PODS", value_delimiter = ',', value_parser = pod, value_name = "UID=ADDR:PORT")]
    pod: Vec<Endpoint>,

    /// The workload's scale, read every second and written from 0 to N [default: never woken].
    #[arg(long, env = "ROUSE_SCALE_URL", value_parser = ScaleUrl::parse, value_name = "URL")]
    pub scale_url: Option<ScaleUrl>,

    /// Replicas to wake to.
    #[arg(long, env = "ROUSE_WAKE_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    wake_replicas: u32,

    /// Requests at one pod at once; 0 = unlimited.
    #[arg(long, env = "ROUSE_CONTAINER_CONCURRENCY", default_value_t = 0, allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(0..=1_000), value_name = "N")]
    container_concurrency: u32,

    /// Requests held at once; more are answered 503 with Retry-After.
    #[arg(long, env = "ROUSE_MAX_HELD", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    max_held: u32,

    /// Requests held at once over all workloads; one workload gets no more than are still free [default: 20000, or twice --max-held].
    #[arg(long, env = "ROUSE_MAX_HELD_TOTAL", value_parser = clap::value_parser!(u32).range(2..=10_000_000), value_name = "N")]
    max_held_total: Option<u32>,

    /// Client connections at once over all workloads; one workload gets no more than are still free [default: 20000, or half of
    /// the limit on open files]. More are answered 503 and closed.
    #[arg(long, env = "ROUSE_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(2..=10_000_000), value_name = "N")]
    max_connections: Option<u32>,

    /// Seconds that a request is held at most; then it is answered 504.
    #[arg(long, env = "ROUSE_MAX_COLD_START", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400), value_name = "SECONDS")]
    max_cold_start: u32,

    /// Keep connections although pods are ready, instead of closing them so that the next ones go to a pod.
    #[arg(long, env = "ROUSE_ALWAYS_IN_PATH")]
    always_in_path: bool,

    /// Address and port for /stat (the autoscaler), /debug/wakes, /metrics (Prometheus), /livez and /readyz.
    #[arg(long, env = "ROUSE_STATS_LISTEN", value_name = "ADDR:PORT")]
    stats_listen: Option<SocketAddr>,

    /// Networks whose X-Forwarded-* headers are believed, comma-separated [default: none, they are replaced].
    #[arg(long, env = "ROUSE_TRUSTED_PROXIES", value_parser = TrustedProxies::parse, value_name = "CIDRS")]
    trusted_proxies: Option<TrustedProxies>,

    /// The workload, for labels.
    #[arg(
        long,
        env = "ROUSE_TARGET",
        default_value = "default/model",
        value_name = "NAMESPACE/NAME"
    )]
    target: TargetId,

    /// Seconds that held requests get to be handed out when the activator is stopped.
    #[arg(long, env = "ROUSE_GRACE", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3_600), value_name = "SECONDS")]
    grace: u32,

    /// Longest time in seconds in which a client may take nothing of an answer that is there for it; 0 = no limit. Then it is cut, and
    /// its place at the pod is free. It must take about 1 KB/s to be seen to read.
    #[arg(long, env = "ROUSE_SEND_TIMEOUT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400), value_name = "SECONDS")]
    send_timeout: u32,

    /// Leave out of answers the rouse-timing header, and what is added to Server-Timing.
    #[arg(long, env = "ROUSE_NO_TIMING_HEADER")]
    no_timing_header: bool,

    /// Bytes a second that a client has to send of a request body while it is waited for, after 30 s of grace; 0 = no limit. Less is
    /// answered 408. Bodies of gRPC and Connect have no limit.
    #[arg(long, env = "ROUSE_MIN_BODY_RATE", default_value_t = 240, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000), value_name = "BYTES")]
    min_body_rate: u32,

    /// Threads that serve requests; 0 = one per CPU.
    #[arg(long, env = "ROUSE_WORKER_THREADS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256), value_name = "N")]
    pub worker_threads: u16,

    #[command(flatten)]
    tls: flags::Listeners,

    #[command(flatten)]
    upstream_tls: flags::Upstream,

    #[command(flatten)]
    pub recording: flags::Recording,

    /// Log as JSON, one object a line. The level is set by `RUST_LOG`.
    #[arg(long, env = "ROUSE_LOG_JSON")]
    pub log_json: bool,
}

impl Args {
    /// Settings of the process. Reads the files that were given.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn config(&self) -> Result<Config, TlsError> {
        let on_cluster = self
            .kubernetes
            .then(|| SocketAddr::from(([0, 0, 0, 0], names::ACTIVATOR_STATS_PORT)));
        let default = Config::default();
        Ok(Config {
            stats: self.stats_listen.or(on_cluster),
            trusted: self.trusted_proxies.clone().unwrap_or_default(),
            serve: serve::Config {
                send: Some(Duration::from_secs(self.send_timeout.into())).filter(|t| !t.is_zero()),
                ..serve::Config::default()
            },
            min_pace: Pace::at_least(self.min_body_rate),
            timing_header: !self.no_timing_header,
            // One workload alone gets half.
            max_held: self.max_held_total.map_or_else(
                || MAX_HELD.max(2 * self.max_held as usize),
                |total| total as usize,
            ),
            max_connections: self
                .max_connections
                .map_or_else(max_connections, |most| most as usize),
            // Kubernetes' word for it, and nothing more.
            explain_failures: self.kubernetes,
            tls: self.tls.load()?,
            client: client::Config {
                tls: self.upstream_tls.load()?,
                ..default.client
            },
            ..default
        })
    }

    /// Settings of the workload.
    pub fn workload(&self) -> WorkloadConfig {
        let mut config = WorkloadConfig::new(self.target.clone());
        config.container_concurrency = self.container_concurrency;
        config.wake_replicas = self.wake_replicas;
        config.max_held = self.max_held as usize;
        config.max_cold_start = Duration::from_secs(u64::from(self.max_cold_start));
        if self.always_in_path {
            config.in_path = InPath::Always;
        }
        config
    }

    /// The pods that were given, for a workload with `replicas`.
    pub fn endpoints(&self, replicas: u32) -> Arc<Endpoints> {
        Arc::new(Endpoints {
            replicas,
            pods: if replicas == 0 {
                Vec::new()
            } else {
                self.pod.clone()
            },
            failed: None,
        })
    }

    /// Settings of the cluster's side, where it is asked of `lookups` whose an address is.
    pub fn cluster(&self, lookups: Lookups) -> kubernetes::Settings {
        kubernetes::Settings {
            namespace: self.namespace.clone(),
            listen: match self.listen_ips.as_slice() {
                [] => kubernetes::everywhere(),
                given => given.to_vec(),
            },
            unschedulable_patience: Duration::from_secs(self.unschedulable_patience.into()),
            lookups,
        }
    }

    /// Settings of the webhook.
    pub fn admission(&self) -> kubernetes::Admission {
        let mut settings = webhook::Settings::new(self.sidecar_image.clone());
        // The one image has a name for each program.
        settings.command = vec!["rouse-queue-proxy".to_owned()];
        settings
            .image_pull_policy
            .clone_from(&self.sidecar_image_pull_policy);
        settings.namespace.clone_from(&self.namespace);
        kubernetes::Admission {
            listen: self.webhook_listen,
            settings,
        }
    }

    /// This activator's name in Events.
    pub fn instance(&self) -> String {
        let host = || std::env::var("HOSTNAME").ok();
        let given = self.instance.clone().or_else(host);
        given.unwrap_or_else(|| names::ACTIVATOR_MANAGER.to_owned())
    }

    /// How long new requests are still taken after SIGTERM.
    pub fn leave_delay(&self) -> Duration {
        Duration::from_secs(self.leave_delay.into())
    }

    /// How long held requests get at the end.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.grace))
    }
}

/// Waking by URL.
#[derive(Clone, Debug)]
pub struct UrlScale(pub Option<ScaleUrl>);

impl Scale for UrlScale {
    fn wake(
        &self,
        target: &TargetId,
        replicas: u32,
    ) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        let target = target.clone();
        Box::pin(async move {
            let error = |reason: String| WakeError { target, reason };
            let Some(url) = &self.0 else {
                return Err(error("there is no --scale-url".to_owned()));
            };
            match url.change(0, replicas).await {
                Ok(true) => Ok(WakeOutcome::Woken),
                Ok(false) => Ok(WakeOutcome::NotAtZero),
                Err(cause) => Err(error(cause.to_string())),
            }
        })
    }
}

fn pod(text: &str) -> Result<Endpoint, String> {
    let invalid = || format!("{text:?} is not a pod: expected UID=ADDRESS:PORT");
    let (uid, address) = text.split_once('=').ok_or_else(invalid)?;
    Ok(Endpoint {
        uid: uid.into(),
        address: address.parse().map_err(|_| invalid())?,
        terminating: false,
        created: None,
        scheduled: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be_and_says_what_can() {
        for (flags, says) in [
            ("", "--listen"),
            ("--listen 127.0.0.1:1 --pod x", "UID=ADDRESS:PORT"),
            ("--kubernetes --listen 127.0.0.1:1", "cannot be used with"),
            ("--kubernetes --target a/b", "cannot be used with"),
            ("--kubernetes --max-held 5", "cannot be used with"),
            (
                "--kubernetes --sidecar-image-pull-policy no",
                "IfNotPresent",
            ),
            ("--listen 127.0.0.1:1 --max-held 0", "1..=1000000"),
            (
                "--listen 127.0.0.1:1 --scale-url https://a",
                "http://ADDRESS:PORT/PATH",
            ),
            (
                "--listen 127.0.0.1:1 --request-log {nobody}",
                "no field \"nobody\": expected one of time, program",
            ),
            ("--listen 127.0.0.1:1 --request-log-probes", "--request-log"),
            (
                "--listen 127.0.0.1:1 --container-concurrency -1",
                "container-concurrency",
            ),
            ("--listen 127.0.0.1:1 --tls-key a", "--tls-certificate"),
            ("--kubernetes --tls-client-ca a", "--tls-certificate"),
            ("--kubernetes --upstream-tls-name a", "--upstream-tls-ca"),
            (
                "--kubernetes --upstream-tls-ca a --upstream-tls-name spiffe://a/*/b",
                "may be * for any rest",
            ),
        ] {
            let args = std::iter::once("rouse-activator").chain(flags.split_whitespace());
            let error = Args::try_parse_from(args).unwrap_err().to_string();
            assert!(error.contains(says), "{flags}: {error}");
        }
    }

    #[test]
    fn a_file_of_tls_that_cannot_be_used_is_named_with_its_flag() {
        for (flags, says) in [
            (
                "--tls-certificate /none.crt --tls-key /none.key",
                "--tls-certificate /none.crt: cannot be read: No such file",
            ),
            (
                "--upstream-tls-ca /dev/null --upstream-tls-name a",
                "--upstream-tls-ca /dev/null: has no certificate",
            ),
        ] {
            let flags = format!("rouse-activator --kubernetes {flags}");
            let args = Args::try_parse_from(flags.split_whitespace()).unwrap();
            let error = args.config().unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
