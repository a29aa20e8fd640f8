//! What a workload's past starts and answers say about the next ones.
//!
//! Two things are learned: how long a pod takes from its creation until it is ready, and how long a request takes once a
//! pod works on it. Both outlive the program: the shell keeps [`Learned`] and hands it back
//! ([`crate::Decider::recall`]). Everything is bounded, so that nothing grows with a workload's age.

use std::sync::Arc;
use std::time::Duration;

use crate::starting::UNLEARNED_START;
use crate::{Moment, Observed, Replicas};

/// Starts that are remembered of one class. The oldest goes first.
const STARTS: usize = 16;
/// Classes of starts that are remembered: two templates with and without their image. The one used longest ago goes first.
const CLASSES: usize = 4;
/// The share of remembered starts that took no longer than what is expected. A start that is expected too short is asked
/// for twice; one that is expected somewhat too long costs nothing until it fails.
const QUANTILE: f64 = 0.75;
/// No start is expected to be shorter: pods are scheduled, probed and seen in whole seconds.
const FLOOR: Duration = Duration::from_secs(1);
/// A start has clearly passed its time at this multiple of what is expected ...
const CLEARLY: f64 = 1.5;
/// ... and so much more, for short starts are blurred by clocks and probes.
const BLUR: Duration = Duration::from_secs(3);
/// Requests after which half of what is known of service times is forgotten.
const MEMORY: f64 = 200.0;

/// Starts that can be compared: of the same pods, and with or without pulling the image first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StartClass {
    /// The pod template, as the shell tells templates apart (on a cluster the label `pod-template-hash`).
    pub template: Arc<str>,
    /// The node had the image already.
    pub image_present: bool,
}

/// The last starts of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Starts {
    class: StartClass,
    /// Milliseconds from creation to ready, oldest first.
    took_ms: Vec<u32>,
}

/// What is known of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Learned {
    /// The class that learned last comes last.
    #[cfg_attr(feature = "serde", serde(default))]
    starts: Vec<Starts>,
    /// Seconds that pods worked on requests, and the requests that ended.
    #[cfg_attr(feature = "serde", serde(default))]
    work: Work,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Work {
    seconds: f64,
    ended: f64,
}

impl Learned {
    /// A pod of `class` became ready `took` after it was created.
    pub fn start(&mut self, class: &StartClass, took: Duration) {
        let place = self.starts.iter().position(|one| one.class == *class);
        let mut starts = match place {
            Some(place) => self.starts.remove(place),
            None => Starts {
                class: class.clone(),
                took_ms: Vec::new(),
            },
        };
        if starts.took_ms.len() >= STARTS {
            starts.took_ms.remove(0);
        }
        starts
            .took_ms
            .push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        if self.starts.len() >= CLASSES {
            self.starts.remove(0);
        }
        self.starts.push(starts);
    }

    /// Pods worked for `seconds` (requests in flight times seconds) and `ended` requests ended meanwhile.
    pub(crate) fn work(&mut self, seconds: f64, ended: f64) {
        let work = &mut self.work;
        work.seconds += seconds;
        work.ended += ended;
        if work.ended > MEMORY {
            work.seconds /= 2.0;
            work.ended /= 2.0;
        }
    }

    /// How long a start of `class` is expected to take; none if nothing like it was seen.
    ///
    /// What was never seen is taken to be like its nearest relative: the same template with or without its image, else the
    /// last one that was seen. A new template mostly is the old one with a small change.
    pub fn start_time(&self, class: &StartClass) -> Option<Duration> {
        let same = self.starts.iter().find(|one| one.class == *class);
        let template = || {
            let mut newest = self.starts.iter().rev();
            newest.find(|one| one.class.template == class.template)
        };
        let starts = same.or_else(template).or_else(|| self.starts.last())?;
        Some(quantile(&starts.took_ms).max(FLOOR))
    }

    /// How long the next start is expected to take: like the last class that was seen.
    pub fn next_start_time(&self) -> Option<Duration> {
        Some(quantile(&self.starts.last()?.took_ms).max(FLOOR))
    }

    /// When a start of `class` has clearly taken too long. At most `cap`, which is also the answer if nothing was learned.
    pub fn deadline(&self, class: &StartClass, cap: Duration) -> Duration {
        let expected = self.start_time(class);
        expected.map_or(cap, |time| (time.mul_f64(CLEARLY) + BLUR).min(cap))
    }

    /// Seconds that a pod works on one request; none before the first one ended.
    pub fn service_time(&self) -> Option<f64> {
        (self.work.ended >= 1.0).then(|| self.work.seconds / self.work.ended)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all numbers can have been learned. What was kept by others may be damaged.
    pub fn is_sound(&self) -> bool {
        let bounded = self.starts.len() <= CLASSES;
        let starts = self.starts.iter();
        let sound = |one: &Starts| (1..=STARTS).contains(&one.took_ms.len());
        let work = [self.work.seconds, self.work.ended];
        bounded
            && starts.into_iter().all(sound)
            && work.iter().all(|value| (0.0..1e15).contains(value))
    }
}

/// The smallest of `values` that is not below [`QUANTILE`] of them. There is at least one.
fn quantile(values: &[u32]) -> Duration {
    // Asked for at every decision: no memory is taken for it.
    let mut room = [0; STARTS];
    let count = values.len().min(STARTS);
    let sorted = &mut room[..count];
    sorted.copy_from_slice(&values[..count]);
    sorted.sort_unstable();
    let rank = Replicas::from_f64((QUANTILE * to_f64(sorted.len())).ceil()).get();
    let place = usize::try_from(rank).unwrap_or(1).max(1) - 1;
    let millis = sorted.get(place).copied().unwrap_or_default();
    Duration::from_millis(u64::from(millis))
}

fn to_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The starting pods of a workload at one moment, to be filled into [`Observed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starting {
    /// All of them.
    pub pods: Replicas,
    /// Those that have clearly passed their time.
    pub overdue: Replicas,
    /// Time until the others are ready, as far as is known; added up over them.
    pub ahead: Duration,
    /// Since when the one that has waited longest is there.
    pub oldest: Option<Moment>,
}

impl Starting {
    /// Sums up pods, each with the moment of its creation and its class. At `cap` a start is over, whatever was learned.
    pub fn of<'a>(
        now: Moment,
        learned: &Learned,
        cap: Duration,
        pods: impl IntoIterator<Item = (Moment, &'a StartClass)>,
    ) -> Self {
        let mut all = Self::default();
        for (created, class) in pods {
            let age = now.since(created);
            all.pods = Replicas(all.pods.get().saturating_add(1));
            all.oldest = Some(all.oldest.map_or(created, |oldest| oldest.min(created)));
            if age > learned.deadline(class, cap) {
                all.overdue = Replicas(all.overdue.get().saturating_add(1));
                continue;
            }
            // Of what nothing is known it may take as long again.
            let expected = learned.start_time(class);
            let expected = expected.unwrap_or_else(|| UNLEARNED_START.max(age.saturating_mul(2)));
            all.ahead = all.ahead.saturating_add(expected.saturating_sub(age));
        }
        all
    }

    /// `seen` with these.
    #[must_use]
    pub fn within(self, seen: Observed) -> Observed {
        Observed {
            starting: self.pods,
            overdue: self.overdue,
            ahead: self.ahead,
            oldest_start: self.oldest,
            ..seen
        }
    }
}
