//! Traces: when requests came somewhere else, to be replayed.
//!
//! Three forms are told apart by their first line:
//!
//! - Azure Functions per minute (the CSV of the 2019 data set: `HashOwner,HashApp,HashFunction,Trigger,1,2,..`): how many requests each
//!   function had in each minute. Within a minute those of a row are evenly spaced, with an offset of the row's own: if each minute
//!   of every row began at its full second, the replay would have a burst there that nobody had.
//! - Mooncake's JSONL: an object a line, with `timestamp` in milliseconds.
//! - JSONL of bare numbers, in seconds.
//!
//! Times count from the first of them, but for minutes, whose first is the beginning.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use super::dice::SplitMix;
use crate::{error::Error, unit::MAX_DURATION};

/// Instants, or cells of a table that are not zero: 160 MB of them.
const MAX_POINTS: usize = 10_000_000;
/// Bytes of one line: a row of a day has some 10 KB.
const MAX_LINE: u64 = 1024 * 1024;
/// Requests of one minute: 100,000 each second.
const MAX_PER_MINUTE: u64 = 6_000_000;
const MINUTE: f64 = 60.0;

const ALLOWED: &str = "a CSV of requests per minute with columns 1, 2, .., or a line for each request: seconds, or an object with \
                       \"timestamp\" in milliseconds";

/// A trace that was read, and how it is replayed. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    file: String,
    points: Arc<Points>,
    replay: Replay,
}

/// How a trace is replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// How much faster it goes than it was recorded.
    pub speed: f64,
    /// Of a table, only the rows that have one of these in one of their columns of text are taken; all, if there are none.
    pub rows: Vec<String>,
    /// Decides the offsets of rows.
    pub seed: u64,
    /// Where it ends, if not with the trace.
    pub until: Option<Duration>,
}

#[derive(Debug, PartialEq)]
enum Points {
    /// Seconds from the first, in order.
    Instants(Vec<f64>),
    /// By minute, then by row.
    Minutes {
        cells: Vec<Cell>,
        minutes: u32,
        total: u64,
    },
}

/// Requests of one row in one minute.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    minute: u32,
    count: u32,
    /// Where in its gap each of them lies, from 0 to below 1.
    offset: f32,
    /// Which row of the file, from 0.
    row: u32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Seconds(f64),
    Mooncake { timestamp: f64 },
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// Names the file, the line and what is allowed.
    pub fn read(path: &Path, replay: Replay) -> Result<Self, Error> {
        let named = |what: String| {
            let shown = path.display().to_string();
            Error::invalid("--trace", shown, what)
        };
        let file = File::open(path).map_err(|e| named(format!("a readable file ({e})")))?;
        let points = parse(BufReader::new(file), &replay.rows, replay.seed).map_err(named)?;
        let trace = Self {
            file: path.display().to_string(),
            points: Arc::new(points),
            replay,
        };
        if trace.seconds() > MAX_DURATION.as_secs_f64() {
            let hours = trace.seconds() / 3_600.0;
            return Err(named(format!(
                "at most 24h; at this speed it takes {hours:.1} h: see --speed and --duration"
            )));
        }
        Ok(trace)
    }

    /// Of its replay.
    fn seconds(&self) -> f64 {
        let until = self.replay.until.map_or(f64::INFINITY, |u| u.as_secs_f64());
        (self.whole() / self.replay.speed).min(until)
    }

    /// The file that it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How long its replay takes.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds())
    }

    /// Requests of the whole trace.
    pub fn requests(&self) -> u64 {
        match &*self.points {
            Points::Instants(instants) => instants.len() as u64,
            Points::Minutes { total, .. } => *total,
        }
    }

    /// How it is replayed.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Requests each second on average, of the whole trace at the speed of its replay. One that takes no second has as many in one.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of requests stays far below 2^53"
    )]
    pub(super) fn mean_rate(&self) -> f64 {
        self.requests() as f64 / (self.whole() / self.replay.speed).max(1.0)
    }

    /// Seconds as they were recorded.
    fn whole(&self) -> f64 {
        match &*self.points {
            Points::Instants(instants) => instants.last().copied().unwrap_or_default(),
            Points::Minutes { minutes, .. } => f64::from(*minutes) * MINUTE,
        }
    }

    /// Seconds from the beginning of the replay, in order.
    pub(crate) fn due(&self) -> Due<'_> {
        Due {
            trace: self,
            at: 0,
            minute: BinaryHeap::new(),
        }
    }
}

