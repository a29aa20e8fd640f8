//! Starting mode, rule by rule. Whole stories are in `simulated.rs`.

use std::time::Duration;

use autoscaler_core::{
    Caution, Decider, Decision, Learned, Limit, Mode, Moment, Observed, Reason, Replicas, Sample,
    StartClass, Starting, TICK, TargetSpec, annotations,
};

use crate::support::{START, calm, outcome, spec};

fn class() -> StartClass {
    StartClass {
        template: "t".into(),
        image_present: true,
    }
}

/// Pods that serve ten requests at once of a second each, and start in three minutes.
fn model(pairs: &[(&str, &str)]) -> TargetSpec {
    let mut all = vec![("target", "10")];
    all.extend(pairs);
    spec(&all)
}

/// A workload that nobody serves yet.
struct Wake {
    decider: Decider,
    now: Moment,
    /// Requests that wait.
    waiting: f64,
    /// When each pod was made.
    pods: Vec<Moment>,
    failed: u32,
}

impl Wake {
    /// A sleeper whose starts take `start` seconds, if that is known, and whose requests take one.
    fn new(spec: TargetSpec, start: Option<u64>) -> Self {
        let mut decider = Decider::new(spec, START, Replicas(0));
        if let Some(start) = start {
            decider.learn_start(&class(), Duration::from_secs(start));
            // An earlier life: one request of a second at a time.
            for second in 0..20 {
                let sample = Sample {
                    concurrency: 1.0,
                    requests: 1.0,
                    ended: 1.0,
                    ..Sample::default()
                };
                decider.record(START - Duration::from_secs(3600 + second), sample);
            }
        }
        decider.decide(START, &calm(0));
        Self {
            decider,
            now: START,
            waiting: 0.0,
            pods: vec![START],
            failed: 0,
        }
    }

    /// Two seconds with so many arrivals each, after which the scale is what was decided.
    fn tick(&mut self, arrivals: f64) -> Decision {
        for _ in 0..2 {
            self.waiting += arrivals;
            self.now = self.now + Duration::from_secs(1);
            let sample = Sample {
                concurrency: self.waiting,
                waiting: self.waiting,
                requests: arrivals,
                ended: 0.0,
            };
            self.decider.record(self.now, sample);
        }
        let decision = self.decider.decide(self.now, &self.seen());
        let want = decision.want.map_or(0, Replicas::get);
        let there = u32::try_from(self.pods.len()).expect("few") + self.failed;
        for _ in there..want {
            self.pods.push(self.now);
        }
        decision
    }

    fn seen(&self) -> Observed {
        let class = class();
        let pods = self.pods.iter().map(|created| (*created, &class));
        let cap = self.decider.spec().max_cold_start;
        let starting = Starting::of(self.now, self.decider.learned(), cap, pods);
        starting.within(Observed {
            ready: Replicas(0),
            failed: Replicas(self.failed),
            current: Replicas(u32::try_from(self.pods.len()).expect("few") + self.failed),
            held: 1,
            ..calm(0)
        })
    }

    /// Ticks until so many seconds have passed since the beginning.
    fn until(&mut self, second: u64, arrivals: f64) -> Decision {
        loop {
            let decision = self.tick(arrivals);
            if self.now >= START + Duration::from_secs(second) {
                return decision;
            }
        }
    }
}

#[test]
fn one_request_asks_for_one_pod_however_long_it_waits() {
    let mut wake = Wake::new(model(&[("target", "1")]), Some(180));
    wake.tick(0.5);
    let last = wake.until(170, 0.0);
    assert_eq!(outcome(&last), (Some(1), Reason::Underway), "{last}");
    assert_eq!(last.mode, Mode::Starting);
}

