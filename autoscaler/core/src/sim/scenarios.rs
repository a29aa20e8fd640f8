//! What is simulated, and the set that policies are compared on.

use std::time::Duration;

use super::arrivals::{Shape, Spacing};
use super::dice::Time;
use crate::annotations::Annotations;

/// A workload and what happens to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// How long requests arrive.
    pub length: Duration,
    /// How many arrive when.
    pub arrivals: Shape,
    /// How they follow each other.
    pub spacing: Spacing,
    /// How long a pod works on one.
    pub service: Time,
    /// From a pod's creation until it is ready.
    pub start: Time,
    /// Requests that a pod works on at once. What it takes beyond that waits in it.
    pub concurrency: u32,
    /// The share of starts that fail, from 0 to 1.
    pub start_failures: f64,
    /// The share of answers to scrapes that are lost, from 0 to 1.
    pub scrape_loss: f64,
    /// Pods that are ready at the beginning.
    pub replicas: u32,
    /// Whether the workload has been awake before, so that its starts and requests are known: as every workload that has
    /// gone to sleep was.
    pub seen_before: bool,
    /// For a while starts take longer: a registry or a disk is slow.
    pub slow_starts: Option<SlowStarts>,
    /// The workload's annotations, by full key.
    pub annotations: Annotations,
}

/// Starts that begin within a span take so many times as long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStarts {
    /// When it begins.
    pub from: Duration,
    /// When it is over.
    pub until: Duration,
    /// How many times as long.
    pub factor: f64,
}

/// One request a minute for half an hour that each take a second, to a model that starts in 30 s.
impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            about: String::new(),
            length: Duration::from_mins(30),
            arrivals: Shape::Constant { rate: 1.0 / 60.0 },
            spacing: Spacing::Poisson,
            service: Time::Fixed(Duration::from_secs(1)),
            start: Time::Fixed(Duration::from_secs(30)),
            concurrency: 1,
            start_failures: 0.0,
            scrape_loss: 0.0,
            replicas: 0,
            seen_before: true,
            slow_starts: None,
            annotations: Annotations::new(),
        }
    }
}

/// How long starts of the standard scenarios take, in seconds: a small model, a large one, and one with its weights to load.
const QUICK: u64 = 2;
const SLOW: u64 = 30;
const VERY_SLOW: u64 = 180;

/// The scenarios that policies are compared on. Times of a request and of a start scatter, by 30 % and 10 % or as it says.
pub fn standard() -> Vec<Scenario> {
    let mut all = cold();
    all.extend(warm());
    all.extend(odd());
    all
}

/// From zero, again and again.
fn cold() -> Vec<Scenario> {
    vec![
        Scenario {
            arrivals: every(mins(12), mins(60), 1),
            concurrency: 1,
            ..named(
                "one-request-wakes-a-large-model",
                VERY_SLOW,
                "serving#8682, #15316: one request must not cost two GPUs",
            )
        }
        .limited(1),
        Scenario {
            arrivals: on_off(10.0, mins(10), mins(10)),
            length: mins(60),
            ..named(
                "crowd-wakes-a-large-model",
                VERY_SLOW,
                "serving#4344, #13284, #15121: two or three pods become fifty",
            )
        }
        .limited(10),
        Scenario {
            arrivals: on_off(10.0, mins(10), mins(10)),
            seen_before: false,
            length: mins(20),
            ..named(
                "crowd-wakes-a-model-for-the-first-time",
                VERY_SLOW,
                "as before, with nothing learned",
            )
        }
        .limited(10),
        Scenario {
            arrivals: on_off(20.0, mins(5), mins(5)),
            ..named("crowd-wakes-a-model", SLOW, "load and silence in turn")
        }
        .limited(10),
        Scenario {
            arrivals: on_off(20.0, mins(2), mins(3)),
            ..named(
                "crowd-wakes-a-small-model",
                QUICK,
                "as before, with quick starts",
            )
        }
        .limited(10),
        Scenario {
            arrivals: on_off(0.2, mins(10), mins(8)),
            service: lognormal(4.0, 0.5),
            ..named(
                "trickle-wakes-a-large-model",
                VERY_SLOW,
                "a few users of a large model",
            )
        }
        .limited(2),
        Scenario {
            arrivals: every(mins(5), mins(60), 60),
            ..named(
                "batches-wake-a-model",
                SLOW,
                "sixty requests at once every five minutes",
            )
        }
        .limited(4),
    ]
}

