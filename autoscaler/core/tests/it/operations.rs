//! A decider under any list of operations: what must hold after each, whatever they were.
//!
//! The list comes from bytes, so that the same check is driven by random bytes in the tests and by a fuzzer that looks at
//! the code it reaches: `cargo fuzz run operations` in `autoscaler/core`, see `fuzz/README.md`.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use autoscaler_core::{
    Decider, Decision, Learned, Metric, Mode, Moment, Observed, Reason, Replicas, Sample,
    StartClass, Starting, TargetSpec,
};

/// Operations of one list at most.
const MOST: usize = 400;

/// One call.
#[derive(Arbitrary, Debug)]
enum Operation {
    /// A sample, dated so many milliseconds before now; any numbers.
    Record { ago: u16, numbers: [f64; 4] },
    /// A sample that can be one.
    Load {
        concurrency: u16,
        waiting: u16,
        requests: u16,
        ended: u16,
    },
    /// Time passes.
    Pass { millis: u16 },
    /// The clock jumps, perhaps back.
    Jump { to: u64 },
    /// A decision about what is seen.
    Decide { seen: Seen },
    /// Other settings.
    Respec { settings: Settings },
    /// A pod was ready after so long.
    Started {
        template: u8,
        image_present: bool,
        millis: u32,
    },
    /// Everything learned is taken out and handed back.
    Recall,
}

/// What is seen of pods.
#[derive(Arbitrary, Debug)]
struct Seen {
    ready: u8,
    /// Ages of starting pods in seconds.
    starting: Vec<u16>,
    failed: u8,
    current: u8,
    held: u16,
    open: Option<u16>,
    reachable: bool,
}

#[derive(Arbitrary, Debug)]
struct Settings {
    rps: bool,
    window: u16,
    panic_window: u8,
    target: u16,
    min: u8,
    max: Option<u8>,
    initial: u8,
    activation: Option<u8>,
    delay: u16,
    clear: u16,
    min_stay: Option<u16>,
    aware: bool,
    zero: bool,
}

impl Settings {
    fn spec(&self) -> TargetSpec {
        let default = TargetSpec::default();
        let seconds = |seconds: u16| Duration::from_secs(seconds.into());
        let total = f64::from(self.target.max(1)) / 10.0;
        let mut policy = default.policy;
        policy.cold_start_aware = self.aware;
        let min = Replicas(self.min.into());
        TargetSpec {
            metric: if self.rps {
                Metric::Rps
            } else {
                Metric::Concurrency
            },
            total,
            target: (total * 0.7).max(0.01),
            stable_window: seconds(self.window.clamp(6, 3600)),
            panic_window: Duration::from_secs(u64::from(self.panic_window.max(1))),
            min_scale: min,
            max_scale: self
                .max
                .map(|max| Replicas(max.into()).max(min).max(Replicas::ONE)),
            initial_scale: Replicas(self.initial.into()),
            activation_scale: self.activation.map(|scale| Replicas(scale.into())),
            scale_down_delay: seconds(self.delay.min(3600)),
            backlog_clear_time: seconds(self.clear.max(1)),
            min_stay: self.min_stay.map(seconds),
            enable_scale_to_zero: self.zero,
            policy,
            ..default
        }
    }
}

