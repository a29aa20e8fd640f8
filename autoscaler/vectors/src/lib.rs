//! Replays recorded cases of Knative's own code ("golden vectors") through the same functions that Rouse runs.
//!
//! A file holds cases of one topic, in groups of one shape each; its `about` describes them. [`replay`] reads every case of
//! every group. Nothing is left out silently: a group that has no counterpart in Rouse is counted as not applicable, with the
//! reason, and a group that nobody knows fails. Where Rouse departs from Knative on purpose, the cases run under
//! [`autoscaler_core::Policy::KNATIVE`].
//!
//! Whatever is in a file, the result is a report: a case that cannot be read is one that failed.

#![warn(missing_docs)]

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

mod check;
mod read;
mod topics;

use self::check::Check;
use self::topics::Group;

/// What is said of a file that cannot be replayed at all; it stands where the name of a group would.
const WHOLE_FILE: &str = "(file)";

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file's name.
    pub name: String,
    /// The cases by group.
    pub groups: BTreeMap<String, Tally>,
    /// A line each: which case, where in it, what came out and what should have.
    pub differences: Vec<String>,
}

/// What became of the cases of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Agreed in everything.
    pub passed: usize,
    /// Differed, or could not be read.
    pub failed: usize,
    /// Have no counterpart in Rouse.
    pub not_applicable: usize,
    /// Why they have none.
    pub why: Option<&'static str>,
}

impl Report {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            groups: BTreeMap::new(),
            differences: Vec::new(),
        }
    }

    /// Cases that agreed.
    pub fn passed(&self) -> usize {
        self.sum(|tally| tally.passed)
    }

    /// Cases that differed or could not be read; 1 for a file that cannot be read.
    pub fn failed(&self) -> usize {
        self.sum(|tally| tally.failed)
    }

    /// Cases without a counterpart.
    pub fn not_applicable(&self) -> usize {
        self.sum(|tally| tally.not_applicable)
    }

    fn sum(&self, of: impl Fn(&Tally) -> usize) -> usize {
        self.groups.values().map(of).sum()
    }

    fn group(&mut self, name: &str) -> &mut Tally {
        self.groups.entry(name.to_owned()).or_default()
    }

    fn fail(&mut self, group: &str, differences: impl IntoIterator<Item = String>) {
        self.group(group).failed += 1;
        self.differences.extend(differences);
    }
}

/// One line: `window.json: 144 passed, 0 failed`, and how many are not applicable if any are.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = (self.passed(), self.failed());
        write!(f, "{}: {passed} passed, {failed} failed", self.name)?;
        match self.not_applicable() {
            0 => Ok(()),
            count => write!(f, ", {count} not applicable"),
        }
    }
}

/// Replays the vector file `name` with this text. The topic is that of its `about`, else that of its name.
pub fn replay(name: &str, text: &str) -> Report {
    let mut report = Report::new(name);
    match open(name, text) {
        Ok((topic, cases)) => {
            for (number, case) in cases.iter().enumerate() {
                replay_case(&mut report, &topic, number, case);
            }
        }
        Err(message) => report.fail(WHOLE_FILE, [message]),
    }
    report
}

/// The topic and the cases of a file.
fn open(name: &str, text: &str) -> Result<(String, Vec<Value>), String> {
    let mut whole: Value =
        serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
    let stem = name.strip_suffix(".json").unwrap_or(name);
    let topic = whole["about"]["topic"].as_str().unwrap_or(stem).to_owned();
    if !topics::is_known(&topic) {
        return Err(format!(
            "no such topic: {topic:?}; known are {}",
            topics::NAMES.join(", ")
        ));
    }
    match whole.get_mut("cases").map(Value::take) {
        Some(Value::Array(cases)) if !cases.is_empty() => Ok((topic, cases)),
        _ => Err("there is no list of cases in it".to_owned()),
    }
}

fn replay_case(report: &mut Report, topic: &str, number: usize, case: &Value) {
    let id = match case["id"].as_str() {
        Some(id) => id.to_owned(),
        None => format!("case {}", number + 1),
    };
    let Some(group) = case["group"].as_str() else {
        report.fail(WHOLE_FILE, [format!("{id}: it is in no group")]);
        return;
    };
    match topics::group(topic, group) {
        Some(Group::Replayed(replay)) => {
            let mut check = Check::new(id);
            if let Err(unreadable) = replay(case, &mut check) {
                check.unreadable(&unreadable);
            }
            let differences = check.into_differences();
            if differences.is_empty() {
                report.group(group).passed += 1;
            } else {
                report.fail(group, differences);
            }
        }
        Some(Group::NotApplicable(why)) => {
            let tally = report.group(group);
            tally.not_applicable += 1;
            tally.why = Some(why);
        }
        None => report.fail(group, [format!("{id}: {topic} has no group {group:?}")]),
    }
}