/// The instants of a trace, in seconds, and whose each is: the row of a table, or else its own number.
#[derive(Clone, Debug)]
pub(crate) struct Due<'a> {
    trace: &'a Trace,
    /// The next instant or cell.
    at: usize,
    /// The next request of each cell of the present minute, the earliest on top: a minute may have millions, which are not all made
    /// between two of them.
    minute: BinaryHeap<Reverse<Next>>,
}

/// The next request of a cell.
#[derive(Clone, Copy, Debug)]
struct Next {
    /// Seconds.
    at: f64,
    cell: Cell,
    /// How many of the cell went before.
    number: u32,
}

impl Next {
    fn new(cell: Cell, number: u32) -> Self {
        let gap = MINUTE / f64::from(cell.count);
        let first = f64::from(cell.minute) * MINUTE + f64::from(cell.offset) * gap;
        Self {
            at: first + gap * f64::from(number),
            cell,
            number,
        }
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at)
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Next {}

impl Iterator for Due<'_> {
    type Item = (f64, u32);

    fn next(&mut self) -> Option<(f64, u32)> {
        let (due, whose) = match &*self.trace.points {
            Points::Instants(instants) => {
                let due = *instants.get(self.at)?;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "there are at most ten million"
                )]
                let number = self.at as u32;
                self.at += 1;
                (due, number)
            }
            Points::Minutes { cells, .. } => {
                if self.minute.is_empty() {
                    let present = cells.get(self.at)?.minute;
                    let cells = cells[self.at..]
                        .iter()
                        .take_while(|cell| cell.minute == present);
                    self.minute
                        .extend(cells.map(|cell| Reverse(Next::new(*cell, 0))));
                    self.at += self.minute.len();
                }
                let Reverse(next) = self.minute.pop()?;
                if next.number + 1 < next.cell.count {
                    let after = Next::new(next.cell, next.number + 1);
                    self.minute.push(Reverse(after));
                }
                (next.at, next.cell.row)
            }
        };
        let due = due / self.trace.replay.speed;
        let until = self.trace.replay.until;
        until
            .is_none_or(|end| due < end.as_secs_f64())
            .then_some((due, whose))
    }
}

fn parse(mut text: impl BufRead, rows: &[String], seed: u64) -> Result<Points, String> {
    let mut line = String::new();
    let mut number = 0;
    let mut read = |line: &mut String| {
        line.clear();
        number += 1;
        let wrong = |e: &dyn std::fmt::Display| format!("line {number}: {e}: {ALLOWED}");
        let bytes = text.by_ref().take(MAX_LINE).read_line(line);
        match bytes.map_err(|e| wrong(&e))? {
            0 => Ok(None),
            n if n as u64 == MAX_LINE => Err(wrong(&format!("longer than {MAX_LINE} bytes"))),
            _ => Ok(Some(number)),
        }
    };
    // What comes before the first line that says anything is left out.
    let first = loop {
        match read(&mut line)? {
            None => return Err(format!("it has no request: {ALLOWED}")),
            Some(_) if line.trim().is_empty() => {}
            Some(number) => break number,
        }
    };
    if let Some(minutes) = minutes_of(&line) {
        if minutes > 24 * 60 * 31 {
            return Err(format!("line {first}: more than 31 days of minutes"));
        }
        let columns = line.split(',').count();
        let mut table = Table::new(rows, seed, columns, minutes);
        while let Some(number) = read(&mut line)? {
            if !line.trim().is_empty() {
                table
                    .row(&line)
                    .map_err(|e| format!("line {number}: {e}"))?;
            }
        }
        return table.finish();
    }
    if !rows.is_empty() {
        return Err("--trace-row is for tables of requests per minute".to_owned());
    }
    let mut instants = Vec::new();
    let mut next = Some(first);
    while let Some(number) = next {
        if !line.trim().is_empty() {
            let seconds = seconds(&line).ok_or_else(|| format!("line {number}: {ALLOWED}"))?;
            if instants.len() == MAX_POINTS {
                return Err(format!("line {number}: more than {MAX_POINTS} requests"));
            }
            instants.push(seconds);
        }
        next = read(&mut line)?;
    }
    instants.sort_unstable_by(f64::total_cmp);
    let first = instants.first().copied().unwrap_or_default();
    for at in &mut instants {
        *at -= first;
    }
    Ok(Points::Instants(instants))
}

