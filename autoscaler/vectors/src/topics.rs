//! Which groups there are, and how each is replayed.

use serde_json::Value;

use crate::check::Check;
use crate::read::Read;

mod annotations;
mod buckets;
mod collector;
mod decide;
mod requeststats;
mod scrape;
mod window;

/// What to do with the cases of a group.
pub(crate) enum Group {
    /// Each is replayed by this.
    Replayed(fn(&Value, &mut Check) -> Read<()>),
    /// Rouse has nothing that corresponds, for this reason.
    NotApplicable(&'static str),
}

/// Every topic there is.
pub(crate) const NAMES: [&str; 9] = [
    "annotations",
    "buckets",
    "collector",
    "decide",
    "requeststats",
    "scrape",
    "throttler",
    "window",
    "wire",
];

const WIRE: &str = "Rouse's statistics are whole numbers in JSON that the autoscaler asks for, not Protobuf that is pushed \
                    (decision 0004).";
const THROTTLER: &str = "Rouse's activator only holds requests for pods that are not there yet and hands them out in the \
                         order in which they came; warm requests do not pass it (decision 0005), so that no pods are shared \
                         out between activators.";

pub(crate) fn is_known(topic: &str) -> bool {
    NAMES.contains(&topic)
}

/// What to do with `group` of `topic`; none if there is no such group.
pub(crate) fn group(topic: &str, group: &str) -> Option<Group> {
    match topic {
        "annotations" => annotations::group(group),
        "buckets" => buckets::group(group),
        "collector" => collector::group(group),
        "decide" => decide::group(group),
        "requeststats" => requeststats::group(group),
        "scrape" => scrape::group(group),
        "throttler" => Some(Group::NotApplicable(THROTTLER)),
        "window" => window::group(group),
        "wire" => Some(Group::NotApplicable(WIRE)),
        _ => None,
    }
}
