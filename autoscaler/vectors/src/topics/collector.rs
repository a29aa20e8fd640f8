//! From statistics to averages: what a workload's collection holds, and when how asking goes is news.

use autoscaler_core::{
    Aggregation, BurstCapacity, Collection, Metric, Moment, Policy, Sample, TargetSpec,
};
use serde_json::Value;

use super::Group;
use super::window::tolerance;
use crate::check::Check;
use crate::read::{
    Read, boolean, field, float, float_of, int_of, item, list, millis_of, moment, text, unknown,
};

pub(super) fn group(name: &str) -> Option<Group> {
    match name {
        "edge" | "random" => Some(Group::Replayed(replay)),
        _ => None,
    }
}

fn replay(case: &Value, check: &mut Check) -> Read<()> {
    let mut world = World::new(case)?;
    for (step, event) in list(case, "events")?.iter().enumerate() {
        let now = moment(case, field(event, "t")?)?;
        world.pass(int_of(event, "t")?);
        match text(event, "e")? {
            "scrape" => {
                let got = world.scrape(now, event)?;
                check.same(
                    format_args!("informed by event {step}"),
                    got,
                    boolean(event, "informed")?,
                );
            }
            "push" => {
                let at = moment(case, field(event, "stamp")?)?;
                world.record(at, field(event, "stat")?)?;
            }
            "metric" => world.update(now, event)?,
            "delete" => world.collection = None,
            "query" => {
                for (metric, name) in [(Metric::Concurrency, "conc"), (Metric::Rps, "rps")] {
                    let place = format!("{name} of event {step}");
                    world.query(now, metric, field(event, name)?, &place, check)?;
                }
            }
            event => return unknown("event", event),
        }
    }
    Ok(())
}

struct World {
    spec: TargetSpec,
    /// None once it is deleted.
    collection: Option<Collection>,
    scraping: bool,
    /// Milliseconds since the base at the last event.
    clock: i64,
}

impl World {
    fn new(case: &Value) -> Read<Self> {
        let aggregation = match text(case, "algorithm")? {
            "weighted-exponential" | "weightedExponential" => Aggregation::WeightedExponential,
            // Knative takes any other word for the default, too.
            _ => Aggregation::Linear,
        };
        let scraping = boolean(case, "scraping")?;
        let spec = TargetSpec {
            aggregation,
            policy: Policy::KNATIVE,
            ..Self::settings(case, scraping)?
        };
        Ok(Self {
            collection: Some(Collection::new(&spec)),
            spec,
            scraping,
            clock: 0,
        })
    }

    fn settings(value: &Value, scraping: bool) -> Read<TargetSpec> {
        Ok(TargetSpec {
            stable_window: millis_of(value, "stable_window_ms")?,
            panic_window: millis_of(value, "panic_window_ms")?,
            // An unlimited burst capacity is what turns scraping off.
            target_burst_capacity: if scraping {
                BurstCapacity::Requests(211.0)
            } else {
                BurstCapacity::Unlimited
            },
            ..TargetSpec::default()
        })
    }

    /// Time passes until `t`. Knative's scraper ticks every second also when it has nobody to ask, which is no event here.
    fn pass(&mut self, t: i64) {
        let ticked = t.div_euclid(1000) > self.clock.div_euclid(1000);
        self.clock = t;
        if let (true, false, Some(collection)) = (ticked, self.scraping, &mut self.collection) {
            let _no_news = collection.asked(Ok(()));
        }
    }

    fn scrape(&mut self, now: Moment, event: &Value) -> Read<bool> {
        let outcome = match event.get("err").and_then(Value::as_str) {
            None => Ok(()),
            Some("failed_get_endpoints") => Err("failed_get_endpoints"),
            Some("did_not_receive_stat") => Err("did_not_receive_stat"),
            Some("other") => Err("other"),
            Some(err) => return unknown("err", err),
        };
        if let Some(stat) = event.get("stat").filter(|stat| !stat.is_null()) {
            self.record(now, stat)?;
        }
        let collection = self.collection.as_mut();
        Ok(collection.is_some_and(|collection| collection.asked(outcome)))
    }

    /// What an activator passed on is the activator's to tell: Knative takes it away from what the pod counted. In Rouse a pod
    /// tells of what it has and an activator of what it holds, and nothing is both, so that there is nothing to take away.
    fn record(&mut self, at: Moment, stat: &Value) -> Read<()> {
        let sample = Sample {
            concurrency: float_of(stat, "conc")? - float_of(stat, "pconc")?,
            ..Sample::default()
        };
        let requests = float_of(stat, "req")? - float_of(stat, "preq")?;
        if let Some(collection) = &mut self.collection {
            collection.record(at, Sample { requests, ..sample }, self.spec.policy);
        }
        Ok(())
    }

    fn update(&mut self, now: Moment, event: &Value) -> Read<()> {
        self.scraping = boolean(event, "scraping")?;
        self.spec = TargetSpec {
            aggregation: self.spec.aggregation,
            policy: self.spec.policy,
            ..Self::settings(event, self.scraping)?
        };
        if let Some(collection) = &mut self.collection {
            collection.respec(now, &self.spec);
        }
        Ok(())
    }

    fn query(
        &self,
        now: Moment,
        metric: Metric,
        want: &Value,
        place: &str,
        check: &mut Check,
    ) -> Read<()> {
        let got = match &self.collection {
            None => Err("not_collecting"),
            Some(collection) => collection
                .averages(now, metric, &self.spec)
                .ok_or("no_data"),
        };
        match (got, want.as_str()) {
            (Ok(load), None) => {
                for (index, got) in [load.stable, load.panic].into_iter().enumerate() {
                    let want = float(item(want, index)?)?;
                    let near = tolerance(self.spec.aggregation, want);
                    check.near(format_args!("{place}, window {index}"), got, want, near);
                }
            }
            (Err(got), Some(want)) => check.same(place, got, want),
            (Ok(load), Some(want)) => check.differ(place, format_args!("{load:?}"), want),
            (Err(got), None) => check.differ(place, got, want),
        }
        Ok(())
    }
}
