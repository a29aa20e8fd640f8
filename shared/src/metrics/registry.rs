//! Every series there is, for as long as what it tells of is there, and its text for Prometheus.
//!
//! The recorder of `metrics-exporter-prometheus` keeps a series for ever, or takes it away from handles that are still in use
//! once it was idle. Workloads come and go: here a series goes with its workload, and only then. The text is that crate's.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString,
    Unit,
};
use metrics_exporter_prometheus::{
    LabelSet,
    formatting::{write_help_line, write_metric_line, write_type_line},
};
use parking_lot::{Mutex, RwLock};

use super::{ALL, Kind, Metric};

/// The label that says whose a series is; the first one of a metric that has it.
const TARGET: &str = "target";
/// How long series are told after their workload has gone. Longer than anybody's pause between two scrapes, so that the last
/// counts are seen.
pub const KEPT: Duration = Duration::from_mins(10);

/// Label values, in the order of [`Metric::labels`].
type Values = Box<[Box<str>]>;

/// All series of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exporter(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    families: Vec<Family>,
    tenants: Mutex<Tenants>,
}

/// The series of one metric.
#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    series: RwLock<HashMap<Values, Series>>,
}

/// A value, as its kind of metric has it.
#[derive(Clone, Debug)]
enum Series {
    Number(Arc<AtomicU64>),
    Distribution(Arc<Distribution>),
}

/// Observations in buckets.
#[derive(Debug)]
struct Distribution {
    bounds: &'static [f64],
    /// One for each bound, and the rest.
    counts: Box<[AtomicU64]>,
    /// A float's bits.
    sum: AtomicU64,
}

/// Whose series there are.
#[derive(Debug, Default)]
struct Tenants {
    /// Tenures of each.
    present: HashMap<Arc<str>, u32>,
    /// Since when there is nobody of the name.
    gone: HashMap<Arc<str>, Instant>,
}

/// Keeps the series of one target. They are told for [`KEPT`] after the last tenure of the name has ended.
#[derive(Debug)]
pub struct Tenure {
    exporter: Option<Exporter>,
    /// The very one that is a key of the table: there are many workloads.
    target: Arc<str>,
}

impl Exporter {
    pub(super) fn new() -> Self {
        let families = ALL.iter().map(|metric| Family {
            metric,
            series: RwLock::default(),
        });
        Self(Arc::new(Registry {
            families: families.collect(),
            tenants: Mutex::default(),
        }))
    }

    /// Keeps the series of `target` while what is returned lives.
    pub fn tenure(&self, target: &str) -> Tenure {
        let mut tenants = self.0.tenants.lock();
        tenants.gone.remove(target);
        let known = tenants.present.get_key_value(target);
        let target = known.map_or_else(|| target.into(), |(known, _)| Arc::clone(known));
        *tenants.present.entry(Arc::clone(&target)).or_default() += 1;
        Tenure {
            exporter: Some(self.clone()),
            target,
        }
    }

    /// Forgets series whose target has been gone for [`KEPT`] at `now`.
    pub fn forget(&self, now: Instant) {
        let mut tenants = self.0.tenants.lock();
        let mut over = HashSet::new();
        tenants.gone.retain(|target, since| {
            let stays = now.saturating_duration_since(*since) < KEPT;
            if !stays {
                over.insert(target.clone());
            }
            stays
        });
        if over.is_empty() {
            return;
        }
        tenants.gone.shrink_to_fit();
        for family in &self.0.families {
            if family.metric.labels.first() == Some(&TARGET) {
                let mut series = family.series.write();
                series.retain(|values, _| !over.contains(&*values[0]));
                series.shrink_to_fit();
            }
        }
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        let families = self.0.families.iter();
        families.map(|family| family.series.read().len()).sum()
    }

    /// Everything in Prometheus' text format (version 0.0.4).
    pub fn render(&self) -> String {
        let mut text = String::new();
        for family in &self.0.families {
            let series = family.series.read();
            if !series.is_empty() {
                family.write(&series, &mut text);
            }
        }
        text
    }

