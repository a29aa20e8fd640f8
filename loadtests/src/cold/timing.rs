//! Rouse's own timeline of a wake: the header `rouse-timing` of an answer, or an entry of `/debug/wakes`.

use serde::Deserialize;

/// The header.
pub(super) const HEADER: &str = "rouse-timing";
/// Entries of a header that are read: Rouse has some twelve.
const MOST: usize = 32;

/// Where an answer's time went, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Timing {
    /// How long an activator held the request. How long it was queued in the pod is left out: it says nothing of a start.
    pub(super) held: Option<f64>,
    /// Phases of the wake that it ended, if it did, since the demand was noticed.
    pub(super) phases: Vec<(String, f64)>,
}

/// One entry of `/debug/wakes`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Told {
    /// `namespace/name`.
    pub(super) target: String,
    pub(super) phases: Vec<(String, f64)>,
    /// Seconds from noticed to the head of the answer.
    pub(super) total: f64,
}

impl Timing {
    /// Reads `hold;dur=MS, patch_sent;dur=MS, ..`; what is not of this form is left out.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let mut timing = Self::default();
        let mut any = false;
        for part in header.split(',').take(MOST) {
            let Some((name, millis)) = part.trim().split_once(";dur=") else {
                continue;
            };
            let Some(seconds) = millis
                .parse()
                .ok()
                .map(|ms: f64| ms / 1e3)
                .filter(|at| sane(*at))
            else {
                continue;
            };
            any = true;
            match name {
                "hold" => timing.held = Some(seconds),
                "queue" => {}
                name => timing.phases.push((name.to_owned(), seconds)),
            }
        }
        any.then_some(timing)
    }

    /// When a phase was over, in seconds since the demand was noticed.
    pub(super) fn at(&self, name: &str) -> Option<f64> {
        let phase = self.phases.iter().find(|(phase, _)| phase == name);
        phase.map(|(_, at)| *at)
    }

    /// When the pod of the wake began. When an activator learned of it says nothing: that may be much later.
    pub(super) fn began(&self) -> Option<f64> {
        self.at("pod_created")
            .or_else(|| self.at("sidecar_started"))
    }

    /// When the demand was noticed, in seconds after the request of this answer was sent, at the earliest: it arrived when it was sent,
    /// and was held from then until it was forwarded.
    pub(super) fn noticed(&self) -> f64 {
        let waited = self.held.zip(self.at("forwarded"));
        waited.map_or(0.0, |(held, forwarded)| held - forwarded)
    }
}

impl Told {
    /// Reads a list of them; none if it is none.
    pub(super) fn list(json: &[u8]) -> Option<Vec<Self>> {
        let mut list: Vec<Self> = serde_json::from_slice(json).ok()?;
        for told in &mut list {
            told.phases.truncate(MOST);
            told.phases.retain(|(_, at)| sane(*at));
        }
        list.retain(|told| sane(told.total));
        Some(list)
    }
}

/// A time within a day.
fn sane(seconds: f64) -> bool {
    (0.0..=86_400.0).contains(&seconds)
}

#[cfg(test)]
mod tests {
    use super::{Timing, Told};

    #[test]
    fn a_header_gives_what_is_in_it_and_nothing_else() {
        let timing = Timing::parse("hold;dur=1300.743, patch_sent;dur=0.057, x, y;dur=-1, z;dur=nan, pod_created;dur=0.308").unwrap();
        assert_eq!(timing.held, Some(1.300_743));
        assert_eq!(timing.phases.len(), 2);
        assert_eq!(timing.began(), Some(0.000_308));
        assert_eq!(timing.at("first_byte"), None);
        let queued = Timing::parse("queue;dur=0.016").unwrap();
        assert!(queued.phases.is_empty() && queued.held.is_none());
        for none in ["", "hold", "hold;dur=", "hold;dur=x"] {
            assert_eq!(Timing::parse(none), None, "{none}");
        }
        let many = "a;dur=1,".repeat(1_000);
        assert_eq!(Timing::parse(&many).unwrap().phases.len(), super::MOST);
    }

    #[test]
    fn a_list_of_wakes_is_read_as_the_activator_writes_it() {
        let json = br#"[{"target": "a/b", "phases": [["patch_sent", 0.1], ["first_byte", 1e99]], "ours": 0.1, "total": 1.5}]"#;
        let [told] = &Told::list(json).unwrap()[..] else {
            panic!("one")
        };
        assert_eq!((told.target.as_str(), told.total), ("a/b", 1.5));
        assert_eq!(told.phases, [("patch_sent".to_owned(), 0.1)]);
        assert_eq!(Told::list(b"{}"), None);
    }
}
