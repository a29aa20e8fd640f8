//! `metrics.md`.

use shared::metrics::{ALL, Kind};

use crate::page::{code, section, start, table};

const TEXT: &str = "\
Prometheus metrics, served as text at `/metrics` of each program's own port: `--stats-listen` of `rouse-queue-proxy` and
`rouse-activator`, `--admin-listen` of `rouse-autoscaler`. In local mode one port has the metrics of everything in the
process; it is printed at start. The gauges of the queue-proxies are not among them: they are set when a queue-proxy's own port
is asked. A series goes with what it tells of: ten minutes after a workload was removed or left this program, so that its last
counts are seen, its series are gone; one that comes back by then goes on counting. Nothing in Rouse decides by these;
scaling reads [statistics](statistics.md).";

const LABELS: &str = "\
- `target`: `namespace/name` of the workload. The autoscaler's scrapes of activators have `activators` instead.
- `outcome`: `1xx` to `5xx` for answers of the model, else a code of [errors](errors.md), or `client-gone` (left), or
  `client-stalled` (stopped reading), or `cut` (not over by the time that a stopping program gives to what has begun); at an
  activator also `probe-answered` and `placeholder`, for what it
  [answers by itself](../guides/while-a-model-wakes.md).
- `origin`: `client`, `upstream` or `rouse`.
- `result` of wakes: `woken`, `not-at-zero`, `error`, `timeout`; of scrapes: `ok`, `error`; of writes of the scale: `ok`,
  `conflict`, `error`, `timeout`.";

pub(crate) fn page() -> String {
    let mut page = start("Metrics", TEXT);
    for (title, prefix) in [
        ("Queue-proxy", "rouse_queue_proxy_"),
        ("Activator", "rouse_activator_"),
        ("Autoscaler", "rouse_autoscaler_"),
    ] {
        section(&mut page, title, "");
        let rows = ALL
            .iter()
            .filter(|metric| metric.name.starts_with(prefix))
            .map(|metric| {
                let labels: Vec<_> = metric.labels.iter().map(|label| code(label)).collect();
                [
                    code(metric.name),
                    kind(metric.kind).to_owned(),
                    labels.join(", "),
                    metric.help.to_owned(),
                ]
            });
        table(&mut page, ["Metric", "Kind", "Labels", "Meaning"], rows);
    }
    section(&mut page, "Labels", LABELS);
    section(
        &mut page,
        "Buckets",
        "Upper bounds in seconds; `+Inf` follows.",
    );
    let rows = ALL.iter().filter_map(|metric| match metric.kind {
        Kind::Histogram(buckets) => {
            let bounds: Vec<_> = buckets.iter().map(f64::to_string).collect();
            Some([code(metric.name), bounds.join(", ")])
        }
        Kind::Counter | Kind::Gauge => None,
    });
    table(&mut page, ["Histogram", "Buckets"], rows);
    page
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}