    /// The series of `key`, made if there is none; none if the metric is not in the table, or of another kind.
    fn series_of(&self, key: &Key, is_wanted: fn(Kind) -> bool) -> Option<Series> {
        let family = self.0.families.iter();
        let family = family
            .filter(|family| is_wanted(family.metric.kind))
            .find(|family| family.metric.name == key.name())?;
        let values: Values = key.labels().map(|label| label.value().into()).collect();
        if values.len() != family.metric.labels.len() {
            return None;
        }
        // Before, and while, it is made, so that whoever forgets sees both or neither.
        let mut tenants = self.0.tenants.lock();
        if family.metric.labels.first() == Some(&TARGET)
            && !tenants.present.contains_key(&*values[0])
        {
            tenants.gone.insert((&*values[0]).into(), Instant::now());
        }
        let mut series = family.series.write();
        let made = || Series::new(family.metric.kind);
        Some(series.entry(values).or_insert_with(made).clone())
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        let Some(exporter) = &self.exporter else {
            return;
        };
        let mut tenants = exporter.0.tenants.lock();
        if let Some(tenures) = tenants.present.get_mut(&self.target) {
            *tenures -= 1;
            if *tenures == 0 {
                tenants.present.remove(&self.target);
                let target = Arc::clone(&self.target);
                tenants.gone.insert(target, Instant::now());
            }
        }
    }
}

impl Tenure {
    /// One that keeps nothing, where nothing is recorded.
    pub(super) fn of_nothing() -> Self {
        Self {
            exporter: None,
            target: "".into(),
        }
    }
}

impl Family {
    fn write(&self, series: &HashMap<Values, Series>, text: &mut String) {
        let Metric {
            name, help, labels, ..
        } = self.metric;
        let kind = match self.metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        write_help_line(text, name, None, None, help);
        write_type_line(text, name, None, None, kind);
        for (values, series) in series {
            let pairs = labels.iter().zip(values);
            let pairs = pairs.map(|(label, value)| Label::new(*label, value.to_string()));
            let key = Key::from_parts(*name, pairs.collect::<Vec<_>>());
            #[expect(
                clippy::default_trait_access,
                reason = "its crate is nobody's business here"
            )]
            let set = LabelSet::from_key_and_global(&key, &Default::default());
            let plain = None::<(&'static str, &str)>;
            match series {
                Series::Number(value) if self.metric.kind == Kind::Counter => {
                    let value = value.load(Relaxed);
                    write_metric_line(text, name, None, &set, plain, value, None);
                }
                Series::Number(value) => {
                    let value = f64::from_bits(value.load(Relaxed));
                    write_metric_line(text, name, None, &set, plain, value, None);
                }
                Series::Distribution(distribution) => {
                    let mut count = 0;
                    let bounds = distribution.bounds.iter().map(f64::to_string);
                    let bounds = bounds.chain(["+Inf".to_owned()]);
                    for (bound, seen) in bounds.zip(&distribution.counts) {
                        count += seen.load(Relaxed);
                        let bound = Some(("le", bound));
                        write_metric_line(text, name, Some("bucket"), &set, bound, count, None);
                    }
                    let sum = f64::from_bits(distribution.sum.load(Relaxed));
                    write_metric_line(text, name, Some("sum"), &set, plain, sum, None);
                    write_metric_line(text, name, Some("count"), &set, plain, count, None);
                }
            }
        }
        text.push('\n');
    }
}

impl Series {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter | Kind::Gauge => Self::Number(Arc::default()),
            Kind::Histogram(bounds) => Self::Distribution(Arc::new(Distribution {
                bounds,
                counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
                sum: AtomicU64::new(0),
            })),
        }
    }
}

impl HistogramFn for Distribution {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        let _always = self.sum.fetch_update(Relaxed, Relaxed, add);
    }
}

