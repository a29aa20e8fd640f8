//! Noticing that somebody else keeps undoing what we write. They are named and left alone for a while, not fought.

use std::{collections::VecDeque, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kubernetes::{names, scale::Version};

/// So often within [`WITHIN`] is no accident.
const OFTEN: usize = 3;
const WITHIN: Duration = Duration::from_mins(10);
/// For so long nothing is written any more.
const LEFT_ALONE: Duration = Duration::from_mins(10);

/// What became of one value that we write.
#[derive(Debug, Default)]
pub(crate) struct Rival {
    /// Our value was seen in place.
    landed: bool,
    undone: VecDeque<Duration>,
    until: Duration,
}

impl Rival {
    /// Whether our value was seen in place. True if it was undone once too often just now.
    pub(crate) fn saw(&mut self, now: Duration, ours: bool) -> bool {
        let undone = self.landed && !ours;
        self.landed = ours;
        if !undone {
            return false;
        }
        self.undone.retain(|at| now.saturating_sub(*at) < WITHIN);
        self.undone.push_back(now);
        if self.undone.len() < OFTEN {
            return false;
        }
        self.undone.clear();
        self.until = now + LEFT_ALONE;
        true
    }

    /// We take our value back ourselves, or want another one.
    pub(crate) fn forget_value(&mut self) {
        self.landed = false;
    }

    /// Whether it is left alone.
    pub(crate) fn is_contested(&self, now: Duration) -> bool {
        now < self.until
    }
}

/// Writes of one scale.
#[derive(Debug, Default)]
pub(crate) struct ScaleRival {
    rival: Rival,
    wrote: Option<(u32, Version)>,
    writing: bool,
}

impl ScaleRival {
    /// We are about to write another number. Until it is known what became of that, nothing that is seen says anything.
    pub(crate) fn writes(&mut self) {
        self.writing = true;
    }

    /// Our write was refused, since something else was there.
    pub(crate) fn was_refused(&mut self) {
        self.writing = false;
    }

    /// Nobody knows whether we have written.
    pub(crate) fn lost_track(&mut self) {
        *self = Self {
            rival: std::mem::take(&mut self.rival),
            ..Self::default()
        };
        self.rival.forget_value();
    }

    /// We have written this number, which made this version. From 0 on the activator is the writer, and nobody's rival.
    pub(crate) fn wrote(&mut self, to: u32, version: Version) {
        self.rival.forget_value();
        self.wrote = (to > 0).then_some((to, version));
        self.writing = false;
    }

    /// The number that is there in this version. True if ours was changed once too often just now.
    pub(crate) fn saw(&mut self, now: Duration, replicas: u32, version: Version) -> bool {
        let Some((wrote, made)) = self.wrote.filter(|_| !self.writing) else {
            return false;
        };
        // A rival may be so quick that ours is never seen in place.
        self.rival.landed |= version.is_after(made);
        let was = self.rival.landed;
        let often = self.rival.saw(now, replicas == wrote);
        if was && replicas != wrote {
            self.wrote = None;
        }
        often
    }

    pub(crate) fn is_contested(&self, now: Duration) -> bool {
        self.rival.is_contested(now)
    }
}

/// Who wrote a field of the spec last and is none of us, by the managed fields of its object. A status has fields of the same
/// names, and its writer is nobody's rival.
pub(crate) fn writer(fields: &[ManagedFieldsEntry], field: &str) -> Option<String> {
    let field = format!("f:{field}");
    let other = |entry: &&ManagedFieldsEntry| {
        let manager = entry.manager.as_deref().unwrap_or_default();
        let spec = entry.fields_v1.as_ref().and_then(|all| all.0.get("f:spec"));
        let wrote = spec.is_some_and(|spec| spec.get(&field).is_some());
        wrote && manager != names::AUTOSCALER_MANAGER && manager != names::ACTIVATOR_MANAGER
    };
    fields
        .iter()
        .filter(other)
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.clone())
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn version(number: u64) -> Version {
        Version::of(&ObjectMeta {
            resource_version: Some(number.to_string()),
            ..ObjectMeta::default()
        })
    }

    #[test]
    fn three_times_in_ten_minutes_is_a_rival_and_is_left_alone() {
        let mut rival = Rival::default();
        let mut told = Vec::new();
        for secs in [0, 100, 200] {
            rival.saw(at(secs), true);
            told.push(rival.saw(at(secs + 1), false));
            assert!(!rival.saw(at(secs + 2), false), "counted once");
        }
        assert_eq!(told, [false, false, true]);
        assert!(rival.is_contested(at(700)) && !rival.is_contested(at(801)));
        // Then it begins anew.
        rival.saw(at(810), true);
        assert!(!rival.saw(at(811), false));
    }

    #[test]
    fn seldom_or_by_ourselves_is_no_rival() {
        let mut rival = Rival::default();
        for secs in [0, 400, 800, 1200, 1600] {
            rival.saw(at(secs), true);
            assert!(!rival.saw(at(secs + 1), false));
        }
        let mut rival = Rival::default();
        for secs in 0..10 {
            rival.saw(at(secs), true);
            rival.forget_value();
            assert!(!rival.saw(at(secs), false));
        }
    }

    #[test]
    fn an_activator_that_wakes_is_no_rival_of_a_scale_and_an_autoscaler_is() {
        let mut rival = ScaleRival::default();
        let unknown = Version::default();
        for secs in 0..10 {
            rival.wrote(0, unknown);
            assert!(!rival.saw(at(secs), 0, unknown) && !rival.saw(at(secs), 1, unknown));
        }
        let mut told = Vec::new();
        for secs in 0..3 {
            rival.wrote(5, unknown);
            rival.saw(at(secs), 2, unknown); // not seen yet
            rival.saw(at(secs), 5, unknown);
            told.push(rival.saw(at(secs), 2, unknown));
        }
        assert_eq!(told, [false, false, true]);
        assert!(rival.is_contested(at(4)));
    }

    #[test]
    fn a_rival_so_quick_that_our_number_is_never_seen_is_noticed_by_the_version() {
        let mut rival = ScaleRival::default();
        let mut told = Vec::new();
        for round in 1..=3 {
            rival.wrote(5, version(10 * round));
            assert!(
                !rival.saw(at(round), 2, version(10 * round - 1)),
                "from before"
            );
            assert!(
                !rival.saw(at(round), 2, version(10 * round - 1)),
                "from before"
            );
            told.push(rival.saw(at(round), 2, version(10 * round + 1)));
            assert!(
                !rival.saw(at(round), 2, version(10 * round + 2)),
                "counted once"
            );
        }
        assert_eq!(told, [false, false, true]);
    }

    #[test]
    fn our_own_next_number_is_no_rivals() {
        let mut rival = ScaleRival::default();
        for (round, number) in (1..=9).zip(1..) {
            rival.writes();
            // Seen before the answer to our write.
            assert!(!rival.saw(at(round), number, version(10 * round)));
            if round % 3 == 0 {
                rival.lost_track();
            } else {
                rival.wrote(number, version(10 * round));
            }
            assert!(!rival.saw(at(round), number, version(10 * round)));
        }
        // One that was refused leaves what was known.
        rival.wrote(5, version(100));
        rival.writes();
        rival.was_refused();
        for round in 0..2 {
            assert!(!rival.saw(at(20), 2, version(101 + 10 * round)));
            rival.wrote(5, version(102 + 10 * round));
        }
        assert!(rival.saw(at(20), 2, version(150)));
    }

    #[test]
    fn the_writer_is_whoever_wrote_the_field_last_and_is_not_us() {
        let fields: Vec<ManagedFieldsEntry> = serde_json::from_value(json!([
            {"manager": "rouse-autoscaler", "time": "2026-01-01T00:00:09Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kubectl", "time": "2026-01-01T00:00:01Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "hpa", "time": "2026-01-01T00:00:05Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "later", "time": "2026-01-01T00:00:07Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
            {"manager": "kube-controller-manager", "time": "2026-01-01T00:00:08Z", "subresource": "status",
                "fieldsV1": {"f:status": {"f:replicas": {}}}},
        ]))
        .unwrap();
        assert_eq!(writer(&fields, "replicas").as_deref(), Some("hpa"));
        assert_eq!(writer(&fields, "ports"), None);
    }
}
