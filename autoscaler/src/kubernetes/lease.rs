//! Who leads: the decisions about one Lease, without clock or network.
//!
//! What must stay true: at no instant do two candidates lead, however one of them is delayed or frozen. Time is each
//! candidate's own and only ever compared with itself: the times written in the Lease are for people. A Lease counts as
//! expired when it has not changed for its whole duration since *we* saw it change, and a leader stops [`UNTIL`] after it
//! *sent* its last successful renewal. Whoever takes over saw that renewal after it was sent, so that between one's end and the
//! other's beginning there are at least [`DURATION`] less [`UNTIL`]. Each write names the version that was seen, so that
//! of two takers one fails.

use std::time::Duration;

/// How long a Lease that nobody renews is respected.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// How long after sending its last successful renewal a leader goes on. What it has begun to write ends by then too.
pub(crate) const UNTIL: Duration = Duration::from_secs(10);
/// How often the Lease is looked at, and renewed by its holder.
pub(crate) const RENEW: Duration = Duration::from_secs(2);

/// The Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Empty if nobody holds it.
    pub(crate) holder: String,
    /// How long it is to be respected.
    pub(crate) duration: Duration,
    /// How often it changed hands.
    pub(crate) transitions: i32,
    /// Its `resourceVersion`.
    pub(crate) version: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is none: make it ours.
    Create,
    /// It is nobody's, or expired: make it ours if it still has this version.
    Take { version: String, transitions: i32 },
    /// It is ours: say so again if it still has this version.
    Renew { version: String, transitions: i32 },
    /// Somebody else holds it.
    Wait,
}

/// When we lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenure {
    /// Since when without a gap.
    pub(crate) since: Duration,
    /// When it ends unless it is renewed.
    pub(crate) until: Duration,
}

/// One candidate. Times are since the start of its own process.
#[derive(Debug)]
pub(crate) struct Candidate {
    me: String,
    /// The Lease and when we first saw this version of it; none if there was none.
    seen: Option<(Record, Duration)>,
    tenure: Option<Tenure>,
}

impl Candidate {
    /// `me` is of this process alone: one that is restarted is another candidate.
    pub(crate) fn new(me: String) -> Self {
        Self {
            me,
            seen: None,
            tenure: None,
        }
    }

    pub(crate) fn me(&self) -> &str {
        &self.me
    }

    /// What was read, and what follows.
    pub(crate) fn read(&mut self, now: Duration, lease: Option<Record>) -> Step {
        let Some(record) = lease else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((known, since)) if known.version == record.version => *since,
            _ => now,
        };
        let expires = since + record.duration.max(DURATION);
        let (version, transitions) = (record.version.clone(), record.transitions);
        let step = if record.holder == self.me {
            Step::Renew {
                version,
                transitions,
            }
        } else if record.holder.is_empty() || now >= expires {
            Step::Take {
                version,
                transitions: transitions.saturating_add(1),
            }
        } else {
            Step::Wait
        };
        if record.holder != self.me {
            // Somebody took it, so we had been silent for longer than we lead without a renewal.
            self.tenure = None;
        }
        self.seen = Some((record, since));
        step
    }

    /// Our write of the Lease, sent at `sent`, has succeeded.
    pub(crate) fn wrote(&mut self, sent: Duration, now: Duration) {
        let until = sent + UNTIL;
        let since = match self.tenure {
            Some(tenure) if now < tenure.until => tenure.since,
            // A gap: whatever was known of being alone begins anew.
            _ => now,
        };
        self.tenure = (now < until).then_some(Tenure { since, until });
    }

    /// We give it up. Nothing may be written after this.
    pub(crate) fn resign(&mut self) {
        self.tenure = None;
    }

    /// When we lead, if we do now.
    pub(crate) fn tenure(&self, now: Duration) -> Option<Tenure> {
        self.tenure.filter(|tenure| now < tenure.until)
    }
}

#[cfg(test)]
mod tests;