impl Recorder for Exporter {
    // The table describes them.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series_of(key, |kind| kind == Kind::Counter) {
            Some(Series::Number(number)) => Counter::from_arc(number),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series_of(key, |kind| kind == Kind::Gauge) {
            Some(Series::Number(number)) => Gauge::from_arc(number),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.series_of(key, |kind| matches!(kind, Kind::Histogram(_))) {
            Some(Series::Distribution(distribution)) => Histogram::from_arc(distribution),
            _ => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::{Level, with_local_recorder};

    use super::*;
    use crate::metrics::{ACTIVATOR_HELD, ACTIVATOR_HOLD, ACTIVATOR_REQUESTS, AUTOSCALER_LEADER};

    #[test]
    fn writes_what_prometheus_reads() {
        let exporter = Exporter::new();
        let _tenure = exporter.tenure("a/b");
        with_local_recorder(&exporter, || {
            ACTIVATOR_REQUESTS
                .counter(&["a/b", "2xx", "up\"\n"])
                .increment(3);
            ACTIVATOR_HELD.gauge(&["a/b"]).set(1.5);
            AUTOSCALER_LEADER.gauge(&[]).set(1.0);
            let hold = ACTIVATOR_HOLD.histogram(&["a/b"]);
            for value in [0.05, 0.06, 1_000.0] {
                hold.record(value);
            }
        });
        let text = exporter.render();
        for line in [
            "# TYPE rouse_activator_requests_total counter",
            r#"rouse_activator_requests_total{target="a/b",outcome="2xx",origin="up\"\n"} 3"#,
            r#"rouse_activator_held_requests{target="a/b"} 1.5"#,
            "rouse_autoscaler_leader 1",
            r#"rouse_activator_hold_duration_seconds_bucket{target="a/b",le="0.05"} 1"#,
            r#"rouse_activator_hold_duration_seconds_bucket{target="a/b",le="0.1"} 2"#,
            r#"rouse_activator_hold_duration_seconds_bucket{target="a/b",le="600"} 2"#,
            r#"rouse_activator_hold_duration_seconds_bucket{target="a/b",le="+Inf"} 3"#,
            r#"rouse_activator_hold_duration_seconds_sum{target="a/b"} 1000.11"#,
            r#"rouse_activator_hold_duration_seconds_count{target="a/b"} 3"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let unknown = Key::from_parts("other", vec![Label::new("a", "b")]);
        let metadata = Metadata::new("", Level::INFO, None);
        exporter.register_counter(&unknown, &metadata).increment(1);
        assert_eq!(
            exporter.render(),
            text,
            "what is not in the table is not told"
        );
    }

    #[test]
    fn series_go_with_their_workload_and_not_before_they_could_be_scraped() {
        let exporter = Exporter::new();
        let count = |target: &str| {
            with_local_recorder(&exporter, || {
                ACTIVATOR_REQUESTS
                    .counter(&[target, "2xx", "upstream"])
                    .increment(1);
            });
        };
        let soon = || Instant::now() + KEPT / 2;
        let late = || Instant::now() + KEPT;
        let has = |target: &str| exporter.render().contains(&format!("target=\"{target}\""));
        let (stays, goes) = (exporter.tenure("a/stays"), exporter.tenure("a/goes"));
        count("a/stays");
        count("a/goes");
        count("a/never-was");
        drop(goes);
        exporter.forget(soon());
        assert!(has("a/stays") && has("a/goes") && has("a/never-was"));
        // One that comes back in time goes on counting, and outlives whoever was there before.
        let again = (exporter.tenure("a/goes"), exporter.tenure("a/goes"));
        count("a/goes");
        drop(again.0);
        exporter.forget(late());
        assert!(has("a/stays") && has("a/goes") && !has("a/never-was"));
        assert!(
            exporter
                .render()
                .contains("target=\"a/goes\",outcome=\"2xx\",origin=\"upstream\"} 2")
        );
        drop(again.1);
        exporter.forget(late());
        assert!(has("a/stays") && !has("a/goes"));
        drop(stays);
        exporter.forget(late());
        assert_eq!((exporter.series(), exporter.render()), (0, String::new()));
    }
}