#[test]
fn a_crowd_asks_for_what_clears_it_and_then_for_no_more() {
    let mut wake = Wake::new(model(&[]), Some(180));
    let early = wake.until(20, 10.0).want;
    let late = wake.until(170, 10.0);
    // 1,800 requests of a second each will wait. 100 pods would clear them in two seconds, 250 is what Knative has by then.
    assert!(early >= Some(Replicas(20)), "{early:?}");
    assert!(late.want <= Some(Replicas(110)), "{late}");
    assert_eq!(late.reason, Reason::Underway, "{late}");
    let mut knative = Wake::new(
        TargetSpec {
            policy: autoscaler_core::Policy::KNATIVE,
            ..model(&[])
        },
        Some(180),
    );
    assert!(knative.until(170, 10.0).want >= Some(Replicas(200)));
}

#[test]
fn a_longer_clear_time_takes_fewer_pods() {
    let pods = |clear: &str| {
        let mut given = annotations::Annotations::new();
        given.insert("autoscaling.knative.dev/target".into(), "10".into());
        given.insert("rouse.dev/backlog-clear-time".into(), clear.into());
        let parsed = annotations::parse(&given, &autoscaler_core::ClusterConfig::default());
        let mut wake = Wake::new(parsed.expect("valid").spec, Some(180));
        wake.until(170, 10.0).want.expect("data").get()
    };
    let (fast, slow) = (pods("2s"), pods("60s"));
    assert!(slow * 5 < fast, "{fast} and {slow}");
    assert!(slow >= 3, "the steady need is never forgotten: {slow}");
}

#[test]
fn the_first_start_ever_grows_by_twice_per_start_time_at_most() {
    let mut wake = Wake::new(model(&[]), None);
    let mut counts = Vec::new();
    while counts.len() < 90 {
        let decision = wake.tick(10.0);
        counts.push(decision.want.expect("data").get());
        if counts.len() > 10 {
            assert_eq!(
                decision.reason,
                Reason::Cautious {
                    because: Caution::Unlearned
                },
                "{decision}"
            );
        }
    }
    assert_eq!(counts[0], 1);
    for (index, count) in counts.iter().enumerate().skip(4) {
        let half = counts[index / 2];
        assert!(*count <= 2 * half + 1, "{index}: {counts:?}");
    }
}

#[test]
fn when_all_starts_pass_their_time_at_once_growth_stays_capped() {
    let mut wake = Wake::new(model(&[]), Some(30));
    let before = wake.until(30, 10.0).want.expect("data").get();
    // At 1.5 times 30 s and 3 s more they have clearly passed it.
    let after = wake.until(54, 10.0);
    let count = after.want.expect("data").get();
    assert!(count > before, "{after}");
    assert!(count <= 2 * before, "{before}: {after}");
}

#[test]
fn panic_does_not_lift_the_limit_on_growth() {
    // Twelve requests that work is under way for, and one pod that is far too late.
    let mut decider = Decider::new(model(&[("target", "1")]), START, Replicas(1));
    decider.learn_start(&class(), Duration::from_secs(30));
    let seen = Observed {
        starting: Replicas(1),
        overdue: Replicas(1),
        current: Replicas(2),
        ..calm(1)
    };
    let mut now = START;
    for _ in 0..8 {
        let sample = Sample {
            concurrency: 12.0,
            requests: 12.0,
            ended: 12.0,
            ..Sample::default()
        };
        decider.record(now, sample);
        now = now + TICK;
        let decision = decider.decide(now, &seen);
        assert!(decider.kpa().panic().is_panicking(), "{decision}");
        assert_eq!(
            outcome(&decision),
            (
                Some(4),
                Reason::Cautious {
                    because: Caution::Overdue
                }
            ),
            "{decision}"
        );
    }
}

#[test]
fn what_fails_is_no_capacity_and_asking_again_takes_longer_each_time() {
    let mut wake = Wake::new(model(&[]), Some(30));
    wake.tick(10.0);
    // All of them fail, and whatever comes after them too.
    let mut grew = Vec::new();
    for second in (4..2000).step_by(2) {
        wake.failed += u32::try_from(wake.pods.len()).expect("few");
        wake.pods.clear();
        let before = wake.failed;
        let decision = wake.tick(10.0);
        if decision.want > Some(Replicas(before)) {
            grew.push(second);
        }
    }
    let gaps: Vec<u64> = grew.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() < 8, "{gaps:?}");
    assert!(gaps.is_sorted(), "{gaps:?}");
}

