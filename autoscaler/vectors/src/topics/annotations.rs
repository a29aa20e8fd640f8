//! Annotations and settings: what is accepted, what is said against the rest, and which values are in force.
//!
//! Everything runs under [`Policy::KNATIVE`], so that NaN and infinities are read as Knative reads them. Beside the groups that are
//! not applicable, these parts of the others have no counterpart and are not compared:
//! - in `resolve`: the fields `class`, `progress_deadline_ns` and the raw text of `algorithm`. What Knative carries on as a
//!   negative number (min scale, retention, delay) is zero here, and a negative initial scale is the cluster's;
//! - in `config`: the words of errors. Acceptance and the key are compared.

use std::collections::{BTreeMap, BTreeSet};

use autoscaler_core::annotations::{self, AnnotationError};
use autoscaler_core::{ClusterConfig, Policy};
use serde_json::Value;

use super::Group;
use crate::check::Check;
use crate::read::{Read, boolean, list, string, text, texts, unknown};

mod config;
mod resolve;

const MISPLACED: &str = "Knative keeps these annotations off the metadata of Services and Configurations; a \
                         Deployment's own is where they belong here.";
const ROLLOUT: &str = "serving.knative.dev/rollout-duration is about moving traffic between revisions, and there are none.";

pub(super) fn group(name: &str) -> Option<Group> {
    match name {
        "single" | "combo" | "pair" | "edge" => Some(Group::Replayed(validate)),
        "config" => Some(Group::Replayed(config::replay)),
        "resolve" => Some(Group::Replayed(resolve::replay)),
        "misplaced" => Some(Group::NotApplicable(MISPLACED)),
        "rollout" => Some(Group::NotApplicable(ROLLOUT)),
        _ => None,
    }
}

/// The settings in force in a case.
fn cluster(case: &Value) -> Read<ClusterConfig> {
    ClusterConfig::parse_with(&texts(case, "config")?, Policy::KNATIVE)
        .or_else(|error| unknown("config", error))
}

/// Messages with all their paths, as Knative prints them.
type Messages = BTreeMap<String, BTreeSet<String>>;

fn validate(case: &Value, check: &mut Check) -> Read<()> {
    let given = texts(case, "annotations")?;
    let result = annotations::parse_with(&given, &cluster(case)?, Policy::KNATIVE);
    let accepted = boolean(case, "accepted")?;
    check.same("accepted", result.is_ok(), accepted);
    let errors = result.err().map(|invalid| invalid.errors);
    check.same(
        "errors",
        merged(&errors.unwrap_or_default()),
        recorded(case)?,
    );
    Ok(())
}

fn merged(errors: &[AnnotationError]) -> Messages {
    let mut messages = Messages::new();
    for error in errors {
        let paths = messages.entry(error.message.clone()).or_default();
        paths.extend(error.paths.iter().cloned());
    }
    messages
}

fn recorded(case: &Value) -> Read<Messages> {
    let mut messages = Messages::new();
    for error in list(case, "errors")? {
        let paths = messages
            .entry(text(error, "message")?.to_owned())
            .or_default();
        for path in list(error, "paths")? {
            paths.insert(string(path)?.to_owned());
        }
    }
    Ok(messages)
}
