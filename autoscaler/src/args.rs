//! The command line and environment of `rouse-autoscaler`, and what they mean.

use std::{collections::BTreeMap, net::SocketAddr};

use autoscaler_core::{ClusterConfig, SETTINGS, TargetSpec, annotations};
use clap::Parser;
use shared::{TargetId, scale::ScaleUrl};

use crate::{BoxFuture, Scaler};

/// Asks pods and activators what they saw, decides how many replicas there should be, and writes
/// the scale.
///
/// Run alone it looks after one workload whose pods and activators are given by flags, and writes
/// the scale behind a URL, such as that of a Deployment behind kubectl proxy; without --scale-url
/// it only tells what it would do. While the scale is N, the first N of the pods count. It never
/// goes to zero without --activator, since nobody could wake the workload.
///
/// With --kubernetes it looks after every Deployment that has the label rouse.dev/enabled=true, and
/// learns of all else from the cluster. Of several such programs one leads and writes; the others
/// see and measure the same, and take over. Access is found as kubectl finds it: KUBECONFIG, then
/// the service account of the pod.
///
/// Example: what Knative's algorithm would do for one pod whose queue-proxy has
/// --stats-listen 127.0.0.1:9091 and --pod-uid a:
///
///     rouse-autoscaler --pod a=127.0.0.1:9091 --annotation autoscaling.knative.dev/target=10
///
/// Exit status: 0 after it was stopped, 2 for a flag that cannot be or a port that cannot be had.
#[derive(Debug, Parser)]
#[command(
    name = "rouse-autoscaler",
    version,
    max_term_width = 100,
    verbatim_doc_comment
)]
pub struct Args {
    /// Look after the workloads of the cluster. Flags that are about one workload are refused then.
    #[arg(
        long,
        env = "ROUSE_KUBERNETES",
        conflicts_with_all = ["pod", "activator", "scale_url", "annotation", "set"]
    )]
    pub kubernetes: bool,

    /// With --kubernetes: the namespace of Rouse itself.
    #[arg(long, env = "POD_NAMESPACE", default_value = kubernetes::names::NAMESPACE, value_name = "NAME")]
    pub namespace: String,

    /// With --kubernetes: the name of the pod that this runs in, for the Lease and for Events.
    #[arg(
        long,
        env = "POD_NAME",
        default_value = "rouse-autoscaler",
        value_name = "NAME"
    )]
    pub pod_name: String,

    /// A pod: its UID and its queue-proxy's statistics port. May be repeated.
    #[arg(long, env = "ROUSE_PODS", value_delimiter = ',', value_parser = pod, value_name = "UID=ADDR:PORT")]
    pub pod: Vec<(String, SocketAddr)>,

    /// Statistics port of an activator. May be repeated.
    #[arg(
        long,
        env = "ROUSE_ACTIVATORS",
        value_delimiter = ',',
        value_name = "ADDR:PORT"
    )]
    pub activator: Vec<SocketAddr>,

    /// The workload's scale, read every second and written when a decision differs [default: nothing is written].
    #[arg(long, env = "ROUSE_SCALE_URL", value_parser = ScaleUrl::parse, value_name = "URL")]
    pub scale_url: Option<ScaleUrl>,

    /// An annotation of the workload, such as autoscaling.knative.dev/window=30s. May be repeated.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    annotation: Vec<(String, String)>,

    /// A cluster-wide setting of Knative's config-autoscaler, such as scale-to-zero-grace-period=10s. May be repeated.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    set: Vec<(String, String)>,

    /// Address and port for /debug/decisions, /metrics (Prometheus), /livez and /readyz.
    #[arg(long, env = "ROUSE_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// The workload, for labels and for what activators hold for it.
    #[arg(
        long,
        env = "ROUSE_TARGET",
        default_value = "default/model",
        value_name = "NAMESPACE/NAME"
    )]
    pub target: TargetId,

    /// Log as JSON, one object a line. The level is set by `RUST_LOG`.
    #[arg(long, env = "ROUSE_LOG_JSON")]
    pub log_json: bool,
}

impl Args {
    /// What the annotations and settings ask for.
    ///
    /// # Errors
    /// One line for each value that cannot be: key, value and what is allowed.
    pub fn spec(&self) -> Result<TargetSpec, String> {
        let settings: BTreeMap<_, _> = self.set.iter().cloned().collect();
        if let Some(key) = settings
            .keys()
            .find(|key| !SETTINGS.iter().any(|s| s.name == **key))
        {
            return Err(format!("--set {key}: no such setting of config-autoscaler"));
        }
        let config = ClusterConfig::parse(&settings).map_err(|error| format!("--set {error}"))?;
        let annotations: BTreeMap<_, _> = self.annotation.iter().cloned().collect();
        annotations::parse(&annotations, &config)
            .map(|parsed| parsed.spec)
            .map_err(|invalid| {
                let lines: Vec<_> = invalid
                    .errors
                    .iter()
                    .map(|error| format!("--annotation {error}"))
                    .collect();
                lines.join("\n")
            })
    }
}

/// Writing by URL, or only telling.
#[derive(Clone, Debug)]
pub struct UrlScaler(pub Option<ScaleUrl>);

impl Scaler for UrlScaler {
    fn scale(&self, target: &TargetId, from: u32, to: u32) -> BoxFuture<'_, Result<bool, String>> {
        let target = target.clone();
        Box::pin(async move {
            let Some(url) = &self.0 else {
                tracing::info!(%target, from, to, "Would scale; there is no --scale-url");
                return Ok(false);
            };
            url.change(from, to)
                .await
                .map_err(|error| error.to_string())
        })
    }
}

fn pod(text: &str) -> Result<(String, SocketAddr), String> {
    let invalid = || format!("{text:?} is not a pod: expected UID=ADDRESS:PORT");
    let (uid, address) = text.split_once('=').ok_or_else(invalid)?;
    Ok((uid.to_owned(), address.parse().map_err(|_| invalid())?))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not a pair: expected KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(flags: &str) -> Result<TargetSpec, String> {
        let args = std::iter::once("rouse-autoscaler").chain(flags.split_whitespace());
        Args::try_parse_from(args)
            .map_err(|e| e.to_string())?
            .spec()
    }

    #[test]
    fn reads_annotations_and_settings() {
        let spec = spec("--annotation autoscaling.knative.dev/max-scale=5 --set stable-window=30s")
            .unwrap();
        assert_eq!(spec.max_scale.map(autoscaler_core::Replicas::get), Some(5));
        assert_eq!(spec.stable_window.as_secs(), 30);
    }

    #[test]
    fn refuses_what_cannot_be_and_says_what_can() {
        for (flags, says) in [
            (
                "--annotation autoscaling.knative.dev/target=-1",
                "autoscaling.knative.dev/target",
            ),
            ("--annotation autoscaling.knative.dev/target=NaN", "NaN"),
            ("--set stable-window=1s", "stable-window"),
            ("--set stable-windw=30s", "no such setting"),
            ("--annotation x", "KEY=VALUE"),
            ("--pod a", "UID=ADDRESS:PORT"),
            ("--kubernetes --pod a=127.0.0.1:1", "cannot be used with"),
            (
                "--kubernetes --scale-url http://127.0.0.1:1/y",
                "cannot be used with",
            ),
        ] {
            let error = spec(flags).unwrap_err();
            assert!(error.contains(says), "{flags}: {error}");
        }
    }
}
