//! The wire form of statistics: what a queue-proxy and an activator answer to the autoscaler's GET.
//!
//! Pull only. The answer is JSON of whole numbers (so NaN and infinity cannot be said), bounded in size by
//! [`MAX_BYTES`], and checked as a whole by `decode`: anything out of range refuses the answer, never half of it.

use serde::{Deserialize, Serialize};

use crate::load::{SECONDS, Second};

/// Version of the format. A reader refuses a higher one.
pub const VERSION: u32 = 1;
/// Bytes of an answer that a reader takes. A full ring is about 6 KiB; a pod that answers more is hostile.
pub const MAX_BYTES: usize = 64 * 1024;
/// Bytes of an activator's answer, which is about all workloads: some 200 bytes each with one second. Without a second to
/// begin after, an activator tells the last one only, and with one never more than fits.
pub const ACTIVATOR_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Path of the statistics on the stats port of both programs.
pub const PATH: &str = "/stat";
/// Largest number of simultaneous requests that a single pod may claim. Ten million is beyond any socket limit.
const MAX_GAUGE: u64 = 10_000_000;

/// What one queue-proxy says of its pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStat {
    /// See [`VERSION`].
    pub version: u32,
    /// UID of the pod, as the queue-proxy was told.
    pub pod_uid: String,
    /// Drawn at start: another value means that the process restarted and its seconds began anew.
    pub boot: u64,
    /// The last whole second of the ring, in the pod's own count.
    pub last_second: u64,
    /// The model answered its readiness probe.
    pub ready: bool,
    /// The pod is going away.
    pub draining: bool,
    /// Served + waiting + relayed + tunnels: what must be 0 before the pod may be taken away. Probe paths are included.
    pub open: u64,
    /// Load now: in flight plus waiting, probe paths left out.
    pub load: u64,
    /// Requests now on their way through the pod to the activators. They are in `open` and in nothing else: whoever holds them counts
    /// them, then the pod that takes them.
    #[serde(default)]
    pub relayed: u64,
    /// Requests since start that were relayed and ended, however.
    #[serde(default)]
    pub relayed_total: u64,
    /// Requests since start, relayed ones left out.
    pub started_total: u64,
    /// Requests since start that ended, however.
    pub ended_total: u64,
    /// Whole seconds after the one that was asked for, oldest first; everything that is kept if none was.
    pub seconds: Vec<Second>,
}

/// What one activator says of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStat {
    /// `namespace/name`.
    pub target: String,
    /// Requests held now.
    pub held: u64,
    /// Whole seconds after the one that was asked for, oldest first; only the last one if none was. `waiting_us` is the
    /// integral of held requests.
    pub seconds: Vec<Second>,
}

/// What one activator says of all its workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivatorStat {
    /// See [`VERSION`].
    pub version: u32,
    /// As in [`PodStat`].
    pub boot: u64,
    /// As in [`PodStat`].
    pub last_second: u64,
    /// The workloads of the activator for which anything is held, or was in one of the seconds. Of one that is not named every
    /// second was empty.
    pub workloads: Vec<HoldStat>,
}

/// A number that differs from start to start of a process: the wall clock in nanoseconds, only ever compared for equality.
pub fn boot_number() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Why an answer was refused.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than are taken.
    #[error("statistics of more than {0} bytes")]
    TooLarge(usize),
    /// Not the JSON that was expected.
    #[error("statistics are not valid JSON of the expected form")]
    Json(#[from] serde_json::Error),
    /// A field out of its range.
    #[error("statistics field {field} is out of range")]
    Range {
        /// The field's name.
        field: &'static str,
    },
}

impl PodStat {
    /// Reads and checks an answer.
    ///
    /// # Errors
    /// [`DecodeError`]; the answer is then as good as missing.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stat: Self = parse(bytes, MAX_BYTES)?;
        check(stat.version == VERSION, "version")?;
        check(stat.pod_uid.len() <= 256, "pod_uid")?;
        check(stat.open <= MAX_GAUGE, "open")?;
        check(stat.load <= MAX_GAUGE, "load")?;
        check(stat.relayed <= MAX_GAUGE, "relayed")?;
        check_seconds(&stat.seconds, stat.last_second)?;
        Ok(stat)
    }
}