/// One line for one request.
fn seconds(line: &str) -> Option<f64> {
    let seconds = match serde_json::from_str(line).ok()? {
        Line::Seconds(seconds) => seconds,
        Line::Mooncake { timestamp } => timestamp / 1_000.0,
    };
    // Up to the year 2286, to a microsecond.
    (0.0..=1e10).contains(&seconds).then_some(seconds)
}

/// How many minutes the columns after those of text are, if this is the head of such a table.
fn minutes_of(head: &str) -> Option<u32> {
    let mut minutes = 0;
    for column in head.trim().split(',').map(unquoted) {
        match column.parse::<u32>() {
            Ok(number) if number == minutes + 1 => minutes += 1,
            Ok(_) => return None,
            // Text goes before.
            Err(_) if minutes > 0 => return None,
            Err(_) => {}
        }
    }
    let has_text = head.trim().split(',').count() as u64 > u64::from(minutes);
    (minutes > 0 && (has_text || minutes > 1)).then_some(minutes)
}

fn unquoted(field: &str) -> &str {
    field.trim().trim_matches('"')
}

/// A table that is being read.
struct Table<'a> {
    rows: &'a [String],
    dice: SplitMix,
    /// Of text and of minutes.
    columns: usize,
    minutes: u32,
    cells: Vec<Cell>,
    per_minute: BTreeMap<u32, u64>,
    taken: u64,
    /// Rows that were read, taken or not.
    read: u32,
}

impl<'a> Table<'a> {
    fn new(rows: &'a [String], seed: u64, columns: usize, minutes: u32) -> Self {
        Self {
            rows,
            dice: SplitMix(seed),
            columns,
            minutes,
            cells: Vec::new(),
            per_minute: BTreeMap::new(),
            taken: 0,
            read: 0,
        }
    }

