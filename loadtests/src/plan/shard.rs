//! A part of a schedule that one of several load testers sends: every N-th request of it.
//!
//! All of them have the same schedule, so that their parts are, together, just this schedule: no request is lost or doubled, and a
//! burst is as sudden as it was planned.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Shards of a schedule, at most: more machines than anyone has for this.
const MOST: u32 = 1_000;
const ALLOWED: &str =
    "I/N, the part I from 0 to N-1 of N parts, at most 1000, such as 0/4, 1/4, 2/4 and 3/4";

/// Which requests of a schedule are sent here: those whose number, divided by `of`, leaves `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Shard {
    index: u32,
    of: u32,
}

impl Default for Shard {
    /// All of them.
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl Shard {
    /// The part `index` of `of`, if there is such a part.
    pub fn new(index: u32, of: u32) -> Option<Self> {
        (index < of && of <= MOST).then_some(Self { index, of })
    }

    /// Requests of the whole before the first of this part.
    pub(super) fn skipped(self) -> usize {
        self.index as usize
    }

    /// From one request of this part to the next, in requests of the whole.
    pub(super) fn step(self) -> usize {
        self.of as usize
    }

    /// How many parts there are.
    pub(crate) fn of(self) -> f64 {
        f64::from(self.of)
    }

    /// Whether both can be parts of the same schedule, and are not the same part.
    pub(crate) fn goes_with(self, other: Self) -> bool {
        self.of == other.of && self.index != other.index
    }

    /// Whether these are all parts of a schedule, each once.
    pub(crate) fn are_whole(shards: impl IntoIterator<Item = Option<Self>>) -> bool {
        let Some(mut shards) = shards.into_iter().collect::<Option<Vec<_>>>() else {
            return false;
        };
        shards.sort_unstable_by_key(|shard| shard.index);
        let is_next = |(index, shard): (u32, &Self)| {
            shard.index == index && u32::try_from(shards.len()) == Ok(shard.of)
        };
        !shards.is_empty() && (0..).zip(&shards).all(is_next)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shard = text.split_once('/').and_then(|(index, of)| {
            let number = |text: &str| text.trim().parse().ok();
            Self::new(number(index)?, number(of)?)
        });
        shard.ok_or_else(|| ALLOWED.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        for text in ["0/1", "3/4", "999/1000"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for text in ["", "1", "4/4", "-1/4", "0/0", "0/1001", "a/b", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn knows_when_nothing_is_missing_and_nothing_is_there_twice() {
        let whole =
            |texts: &[&str]| Shard::are_whole(texts.iter().map(|text| text.parse::<Shard>().ok()));
        assert!(whole(&["1/3", "0/3", "2/3"]) && whole(&["0/1"]));
        for texts in [
            &[][..],
            &["0/2"],
            &["0/2", "0/2"],
            &["0/2", "1/2", "1/2"],
            &["0/2", "1/3"],
            &["0/2", ""],
        ] {
            assert!(!whole(texts), "{texts:?}");
        }
    }
}