impl ActivatorStat {
    /// Reads and checks an answer.
    ///
    /// # Errors
    /// [`DecodeError`]; the answer is then as good as missing.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stat: Self = parse(bytes, ACTIVATOR_MAX_BYTES)?;
        check(stat.version == VERSION, "version")?;
        for workload in &stat.workloads {
            check(workload.target.len() <= 512, "target")?;
            check(workload.held <= MAX_GAUGE, "held")?;
            check_seconds(&workload.seconds, stat.last_second)?;
        }
        Ok(stat)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge(max));
    }
    Ok(serde_json::from_slice(bytes)?)
}

fn check_seconds(seconds: &[Second], last: u64) -> Result<(), DecodeError> {
    check(seconds.len() < SECONDS, "seconds")?;
    let mut previous = None;
    for second in seconds {
        check(second.second <= last, "second")?;
        check(previous.is_none_or(|p| second.second > p), "second")?;
        check(second.in_flight_us <= MAX_GAUGE * 1_000_000, "in_flight_us")?;
        check(second.waiting_us <= MAX_GAUGE * 1_000_000, "waiting_us")?;
        check(
            second.started <= MAX_GAUGE && second.ended <= MAX_GAUGE,
            "started",
        )?;
        check(second.released <= MAX_GAUGE, "released")?;
        previous = Some(second.second);
    }
    Ok(())
}

fn check(holds: bool, field: &'static str) -> Result<(), DecodeError> {
    if holds {
        Ok(())
    } else {
        Err(DecodeError::Range { field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat() -> PodStat {
        PodStat {
            version: VERSION,
            pod_uid: "p".into(),
            boot: 7,
            last_second: 9,
            ready: true,
            draining: false,
            open: 1,
            load: 1,
            relayed: 1,
            relayed_total: 4,
            started_total: 3,
            ended_total: 2,
            seconds: vec![
                Second {
                    second: 8,
                    ..Second::default()
                },
                Second {
                    second: 9,
                    ..Second::default()
                },
            ],
        }
    }

    #[test]
    fn survives_the_wire() {
        let bytes = serde_json::to_vec(&stat()).unwrap();
        assert_eq!(PodStat::decode(&bytes).unwrap(), stat());
    }

    #[test]
    fn a_pod_and_a_reader_of_different_versions_understand_each_other() {
        let mut old = serde_json::to_value(stat()).unwrap();
        let fields = old.as_object_mut().unwrap();
        for added in ["relayed", "relayed_total"] {
            assert!(fields.remove(added).is_some());
        }
        let read = PodStat::decode(&serde_json::to_vec(&old).unwrap()).unwrap();
        let expected = PodStat {
            relayed: 0,
            relayed_total: 0,
            ..stat()
        };
        assert_eq!(read, expected);
        // A later one says more than is known here.
        old["later"] = 1.into();
        assert!(PodStat::decode(&serde_json::to_vec(&old).unwrap()).is_ok());
    }

    #[test]
    fn refuses_what_no_honest_pod_says() {
        type Edit = fn(&mut PodStat);
        let edits: [(&str, Edit); 7] = [
            ("version", |s| s.version = 2),
            ("relayed", |s| s.relayed = u64::MAX),
            ("open", |s| s.open = u64::MAX),
            ("second", |s| s.seconds[1].second = 10),
            ("second", |s| s.seconds[1].second = 8),
            ("in_flight_us", |s| s.seconds[0].in_flight_us = u64::MAX),
            ("seconds", |s| s.seconds = vec![Second::default(); 64]),
        ];
        for (field, edit) in edits {
            let mut bad = stat();
            edit(&mut bad);
            let error = PodStat::decode(&serde_json::to_vec(&bad).unwrap()).unwrap_err();
            assert!(
                matches!(error, DecodeError::Range { field: f } if f == field),
                "{field}: {error}"
            );
        }
        for bad in [
            &b"{}"[..],
            b"NaN",
            b"{\"version\":1e999}",
            &vec![b' '; MAX_BYTES + 1],
        ] {
            assert!(PodStat::decode(bad).is_err());
        }
    }
}
