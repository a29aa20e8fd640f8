//! Statistics from anybody: refused, or such that whoever reckons with them cannot be led astray.

use arbitrary::{Arbitrary, Unstructured};
use shared::{
    load::{SECONDS, Second},
    stat::{ActivatorStat, HoldStat, PodStat, VERSION},
};

/// More than any number that is believed, and sums of as many of them as there may be stay far below 2^63.
const MANY: u64 = 10_000_000;

/// A number as a liar or a broken program writes it.
#[derive(Arbitrary, Debug)]
enum Number {
    Small(u8),
    Any(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Near { of: u8, below: bool },
}

impl Number {
    fn json(&self) -> String {
        match self {
            Self::Small(n) => n.to_string(),
            Self::Any(n) => n.to_string(),
            Self::Signed(n) => n.to_string(),
            Self::Float(n) => format!("{n:?}"),
            Self::Text(text) => serde_json::to_string(text).unwrap(),
            Self::Near { of, below } => {
                let bound = [MANY, MANY * 1_000_000, u64::MAX][usize::from(*of) % 3];
                let number = if *below {
                    bound
                } else {
                    bound.saturating_add(1)
                };
                number.to_string()
            }
        }
    }
}

/// What may be written instead of a number that is right.
#[derive(Arbitrary, Debug)]
struct Lies {
    version: Option<Number>,
    gauges: [Option<Number>; 3],
    last: u8,
    seconds: Vec<(u8, [Option<Number>; 6])>,
}

impl Lies {
    fn seconds(&self) -> String {
        let seconds = self.seconds.iter().take(2 * SECONDS).map(|(second, lies)| {
            let [at, in_flight, waiting, started, ended, released] =
                lies.each_ref().map(Option::as_ref);
            format!(
                r#"{{"second":{},"in_flight_us":{},"waiting_us":{},"started":{},"ended":{},"released":{}}}"#,
                or(at, u64::from(*second)),
                or(in_flight, 1),
                or(waiting, 2),
                or(started, 3),
                or(ended, 4),
                or(released, 5),
            )
        });
        seconds.collect::<Vec<_>>().join(",")
    }

    fn pod(&self) -> String {
        let [open, load, total] = self.gauges.each_ref().map(Option::as_ref);
        format!(
            r#"{{"version":{},"pod_uid":"p","boot":1,"last_second":{},"ready":true,"draining":false,"open":{},"load":{},"relayed":{},"started_total":{},"ended_total":0,"seconds":[{}]}}"#,
            or(self.version.as_ref(), VERSION.into()),
            self.last,
            or(open, 1),
            or(load, 1),
            or(load, 1),
            or(total, 1),
            self.seconds()
        )
    }

    fn activator(&self) -> String {
        format!(
            r#"{{"version":{},"boot":1,"last_second":{},"workloads":[{{"target":"a/b","held":{},"seconds":[{}]}}]}}"#,
            or(self.version.as_ref(), VERSION.into()),
            self.last,
            or(self.gauges[0].as_ref(), 1),
            self.seconds()
        )
    }
}

fn or(lie: Option<&Number>, truth: u64) -> String {
    lie.map_or_else(|| truth.to_string(), Number::json)
}

/// # Panics
/// If anything does not hold.
pub(crate) fn check(bytes: &[u8]) {
    decode(bytes);
    if let Ok(lies) = Lies::arbitrary(&mut Unstructured::new(bytes)) {
        decode(lies.pod().as_bytes());
        decode(lies.activator().as_bytes());
    }
}

fn decode(bytes: &[u8]) {
    if let Ok(stat) = PodStat::decode(bytes) {
        assert_eq!(stat.version, VERSION);
        assert!(stat.open <= MANY && stat.load <= MANY && stat.pod_uid.len() <= 256);
        sound(&stat.seconds, stat.last_second);
        let again = PodStat::decode(&serde_json::to_vec(&stat).unwrap());
        assert_eq!(again.unwrap(), stat, "what is told on is believed as well");
    }
    if let Ok(stat) = ActivatorStat::decode(bytes) {
        assert_eq!(stat.version, VERSION);
        for HoldStat { held, seconds, .. } in &stat.workloads {
            assert!(*held <= MANY);
            sound(seconds, stat.last_second);
        }
        let again = ActivatorStat::decode(&serde_json::to_vec(&stat).unwrap());
        assert_eq!(again.unwrap(), stat, "what is told on is believed as well");
    }
}

/// At most as many seconds as a ring has, each once and in order, none from the future, each with numbers that can be.
fn sound(seconds: &[Second], last: u64) {
    assert!(seconds.len() < SECONDS);
    assert!(seconds.iter().all(|second| second.second <= last));
    assert!(seconds.windows(2).all(|two| two[0].second < two[1].second));
    for second in seconds {
        let counts = [second.started, second.ended, second.released];
        assert!(counts.iter().all(|count| *count <= MANY), "{second:?}");
        let integrals = [second.in_flight_us, second.waiting_us];
        assert!(
            integrals.iter().all(|sum| *sum <= MANY * 1_000_000),
            "{second:?}"
        );
    }
}