#[test]
fn nothing_is_taken_away_while_pods_start() {
    let mut decider = Decider::new(model(&[]), START, Replicas(2));
    let seen = Observed {
        starting: Replicas(3),
        current: Replicas(5),
        ..calm(2)
    };
    let mut now = START;
    for _ in 0..120 {
        decider.record(now, Sample::default());
        now = now + TICK;
        let decision = decider.decide(now, &seen);
        assert_eq!(outcome(&decision), (Some(5), Reason::Starting));
    }
    let lowered = TargetSpec {
        max_scale: Some(Replicas(4)),
        ..model(&[])
    };
    decider.respec(now, lowered);
    assert_eq!(decider.decide(now, &seen).want, Some(Replicas(4)));
}

#[test]
fn pods_that_are_not_seen_yet_are_on_their_way_and_those_that_never_come_are_not() {
    let mut decider = Decider::new(model(&[]), START, Replicas(1));
    let unseen = Observed {
        current: Replicas(4),
        ..calm(1)
    };
    let mut now = START;
    let mut reasons = Vec::new();
    for _ in 0..60 {
        decider.record(now, Sample::default());
        now = now + TICK;
        reasons.push(decider.decide(now, &unseen).reason);
    }
    assert_eq!(reasons[0], Reason::Starting);
    let last = reasons.last().expect("some");
    assert_ne!(*last, Reason::Starting, "a quota holds nothing for ever");
}

#[test]
fn a_pod_that_lost_its_readiness_is_neither_on_its_way_nor_failed() {
    let mut decider = Decider::new(model(&[]), START, Replicas(4));
    decider.learn_start(&class(), Duration::from_secs(40));
    let seen = Observed {
        lapsed: Replicas(1),
        current: Replicas(4),
        ..calm(3)
    };
    let mut now = START;
    for _ in 0..60 {
        let sample = Sample {
            concurrency: 25.0,
            requests: 25.0,
            ended: 25.0,
            ..Sample::default()
        };
        decider.record(now, sample);
        decider.record(now + Duration::from_secs(1), sample);
        now = now + TICK;
        let decision = decider.decide(now, &seen);
        assert_eq!(decision.inputs.failed, Replicas(0), "{decision}");
        assert_ne!(decision.mode, Mode::Starting, "{decision}");
        assert!(
            !matches!(decision.reason, Reason::Starting | Reason::Cautious { .. }),
            "{decision}"
        );
    }
}

#[test]
fn a_model_that_took_minutes_stays_for_minutes() {
    for (given, learned, stays) in [
        (None, Some(180), 180),
        (Some("5m"), Some(180), 300),
        (Some("0s"), Some(180), 0),
        (None, None, 0),
    ] {
        let spec = TargetSpec {
            min_stay: given.map(|text| {
                let seconds = if text == "5m" { 300 } else { 0 };
                Duration::from_secs(seconds)
            }),
            ..spec(&[])
        };
        let mut decider = Decider::new(spec, START, Replicas(0));
        if let Some(seconds) = learned {
            decider.learn_start(&class(), Duration::from_secs(seconds));
        }
        decider.decide(START, &calm(0));
        let starting = Observed {
            starting: Replicas(1),
            current: Replicas(1),
            ..calm(0)
        };
        decider.decide(START, &starting);
        let mut now = START;
        let mut left = 0;
        loop {
            decider.record(now, Sample::default());
            now = now + TICK;
            let decision = decider.decide(now, &calm(1));
            if decision.want == Some(Replicas(0)) {
                break;
            }
            left = now.since(START).as_secs();
        }
        // Without it: a stable window and the grace period.
        let expected = stays.max(90);
        assert!(
            left.abs_diff(expected) <= 4,
            "{given:?} {learned:?}: {left}"
        );
    }
}