/// Reads operations from `bytes` and carries them out.
///
/// # Panics
///
/// If something does not hold.
pub(crate) fn check(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let mut now = Moment::from_secs(1_000_000);
    let mut decider = Decider::new(TargetSpec::default(), now, Replicas(1));
    let mut latest = now;
    let mut backward = 0;
    // What was asked for when panic was last seen, until it is over.
    let mut panic: Option<Replicas> = None;
    for _ in 0..MOST {
        if bytes.is_empty() {
            return;
        }
        let Ok(operation) = Operation::arbitrary(&mut bytes) else {
            return;
        };
        match operation {
            Operation::Record { ago, numbers } => {
                let at = now - Duration::from_millis(ago.into());
                let [concurrency, requests, waiting, ended] = numbers;
                decider.record(
                    at,
                    Sample {
                        concurrency,
                        requests,
                        waiting,
                        ended,
                    },
                );
            }
            Operation::Load {
                concurrency,
                waiting,
                requests,
                ended,
            } => {
                decider.record(
                    now,
                    Sample {
                        concurrency: f64::from(concurrency).max(f64::from(waiting)),
                        requests: requests.into(),
                        waiting: waiting.into(),
                        ended: ended.into(),
                    },
                );
            }
            Operation::Pass { millis } => now = now + Duration::from_millis(millis.into()),
            Operation::Jump { to } => now = Moment::from_nanos(to),
            Operation::Decide { seen } => {
                backward += u64::from(now < latest);
                latest = latest.max(now);
                let seen = observed(now, &decider, &seen);
                let decision = decider.decide(now, &seen);
                sound(&decision, &decider, &seen);
                assert_eq!(decision.inputs.at, latest, "time went back");
                panic = match (decider.kpa().panic().is_panicking(), decision.desired) {
                    (true, Some(_)) => {
                        let peak = decider.kpa().panic().peak();
                        assert!(panic.is_none_or(|before| peak >= before), "{decision}");
                        Some(peak)
                    }
                    (true, None) => panic,
                    (false, _) => None,
                };
            }
            Operation::Respec { settings } => {
                backward += u64::from(now < latest);
                latest = latest.max(now);
                decider.respec(now, settings.spec());
            }
            Operation::Started {
                template,
                image_present,
                millis,
            } => decider.learn_start(
                &class(template, image_present),
                Duration::from_millis(millis.into()),
            ),
            Operation::Recall => {
                let learned = decider.learned().clone();
                assert!(learned.is_sound(), "{learned:?}");
                decider.recall(Learned::default());
                decider.recall(learned);
            }
        }
        assert_eq!(decider.refused().backward, backward);
    }
}

fn class(template: u8, image_present: bool) -> StartClass {
    StartClass {
        template: format!("t{template}").into(),
        image_present,
    }
}

fn observed(now: Moment, decider: &Decider, seen: &Seen) -> Observed {
    let class = class(0, true);
    let starting = seen.starting.iter().take(64).map(|age| {
        let created = now - Duration::from_secs((*age).into());
        (created, &class)
    });
    let cap = decider.spec().max_cold_start;
    let starting = Starting::of(now, decider.learned(), cap, starting);
    starting.within(Observed {
        ready: Replicas(seen.ready.into()),
        failed: Replicas(seen.failed.into()),
        current: Replicas(seen.current.into()),
        held: seen.held.into(),
        open: seen.open.map(u64::from),
        reachable: seen.reachable,
        ..Observed::default()
    })
}

/// What holds of every decision.
fn sound(decision: &Decision, decider: &Decider, seen: &Observed) {
    let spec = decider.spec();
    let inputs = &decision.inputs;
    for number in [
        inputs.stable,
        inputs.panic,
        inputs.waiting,
        inputs.rate,
        inputs.start_time,
        inputs.service_time,
    ] {
        assert!(
            number.is_none_or(|number| number.is_finite() && number >= 0.0),
            "{decision}"
        );
    }
    assert!(!decision.to_string().is_empty());
    let Some(want) = decision.want else {
        return;
    };
    // What is there may stay beyond the bounds while requests are held.
    let held = decision.reason == Reason::Held;
    assert!(held || want == spec.cap(want), "{decision}");
    assert!(
        held || want >= spec.cap(spec.lower_bound(seen.reachable)),
        "{decision}"
    );
    if seen.held > 0 {
        assert!(want >= seen.current, "{decision}");
    }
    let aware = spec.policy.cold_start_aware && seen.reachable;
    if aware && !seen.starting.is_zero() {
        assert!(want >= spec.cap(seen.current), "{decision}");
    }
    if want.is_zero() && !seen.current.is_zero() {
        assert!(spec.enable_scale_to_zero, "{decision}");
        assert!(seen.starting.is_zero() && seen.held == 0, "{decision}");
        assert_eq!(seen.open, Some(0), "{decision}");
    }
    if decision.mode == Mode::Panic {
        assert!(decider.kpa().panic().is_panicking(), "{decision}");
    }
}