    fn row(&mut self, line: &str) -> Result<(), String> {
        let fields: Vec<_> = line.trim().split(',').map(unquoted).collect();
        if fields.len() != self.columns {
            let (got, wanted) = (fields.len(), self.columns);
            return Err(format!("{got} columns, not the {wanted} of its head"));
        }
        // A row's offset does not depend on which others are taken.
        #[expect(clippy::cast_possible_truncation, reason = "an offset, not a sum")]
        let offset = (self.dice.uniform() as f32).min(0.999_999);
        let row = self.read;
        self.read = row.wrapping_add(1);
        let (text, counts) = fields.split_at(self.columns - self.minutes as usize);
        let is_asked = |field: &&str| self.rows.iter().any(|row| row == field);
        if !self.rows.is_empty() && !text.iter().any(is_asked) {
            return Ok(());
        }
        self.taken += 1;
        for (minute, count) in (0..).zip(counts) {
            let count = match *count {
                "" => 0,
                count => count
                    .parse()
                    .map_err(|_| format!("minute {}: {count:?} is no count", minute + 1))?,
            };
            if count == 0 {
                continue;
            }
            let in_minute = self.per_minute.entry(minute).or_default();
            *in_minute += u64::from(count);
            if *in_minute > MAX_PER_MINUTE {
                return Err(format!(
                    "minute {}: more than {MAX_PER_MINUTE} requests",
                    minute + 1
                ));
            }
            if self.cells.len() == MAX_POINTS {
                return Err(format!("more than {MAX_POINTS} counts that are not 0"));
            }
            self.cells.push(Cell {
                minute,
                count,
                offset,
                row,
            });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Points, String> {
        if self.taken == 0 && !self.rows.is_empty() {
            return Err(format!("no row has {}", self.rows.join(" or ")));
        }
        if self.cells.is_empty() {
            return Err("its rows have no request".to_owned());
        }
        // Stable, so that rows keep their order.
        self.cells.sort_by_key(|cell| cell.minute);
        Ok(Points::Minutes {
            total: self.per_minute.values().sum(),
            minutes: self.minutes,
            cells: self.cells,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str, rows: &[&str], speed: f64) -> Result<Trace, String> {
        let replay = Replay {
            speed,
            rows: rows.iter().map(|row| (*row).to_owned()).collect(),
            seed: 3,
            until: None,
        };
        Ok(Trace {
            file: "a".to_owned(),
            points: Arc::new(parse(text.as_bytes(), &replay.rows, replay.seed)?),
            replay,
        })
    }

    const AZURE: &str = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\n\
                         o,a,f,http,2,0,1\n\
                         o,a,g,queue,0,,60\n";

    #[test]
    fn requests_of_a_minute_lie_in_it_evenly_spaced_and_rows_do_not_begin_together() {
        let all = trace(AZURE, &[], 1.0).unwrap();
        let due: Vec<_> = all.due().map(|(at, _)| at).collect();
        assert_eq!((due.len(), all.requests()), (63, 63));
        assert!(due.is_sorted());
        assert_eq!(all.length(), Duration::from_mins(3));
        assert!(
            due[1] < 60.0 && (due[1] - due[0] - 30.0).abs() < 1e-9,
            "{due:?}"
        );
        assert!(due[2] >= 120.0 && due[62] < 180.0, "{due:?}");
        let f: Vec<_> = trace(AZURE, &["f"], 1.0)
            .unwrap()
            .due()
            .map(|(at, _)| at)
            .collect();
        let g: Vec<_> = trace(AZURE, &["g"], 1.0)
            .unwrap()
            .due()
            .map(|(at, _)| at)
            .collect();
        assert_eq!((f.len(), g.len()), (3, 60));
        assert!(
            (f[0] - due[0]).abs() < 1e-12,
            "which rows are taken moves none of them"
        );
        assert!(f.iter().all(|at| at % 60.0 > 1e-6), "{f:?}");
        assert!(((g[1] - g[0]) - 1.0).abs() < 1e-9);
        let offset = |first: f64, gap: f64| (first % gap) / gap;
        assert!((offset(f[0], 30.0) - offset(g[0], 1.0)).abs() > 1e-3);
    }

    #[test]
    fn lines_of_time_count_from_the_first_in_their_unit() {
        let mooncake = "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46]}\n\
                        {\"timestamp\": 30535, \"input_length\": 6, \"output_length\": 1, \"hash_ids\": []}\n";
        let due: Vec<_> = trace(mooncake, &[], 1.0)
            .unwrap()
            .due()
            .map(|(at, _)| at)
            .collect();
        assert!((due[1] - 3.053).abs() < 1e-9 && due[0] == 0.0, "{due:?}");
        let plain = trace("\n1699999999.5\n\n1700000000.5\n1699999999.75\n", &[], 2.0).unwrap();
        let due: Vec<_> = plain.due().map(|(at, _)| at).collect();
        assert_eq!(due, [0.0, 0.125, 0.5]);
        assert_eq!(plain.length(), Duration::from_millis(500));
        let mut cut = plain;
        cut.replay.until = Some(Duration::from_millis(125));
        assert_eq!(
            (cut.due().count(), cut.length()),
            (1, Duration::from_millis(125))
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for (text, says) in [
            ("", "no request"),
            ("\n \n", "no request"),
            ("1\nx\n", "line 2: a CSV"),
            ("{\"time\": 1}", "line 1: a CSV"),
            ("1\n-1", "line 2: a CSV"),
            ("1\n1e99", "line 2: a CSV"),
            (
                "HashFunction,1,2\nf,1,2\nf,1",
                "line 3: 2 columns, not the 3",
            ),
            (
                "HashFunction,1,2\nf,1,-1",
                "line 2: minute 2: \"-1\" is no count",
            ),
            (
                "HashFunction,1,2\nf,1,7000000",
                "line 2: minute 2: more than 6000000",
            ),
            ("HashFunction,1,2\nf,0,0", "its rows have no request"),
            ("HashFunction,1,3\nf,0,0", "line 1: a CSV"),
        ] {
            let error = trace(text, &[], 1.0).expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
        let error = trace(AZURE, &["h", "i"], 1.0).unwrap_err();
        assert_eq!(error, "no row has h or i");
        let error = trace("1\n", &["h"], 1.0).unwrap_err();
        assert!(error.contains("--trace-row"), "{error}");
        let long = format!("{}\n", "1".repeat(1024 * 1024 + 5));
        assert!(trace(&long, &[], 1.0).unwrap_err().contains("longer than"));
    }
}