/// With pods that are ready.
fn warm() -> Vec<Scenario> {
    let burst = |rate, peak, at, lasts| Shape::Burst {
        rate,
        peak,
        at,
        lasts,
    };
    vec![
        Scenario {
            arrivals: Shape::Constant { rate: 20.0 },
            replicas: 3,
            ..named("steady-load", SLOW, "nothing happens")
        }
        .limited(10),
        Scenario {
            arrivals: burst(10.0, 80.0, mins(5), mins(3)),
            length: mins(15),
            replicas: 2,
            ..named(
                "burst-on-a-warm-small-model",
                QUICK,
                "a true burst: as fast as Knative's panic",
            )
        }
        .limited(10),
        Scenario {
            arrivals: Shape::Sum(vec![
                Shape::Constant { rate: 10.0 },
                on_off(50.0, Duration::from_secs(20), Duration::from_secs(70)),
            ]),
            length: mins(15),
            replicas: 2,
            ..named(
                "bursts-on-a-warm-small-model",
                QUICK,
                "one burst after another",
            )
        }
        .limited(10),
        Scenario {
            arrivals: burst(10.0, 60.0, mins(5), mins(5)),
            replicas: 2,
            ..named(
                "burst-on-a-warm-model",
                SLOW,
                "pods come when the burst is half over",
            )
        }
        .limited(10),
        Scenario {
            arrivals: burst(10.0, 40.0, mins(5), mins(10)),
            replicas: 2,
            ..named(
                "burst-on-a-warm-large-model",
                VERY_SLOW,
                "pods come after three minutes of queueing",
            )
        }
        .limited(10),
        Scenario {
            arrivals: Shape::Ramp {
                from: 2.0,
                to: 60.0,
            },
            replicas: 1,
            ..named("ramp", SLOW, "load grows for half an hour")
        }
        .limited(10),
        Scenario {
            arrivals: Shape::Ramp {
                from: 2.0,
                to: 40.0,
            },
            replicas: 1,
            ..named(
                "ramp-of-a-large-model",
                VERY_SLOW,
                "load grows for half an hour",
            )
        }
        .limited(10),
    ]
}

/// With something that is not as usual.
fn odd() -> Vec<Scenario> {
    vec![
        Scenario {
            arrivals: on_off(0.5, mins(10), mins(6)),
            service: lognormal(20.0, 0.8),
            ..named(
                "streams-of-tokens",
                VERY_SLOW,
                "answers of twenty seconds that scatter much",
            )
        }
        .limited(8),
        Scenario {
            arrivals: on_off(10.0, mins(6), mins(5)),
            start_failures: 0.3,
            ..named("starts-that-fail", SLOW, "three in ten starts fail")
        }
        .limited(10),
        Scenario {
            arrivals: on_off(10.0, mins(6), mins(5)),
            start: lognormal(30.0, 0.5),
            ..named("starts-that-scatter", SLOW, "no start is like the last one")
        }
        .limited(10),
        Scenario {
            arrivals: on_off(10.0, mins(6), mins(5)),
            length: mins(44),
            slow_starts: Some(SlowStarts {
                from: mins(10),
                until: mins(28),
                factor: 4.0,
            }),
            ..named(
                "a-registry-slows",
                SLOW,
                "all starts pass their time at once",
            )
        }
        .limited(10),
        Scenario {
            arrivals: on_off(15.0, mins(5), mins(2)),
            scrape_loss: 0.1,
            ..named("lost-scrapes", SLOW, "one answer in ten is lost")
        }
        .limited(10),
        Scenario {
            arrivals: on_off(20.0, mins(5), mins(5)),
            ..named(
                "no-limit",
                SLOW,
                "pods take everything at once (container-concurrency 0)",
            )
        }
        .with("autoscaling.knative.dev/target", "10"),
        Scenario {
            arrivals: on_off(20.0, mins(5), mins(5)),
            ..named("requests-per-second", SLOW, "scaled on requests per second")
        }
        .limited(10)
        .with("autoscaling.knative.dev/metric", "rps")
        .with("autoscaling.knative.dev/target", "10"),
    ]
}

fn named(name: &str, start: u64, about: &str) -> Scenario {
    #[expect(clippy::cast_precision_loss, reason = "three small numbers")]
    let start = start as f64;
    Scenario {
        name: name.to_owned(),
        about: about.to_owned(),
        length: mins(30),
        service: lognormal(1.0, 0.3),
        start: lognormal(start, 0.1),
        concurrency: 10,
        ..Scenario::default()
    }
}

impl Scenario {
    /// Pods work on as many at once, and take no more.
    fn limited(mut self, concurrency: u32) -> Self {
        self.concurrency = concurrency;
        self.with("rouse.dev/container-concurrency", &concurrency.to_string())
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }
}

fn on_off(rate: f64, on: Duration, off: Duration) -> Shape {
    Shape::OnOff { rate, on, off }
}

/// So many requests at once, again and again.
fn every(period: Duration, length: Duration, requests: usize) -> Shape {
    let mut at = Duration::from_secs(10);
    let mut all = Vec::new();
    while at < length {
        all.extend(std::iter::repeat_n(at, requests));
        at += period;
    }
    Shape::At(all)
}

fn lognormal(seconds: f64, deviation: f64) -> Time {
    Time::LogNormal(
        Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        deviation,
    )
}

fn mins(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}
