//! The comparison of two accounts of the same requests: what clients say became of each, and what the model says it did.
//!
//! What must hold always: each request has one fate, was executed at most once, and if it was answered 200 exactly once;
//! and nothing was executed that nobody sent. What a test may allow beyond that is left to it: [`Ledger::bad`] has every
//! request that was not answered 200 and tells whether it was executed.

use std::collections::{BTreeMap, BTreeSet};

use loadtests::{journal::Outcome, record::ErrorKind};

/// What became of a request, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The whole answer arrived, with this status.
    Answered(u16),
    /// It was sent on a connection that had been idle, which was closed before one byte of an answer: that can happen to
    /// any client and is for it to send again.
    ClosedIdle,
    /// Anything else.
    Lost(String),
}

/// A request and its fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// What became of it.
    pub fate: Fate,
}

impl From<&Outcome> for Told {
    fn from(outcome: &Outcome) -> Self {
        let fate = match (outcome.error, outcome.status) {
            (None, Some(status)) => Fate::Answered(status),
            (Some(kind), Some(status)) if kind == ErrorKind::of_status(status) => {
                Fate::Answered(status)
            }
            (Some(ErrorKind::ClosedReused), _) => Fate::ClosedIdle,
            (kind, _) => Fate::Lost(format!("{kind:?}")),
        };
        Self {
            id: outcome.id.clone(),
            fate,
        }
    }
}

/// A line of the model's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Process id of the model.
    pub pid: u32,
    /// Path of the request.
    pub path: String,
    /// Bytes of its body.
    pub bytes: u64,
}

/// The outcome of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Requests answered 200.
    pub good: usize,
    /// All others, with what the model did about them.
    pub bad: Vec<(Told, Option<Executed>)>,
    /// What must never be.
    pub faults: Vec<String>,
}

impl Ledger {
    /// Compares the clients' account with the model's journal.
    pub fn compare(told: &[Told], journal: &str) -> Self {
        let mut ledger = Self::default();
        let mut executed: BTreeMap<&str, Vec<Executed>> = BTreeMap::new();
        for line in journal.lines() {
            match read(line) {
                Some((id, execution)) => executed.entry(id).or_default().push(execution),
                None => ledger.fault(format!("the model wrote {line:?}")),
            }
        }
        let mut seen = BTreeSet::new();
        for told in told {
            let id = told.id.as_str();
            if !seen.insert(id) {
                ledger.fault(format!("{id} has two fates"));
            }
            let executions = executed.remove(id).unwrap_or_default();
            if executions.len() > 1 {
                ledger.fault(format!(
                    "{id} was executed {} times: {executions:?}",
                    executions.len()
                ));
            }
            let execution = executions.into_iter().next();
            if told.fate != Fate::Answered(200) {
                ledger.bad.push((told.clone(), execution));
            } else if execution.is_some() {
                ledger.good += 1;
            } else {
                ledger.fault(format!("{id} was answered 200 but never executed"));
            }
        }
        for (id, executions) in executed {
            if !seen.contains(id) {
                ledger.fault(format!("{id} was executed but has no fate: {executions:?}"));
            }
        }
        ledger
    }

    /// Fails if anything is as it must never be.
    #[must_use]
    pub fn checked(self) -> Self {
        let few: Vec<_> = self.faults.iter().take(10).collect();
        assert!(few.is_empty(), "{} faults: {few:#?}", self.faults.len());
        self
    }

    /// Fails unless every request was answered 200, and executed once.
    pub fn assert_exact(self) {
        let ledger = self.checked();
        let few: Vec<_> = ledger.bad.iter().take(10).collect();
        assert!(
            few.is_empty(),
            "{} of {} requests failed: {few:#?}",
            ledger.bad.len(),
            ledger.bad.len() + ledger.good
        );
    }

    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }
}

/// Reads `id pid method path body-bytes`.
fn read(line: &str) -> Option<(&str, Executed)> {
    let mut words = line.split(' ');
    let (id, pid, _method, path, bytes) = (
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
    );
    let execution = Executed {
        pid: pid.parse().ok()?,
        path: path.to_owned(),
        bytes: bytes.parse().ok()?,
    };
    words.next().is_none().then_some((id, execution))
}

#[cfg(test)]
mod tests;
