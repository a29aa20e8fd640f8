//! Whether activators are worth an attempt: one that failed keeps others from it for a while. Pure: every call takes `now`.

use std::time::Duration;

use tokio::time::Instant;

use super::LIMIT;

/// After the first attempt in vain; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. Longer would mean that pods wait by themselves although activators are back; shorter that they knock all the
/// time at an address that nobody has.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who has answered within this is an activator, whatever became of one request since: one of several may have died. Who has not, and
/// takes requests without answering any, may want TLS or be no activator at all.
const RECENTLY: Duration = Duration::from_mins(1);
/// How long the one attempt after a pause may take: looking the name up and connecting, twice (one address of each IP family).
const ATTEMPT: Duration = LIMIT.saturating_mul(4);

/// What is known of the way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Attempts in vain since the last success.
    failures: u32,
    /// No attempt before then.
    until: Option<Instant>,
    /// One attempt is being made to find out, which may fail before `until`.
    trying: bool,
    /// When a request was answered there.
    answered: Option<Instant>,
}

impl Reach {
    /// Whether an attempt may be made.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// An attempt begins, if it may. After a pause one finds out for all: the others would all wait for the same.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let may = self.is_open(now);
        if may && self.until.is_some() {
            self.until = Some(now + ATTEMPT);
            self.trying = true;
        }
        may
    }

    /// Somebody is there.
    pub(super) fn reached(&mut self) {
        *self = Self {
            answered: self.answered,
            ..Self::default()
        };
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, now: Instant) {
        self.answered = Some(now);
        self.reached();
    }

    /// A request was taken, and the connection ended without an answer.
    pub(super) fn broke(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < RECENTLY;
        if self.answered.is_some_and(lately) {
            self.reached();
        } else {
            self.failed(now);
        }
    }

    /// Nobody was. Of attempts that began together the first to fail counts.
    pub(super) fn failed(&mut self, now: Instant) {
        if !self.is_open(now) && !self.trying {
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause.min(LONGEST_PAUSE));
        self.trying = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how long the next attempt may be made.
    fn pause(reach: Reach, now: Instant) -> Duration {
        (0..100_000)
            .map(Duration::from_millis)
            .find(|after| reach.is_open(now + *after))
            .unwrap()
    }

    #[test]
    fn each_attempt_in_vain_doubles_the_pause_and_a_success_ends_it() {
        let mut now = Instant::now();
        let mut reach = Reach::default();
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert!(reach.begin(now));
            reach.failed(now);
            assert!(!reach.begin(now), "not even one");
            assert_eq!(pause(reach, now), Duration::from_secs(seconds));
            now += Duration::from_secs(seconds);
        }
        assert!(reach.begin(now));
        reach.reached();
        assert_eq!(reach, Reach::default());
        reach.failed(now);
        assert_eq!(pause(reach, now), FIRST_PAUSE);
    }

    #[test]
    fn one_that_takes_requests_and_has_answered_none_lately_is_left_alone() {
        let now = Instant::now();
        let mut reach = Reach::default();
        assert!(reach.begin(now));
        reach.broke(now);
        assert_eq!(pause(reach, now), FIRST_PAUSE);
        let now = now + FIRST_PAUSE;
        assert!(reach.begin(now));
        reach.answered(now);
        reach.broke(now + RECENTLY - FIRST_PAUSE);
        assert!(reach.is_open(now), "one of them has died");
        reach.broke(now + RECENTLY);
        assert!(!reach.is_open(now + RECENTLY));
    }

    #[test]
    fn a_crowd_that_fails_together_counts_once() {
        let now = Instant::now();
        let mut reach = Reach::default();
        for _ in 0..50 {
            assert!(reach.begin(now));
        }
        for late in 0..50 {
            reach.failed(now + Duration::from_millis(late));
        }
        assert_eq!(pause(reach, now), FIRST_PAUSE);
    }

    #[test]
    fn after_a_pause_one_finds_out_for_all_and_if_it_never_says_another_does() {
        let now = Instant::now();
        let mut reach = Reach::default();
        reach.failed(now);
        let then = now + FIRST_PAUSE;
        assert!(reach.begin(then));
        assert!(!reach.is_open(then) && !reach.begin(then));
        // Its client has left.
        let later = then + ATTEMPT;
        assert!(reach.begin(later));
        reach.failed(later + LIMIT);
        assert_eq!(pause(reach, later + LIMIT), 2 * FIRST_PAUSE);
    }
}