#[test]
fn quick_starts_are_scaled_exactly_as_by_knative() {
    let ask = |policy| {
        let spec = TargetSpec {
            policy,
            ..model(&[])
        };
        let mut decider = Decider::new(spec, START, Replicas(2));
        decider.learn_start(&class(), Duration::from_secs(6));
        let mut now = START;
        let mut counts = Vec::new();
        for load in [10.0, 20.0, 80.0, 200.0, 100.0, 5.0] {
            let sample = Sample {
                concurrency: load,
                waiting: load / 2.0,
                requests: load,
                ended: load,
            };
            decider.record(now, sample);
            decider.record(now + Duration::from_secs(1), sample);
            now = now + TICK;
            counts.push(decider.decide(now, &calm(2)).want);
        }
        counts
    };
    assert_eq!(
        ask(autoscaler_core::Policy::default()),
        ask(autoscaler_core::Policy::KNATIVE)
    );
}

#[test]
fn rates_and_delay_hold_for_backlogs_too() {
    let slow = TargetSpec {
        max_scale_up_rate: 3.0,
        ..model(&[])
    };
    let mut wake = Wake::new(slow, Some(60));
    let decision = wake.tick(100.0);
    assert_eq!(
        outcome(&decision),
        (Some(3), Reason::RateLimited { by: Limit::ScaleUp }),
        "{decision}"
    );

    let mut wake = Wake::new(model(&[("scale-down-delay", "10m")]), Some(60));
    let most = wake.until(58, 10.0).want.expect("data");
    wake.waiting = 0.0;
    let seen = Observed {
        held: 0,
        ..calm(most.get())
    };
    let mut now = wake.now;
    for second in 0..300 {
        let sample = Sample {
            concurrency: 10.0,
            requests: 10.0,
            ended: 10.0,
            ..Sample::default()
        };
        now = wake.now + Duration::from_secs(second);
        wake.decider.record(now, sample);
    }
    let held = wake.decider.decide(now, &seen);
    assert_eq!(outcome(&held), (Some(most.get()), Reason::DelayHold));
}

#[test]
fn what_was_learned_can_be_kept_and_what_is_damaged_is_not_taken() {
    let mut learned = Learned::default();
    let other = StartClass {
        template: "other".into(),
        image_present: false,
    };
    assert_eq!(learned.start_time(&class()), None);
    for seconds in [20, 30, 40, 100] {
        learned.start(&class(), Duration::from_secs(seconds));
    }
    assert_eq!(learned.start_time(&class()), Some(Duration::from_secs(40)));
    assert_eq!(
        learned.start_time(&other),
        Some(Duration::from_secs(40)),
        "what was never seen is like what was"
    );
    learned.start(&other, Duration::from_mins(5));
    assert_eq!(learned.start_time(&class()), Some(Duration::from_secs(40)));
    let cap = Duration::from_mins(10);
    assert_eq!(learned.deadline(&class(), cap), Duration::from_secs(63));
    assert_eq!(learned.deadline(&other, cap), Duration::from_secs(453));
    assert_eq!(
        learned.deadline(&other, Duration::from_mins(5)),
        Duration::from_mins(5)
    );
    learned.start(&class(), Duration::from_millis(3));
    assert!(learned.next_start_time() >= Some(Duration::from_secs(1)));
    for number in 0..100u32 {
        let class = StartClass {
            template: number.to_string().into(),
            image_present: true,
        };
        for _ in 0..100 {
            learned.start(&class, Duration::from_secs(7));
        }
    }
    assert!(learned.is_sound());
}

#[cfg(feature = "serde")]
#[test]
fn what_was_learned_survives_being_written_down() {
    let mut wake = Wake::new(model(&[]), Some(180));
    wake.tick(1.0);
    let learned = wake.decider.learned().clone();
    let text = serde_json::to_string(&learned).expect("JSON");
    assert!(text.len() < 400, "{text}");
    let read: Learned = serde_json::from_str(&text).expect("as written");
    assert_eq!(read, learned);
    let damaged: Learned = serde_json::from_str(
        r#"{"starts":[{"class":{"template":"t","image_present":true},"took_ms":[]}],"work":{"seconds":-1,"ended":0}}"#,
    )
    .expect("JSON all the same");
    assert!(!damaged.is_sound());
    let mut decider = Decider::new(model(&[]), START, Replicas(0));
    decider.recall(damaged);
    assert!(decider.learned().is_empty());
}
