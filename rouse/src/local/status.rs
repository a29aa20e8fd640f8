//! The live status of all workloads, rendered: a pure function from rows to lines.

use std::time::Duration;

/// The state of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusRow {
    /// Its name.
    pub workload: String,
    /// What the autoscaler is doing: `zero`, `stable`, `panic`, ...
    pub mode: String,
    /// Replicas that answer.
    pub ready: u32,
    /// Replicas that run but do not answer yet.
    pub starting: u32,
    /// Replicas that the autoscaler wants.
    pub wanted: u32,
    /// Requests inside the replicas.
    pub in_flight: u64,
    /// Requests that wait for a replica.
    pub held: u64,
    /// Requests ended per second, lately.
    pub requests_per_second: f64,
    /// Median response time, lately.
    pub p50: Option<Duration>,
}

const HEADINGS: [&str; 9] = [
    "WORKLOAD",
    "MODE",
    "READY",
    "STARTING",
    "WANTED",
    "IN FLIGHT",
    "HELD",
    "REQ/S",
    "P50",
];
/// Columns that go first when the terminal is narrow.
const DISPENSABLE: [usize; 6] = [8, 1, 7, 4, 3, 5];
/// The name is cut before columns go, down to this.
const NAME_WIDTH: usize = 16;
const GAP: &str = "  ";

/// A table of at most `height` lines, none wider than `width`.
pub fn table(rows: &[StatusRow], width: usize, height: usize, colour: bool) -> Vec<String> {
    let cells: Vec<[String; 9]> = rows.iter().map(cells).collect();
    let mut columns: Vec<usize> = (0..HEADINGS.len()).collect();
    let mut widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            cells
                .iter()
                .map(|row| chars(&row[column]))
                .chain([HEADINGS[column].len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let total = |columns: &[usize], widths: &[usize]| {
        columns.iter().map(|column| widths[*column]).sum::<usize>()
            + GAP.len() * columns.len().saturating_sub(1)
    };
    let excess = total(&columns, &widths).saturating_sub(width);
    widths[0] = widths[0]
        .saturating_sub(excess)
        .max(NAME_WIDTH.min(widths[0]));
    for column in DISPENSABLE {
        if total(&columns, &widths) > width {
            columns.retain(|kept| *kept != column);
        }
    }
    let line = |row: &[&str]| {
        let mut line = String::new();
        for column in &columns {
            let text = shorten(row[*column], widths[*column]);
            let pad = " ".repeat(widths[*column].saturating_sub(chars(&text)));
            let gap = if line.is_empty() { "" } else { GAP };
            // Words to the left, numbers to the right.
            line.extend(if *column < 2 {
                [gap, &text, &pad]
            } else {
                [gap, &pad, &text]
            });
        }
        shorten(line.trim_end(), width)
    };
    let heading = line(&HEADINGS);
    let mut lines = vec![if colour {
        format!("\u{1b}[1m{heading}\u{1b}[0m")
    } else {
        heading
    }];
    lines.extend(
        cells
            .iter()
            .map(|row| line(&row.each_ref().map(String::as_str))),
    );
    if lines.len() > height {
        let hidden = lines.len() - height + 1;
        lines.truncate(height.saturating_sub(1));
        if height > 0 {
            lines.push(shorten(&format!("... and {hidden} more"), width));
        }
    }
    lines
}

/// One line for each workload whose replicas or mode changed, that is new, or that began or ceased to hold requests.
pub fn changes(old: &[StatusRow], new: &[StatusRow]) -> Vec<String> {
    let key = |row: &StatusRow| {
        (
            row.mode.clone(),
            row.ready,
            row.starting,
            row.wanted,
            row.held > 0,
        )
    };
    new.iter()
        .filter(|row| {
            let before = old.iter().find(|before| before.workload == row.workload);
            before.is_none_or(|before| key(before) != key(row))
        })
        .map(line)
        .collect()
}

/// A workload's state as one line.
pub fn line(row: &StatusRow) -> String {
    let StatusRow {
        workload,
        mode,
        ready,
        starting,
        wanted,
        in_flight,
        held,
        ..
    } = row;
    let mut line = format!(
        "{workload}: {mode}, {ready} ready, {starting} starting, {wanted} wanted, {in_flight} in flight, {held} held, {} \
         req/s",
        rate(row.requests_per_second)
    );
    if row.p50.is_some() {
        line.extend([", p50 ", &duration(row.p50)]);
    }
    line
}

fn cells(row: &StatusRow) -> [String; 9] {
    [
        row.workload.clone(),
        row.mode.clone(),
        row.ready.to_string(),
        row.starting.to_string(),
        row.wanted.to_string(),
        row.in_flight.to_string(),
        row.held.to_string(),
        rate(row.requests_per_second),
        duration(row.p50),
    ]
}

fn rate(rate: f64) -> String {
    if !rate.is_finite() {
        "-".to_owned()
    } else if rate < 9.95 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

fn duration(duration: Option<Duration>) -> String {
    let Some(duration) = duration else {
        return "-".to_owned();
    };
    let millis = duration.as_secs_f64() * 1000.0;
    if millis < 9.95 {
        format!("{millis:.1} ms")
    } else if millis < 999.5 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", millis / 1000.0)
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

fn shorten(text: &str, width: usize) -> String {
    if chars(text) <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests;
