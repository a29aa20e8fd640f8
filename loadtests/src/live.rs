//! A running load on a terminal: a few lines, drawn again in place.
//!
//! What is drawn is a pure function of the progress and of how the terminal looks ([`lines`]); what is left is to move the cursor up and to
//! erase, which needs no library. The terminal is never put into another state (no hidden cursor, no raw mode), and the cursor always
//! stands below the lines, so that nothing has to be restored whatever ends the program.

use std::{
    collections::VecDeque,
    env,
    io::{self, IsTerminal, Write},
};

use parking_lot::Mutex;
use rustix::termios::tcgetwinsize;

use crate::{
    progress::{End, Progress},
    unit::{grouped, human},
};

/// Seconds of which the rate is drawn, at most.
const MOST_RATES: usize = 60;
/// Characters of the bar, at most.
const MOST_BAR: usize = 40;
/// Of the names on the left.
const LABEL: usize = 10;
/// Where a terminal does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// How a terminal looks.
#[derive(Clone, Copy, Debug)]
struct Look {
    width: usize,
    height: usize,
    has_colour: bool,
    has_blocks: bool,
}

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Quiet,
    Good,
    Bad,
}

/// A piece of a line, which is there as a whole or not at all.
type Piece = (String, Tone);

/// The lines on the terminal behind standard error.
#[derive(Debug)]
pub(crate) struct Screen(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Characters of each line that is there now.
    drawn: Vec<usize>,
    /// Of each second.
    rates: VecDeque<f64>,
    /// The last second whose rate is among these.
    noted: u64,
}

impl Screen {
    /// None where nobody watches, or nobody wants to.
    pub(crate) fn of_stderr(is_quiet: bool) -> Option<Self> {
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let shows = !is_quiet && !is_dumb && io::stderr().is_terminal();
        shows.then(|| Self(Mutex::default()))
    }

    /// Draws the lines, in place of those before.
    pub(crate) fn show(&self, progress: &Progress) {
        let mut state = self.0.lock();
        let look = Look::of_stderr();
        state.remember(progress);
        let lines = lines(progress, &state.rates, look);
        let text = state.redraw(&lines, look.width);
        put(&text);
    }

    /// Takes the lines away.
    pub(crate) fn clear(&self) {
        let mut state = self.0.lock();
        let text = state.redraw(&[], Look::of_stderr().width);
        put(&text);
    }
}

/// In one piece, so that nothing is seen half drawn. If the terminal has gone, there is nobody to tell.
fn put(text: &str) {
    let mut stderr = io::stderr().lock();
    let _gone = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

impl Look {
    fn of_stderr() -> Self {
        let size = tcgetwinsize(io::stderr()).ok();
        let or_usual = |size: u16, usual| if size == 0 { usual } else { usize::from(size) };
        Self {
            width: size.map_or(USUAL_WIDTH, |size| or_usual(size.ws_col, USUAL_WIDTH)),
            height: size.map_or(usize::MAX, |size| or_usual(size.ws_row, usize::MAX)),
            has_colour: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            has_blocks: is_utf8(|name| env::var(name).ok()),
        }
    }
}

/// Whether text is UTF-8, by the first of the variables that says anything.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty())
        .is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        })
}

impl State {
    /// Notes the rate once a second.
    fn remember(&mut self, progress: &Progress) {
        let second = progress.elapsed.as_secs();
        if progress.warming_up || second <= self.noted {
            return;
        }
        self.noted = second;
        if self.rates.len() == MOST_RATES {
            self.rates.pop_front();
        }
        self.rates.push_back(progress.recent.rate);
    }

    /// What takes the lines before away and puts `lines` in their place.
    fn redraw(&mut self, lines: &[String], width: usize) -> String {
        // Where the terminal has become narrower, long lines have become several.
        let rows: usize = self
            .drawn
            .iter()
            .map(|length| length.div_ceil(width).max(1))
            .sum();
        let mut text = String::new();
        if rows > 0 {
            text = format!("\r\x1b[{rows}A\x1b[J");
        }
        for line in lines {
            text.push_str(line);
            text.push_str("\r\n");
        }
        self.drawn = lines.iter().map(|line| visible(line)).collect();
        text
    }
}

/// Characters of a line that take room.
fn visible(line: &str) -> usize {
    let mut is_escape = false;
    let takes_room = |char: &char| {
        let was_escape = is_escape;
        is_escape = *char == '\x1b' || is_escape && *char != 'm';
        !is_escape && !was_escape
    };
    line.chars().filter(takes_room).count()
}

/// The lines of a moment, none of them wider than the terminal.
fn lines(progress: &Progress, rates: &VecDeque<f64>, look: Look) -> Vec<String> {
    let mut lines = vec![time(progress, look)];
    let mut add = |label: &str, pieces: Vec<Piece>| lines.push(line(label, pieces, look));
    let rate = throughput(progress, rates, look);
    add("rate", rate);
    add("requests", requests(progress));
    add("latency", latency(progress));
    add("errors", errors(progress));
    if let Some(replicas) = progress.replicas {
        let (ready, wanted) = (replicas.ready, replicas.wanted);
        let tone = if ready == wanted {
            Tone::Good
        } else {
            Tone::Plain
        };
        add(
            "replicas",
            vec![(format!("{ready} ready of {wanted}"), tone)],
        );
    }
    // The cursor takes a line, too.
    lines.truncate(look.height.saturating_sub(1).max(1));
    lines
}

/// A label, and as many pieces as there is room for: the last column stays free, as some terminals wrap once it is written.
fn line(label: &str, pieces: Vec<Piece>, look: Look) -> String {
    let room = look.width.saturating_sub(1);
    let mut out = paint(&clip(&format!("{label:<LABEL$}"), room), Tone::Quiet, look);
    let mut used = LABEL.min(room);
    for (index, (text, tone)) in pieces.into_iter().enumerate() {
        let gap = if index == 0 { 0 } else { 2 };
        let length = text.chars().count();
        if used + gap + length > room {
            break;
        }
        out.push_str(&" ".repeat(gap));
        out.push_str(&paint(&text, tone, look));
        used += gap + length;
    }
    out
}

fn clip(text: &str, room: usize) -> String {
    text.chars().take(room).collect()
}

fn paint(text: &str, tone: Tone, look: Look) -> String {
    let code = match tone {
        Tone::Plain => None,
        Tone::Quiet => Some(2),
        Tone::Good => Some(32),
        Tone::Bad => Some(31),
    };
    match code.filter(|_| look.has_colour && !text.is_empty()) {
        Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

/// How long it has been, how long it will be, and a bar.
fn time(progress: &Progress, look: Look) -> String {
    let elapsed = progress.elapsed.as_secs_f64();
    let (of, part) = match progress.end {
        End::At(end) => {
            let end = end.as_secs_f64();
            let of = format!("{} of {}", clock(elapsed), clock(end));
            (of, elapsed / end.max(f64::MIN_POSITIVE))
        }
        End::After(count) => {
            #[expect(clippy::cast_precision_loss, reason = "a bar for people")]
            let part = progress.requests as f64 / count.max(1) as f64;
            (
                format!("{}, of {} requests", clock(elapsed), grouped(count)),
                part,
            )
        }
    };
    let part = part.clamp(0.0, 1.0);
    let percent = format!("{:>3.0} %", (part * 100.0).floor());
    let mut pieces = vec![(of.clone(), Tone::Plain), (percent.clone(), Tone::Plain)];
    let used = LABEL + of.chars().count() + percent.chars().count() + 4;
    let room = look.width.saturating_sub(used + 1).min(MOST_BAR);
    if room >= 8 {
        pieces.insert(1, (bar(part, room, look.has_blocks), Tone::Good));
    }
    if progress.warming_up {
        pieces.push(("warming up".to_owned(), Tone::Quiet));
    }
    line("time", pieces, look)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part of a small width"
)]
fn bar(part: f64, width: usize, has_blocks: bool) -> String {
    let (full, rest) = if has_blocks {
        ("█", "░")
    } else {
        ("#", "-")
    };
    let filled = ((part * width as f64) as usize).min(width);
    full.repeat(filled) + &rest.repeat(width - filled)
}

/// Whole seconds, with minutes and hours where there are any.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most some days"
)]
fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!(
            "{}:{:02}:{:02} h",
            whole / 3_600,
            whole / 60 % 60,
            whole % 60
        ),
    }
}

fn throughput(progress: &Progress, rates: &VecDeque<f64>, look: Look) -> Vec<Piece> {
    if progress.warming_up {
        return vec![("not counted yet".to_owned(), Tone::Quiet)];
    }
    let mut pieces = vec![(format!("{}/s", rate(progress.recent.rate)), Tone::Plain)];
    if let Some(planned) = progress.planned_rate {
        pieces.push((format!("planned {}/s", rate(planned)), Tone::Quiet));
    }
    let used: usize = pieces
        .iter()
        .map(|(text, _)| text.chars().count() + 2)
        .sum();
    let room = look.width.saturating_sub(LABEL + used + 1);
    let shown = rates.len().min(room);
    if shown >= 2 {
        let rates = rates.iter().skip(rates.len() - shown);
        pieces.push((sparkline(rates.copied(), look.has_blocks), Tone::Good));
    }
    pieces
}

fn rate(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and far below 2^53"
    )]
    let whole = value.round() as u64;
    grouped(whole)
}

/// A character for each value, from none to the largest.
fn sparkline(values: impl Iterator<Item = f64> + Clone, has_blocks: bool) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const LETTERS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
    let signs = if has_blocks { BLOCKS } else { LETTERS };
    let most = values.clone().fold(0.0, f64::max);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 7"
    )]
    let sign = |value: f64| {
        let height = if most > 0.0 { value / most * 7.0 } else { 0.0 };
        signs[(height.round().clamp(0.0, 7.0)) as usize]
    };
    values.map(sign).collect()
}

fn requests(progress: &Progress) -> Vec<Piece> {
    let mut pieces = vec![
        (format!("{} done", grouped(progress.requests)), Tone::Plain),
        (
            format!("{} in flight", grouped(progress.in_flight)),
            Tone::Plain,
        ),
    ];
    if progress.planned_rate.is_some() {
        let tone = if progress.waiting > 0 {
            Tone::Bad
        } else {
            Tone::Quiet
        };
        pieces.push((format!("{} waiting", grouped(progress.waiting)), tone));
    }
    pieces
}

fn latency(progress: &Progress) -> Vec<Piece> {
    let told = |name: &str, p50: Option<_>, p99: Option<_>| {
        let of = |value: std::time::Duration| human(value.as_secs_f64());
        Some(format!("{name}p50 {} p99 {}", of(p50?), of(p99?)))
    };
    let now = told("now ", progress.recent.p50, progress.recent.p99);
    let all = told("all ", progress.p50, progress.p99);
    let pieces: Vec<_> = [(all, Tone::Plain), (now, Tone::Quiet)]
        .into_iter()
        .filter_map(|(text, tone)| Some((text?, tone)))
        .collect();
    if pieces.is_empty() {
        return vec![("no success yet".to_owned(), Tone::Quiet)];
    }
    pieces
}

fn errors(progress: &Progress) -> Vec<Piece> {
    if progress.errors == 0 {
        return vec![("none".to_owned(), Tone::Good)];
    }
    let mut kinds: Vec<_> = progress.errors_by_kind.iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let named = kinds.into_iter().map(|(kind, count)| {
        let name = kind.name().replace('_', " ");
        (format!("{name} {}", grouped(*count)), Tone::Bad)
    });
    std::iter::once((grouped(progress.errors), Tone::Bad))
        .chain(named)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Look, State, is_utf8, lines, visible};
    use crate::progress::{End, Progress, Recent, Replicas};
    use crate::record::ErrorKind;
    use std::collections::VecDeque;
    use std::time::Duration;

    const PLAIN: Look = Look {
        width: 80,
        height: 24,
        has_colour: false,
        has_blocks: false,
    };

    fn progress() -> Progress {
        let ms = |ms| Some(Duration::from_millis(ms));
        Progress {
            elapsed: Duration::from_millis(15_300),
            end: End::At(Duration::from_mins(1)),
            warming_up: false,
            requests: 7_432,
            rate: 0.0,
            planned_rate: Some(500.0),
            in_flight: 12,
            waiting: 3,
            errors: 1_234,
            errors_by_kind: [(ErrorKind::Timeout, 34), (ErrorKind::Status5xx, 1_200)].into(),
            p50: ms(2),
            p99: ms(80),
            recent: Recent {
                rate: 498.7,
                p50: ms(3),
                p99: ms(90),
            },
            replicas: Some(Replicas {
                ready: 1,
                wanted: 3,
            }),
        }
    }

    fn rates() -> VecDeque<f64> {
        [0.0, 100.0, 250.0, 498.7].into()
    }

    #[test]
    fn all_there_is_to_say_is_said_where_there_is_room() {
        let wanted = [
            "time      15.3 s of 1:00 min  ##########------------------------------   25 %",
            "rate      499/s  planned 500/s  _.=#",
            "requests  7,432 done  12 in flight  3 waiting",
            "latency   all p50 2.00 ms p99 80.00 ms  now p50 3.00 ms p99 90.00 ms",
            "errors    1,234  status 5xx 1,200  timeout 34",
            "replicas  1 ready of 3",
        ];
        assert_eq!(lines(&progress(), &rates(), PLAIN), wanted);
    }

    #[test]
    fn no_line_is_as_wide_as_the_terminal_whatever_its_width() {
        let many = (0..60).map(f64::from).collect();
        let mut loaded = progress();
        loaded.requests = u64::MAX;
        loaded.errors = u64::MAX;
        for width in 1..200 {
            for has_colour in [false, true] {
                let look = Look {
                    width,
                    has_colour,
                    has_blocks: true,
                    ..PLAIN
                };
                for progress in [&progress(), &loaded] {
                    for line in lines(progress, &many, look) {
                        assert!(visible(&line) < width, "{width}: {line}");
                        assert_eq!(line.contains('\x1b'), has_colour && width > 1, "{line}");
                    }
                }
            }
        }
        let narrow = lines(&progress(), &many, Look { width: 40, ..PLAIN });
        for (line, words) in narrow.iter().zip([
            "15.3 s of 1:00 min",
            "499/s",
            "7,432 done",
            "p50 2.00 ms",
            "1,234",
        ]) {
            assert!(line.contains(words), "{line}");
        }
    }

    #[test]
    fn a_low_terminal_shows_fewer_lines() {
        for (height, shown) in [(24, 6), (4, 3), (1, 1)] {
            let look = Look { height, ..PLAIN };
            assert_eq!(lines(&progress(), &rates(), look).len(), shown);
        }
    }

    #[test]
    fn a_run_with_nothing_to_tell_yet_says_so() {
        let begun = Progress {
            elapsed: Duration::from_millis(250),
            end: End::After(5_000),
            warming_up: true,
            requests: 0,
            planned_rate: None,
            errors: 0,
            errors_by_kind: [].into(),
            p50: None,
            p99: None,
            recent: Recent::default(),
            replicas: None,
            ..progress()
        };
        let wanted = [
            "time      0.2 s, of 5,000 requests  ------------------------------------    0 %",
            "rate      not counted yet",
            "requests  0 done  12 in flight",
            "latency   no success yet",
            "errors    none",
        ];
        assert_eq!(lines(&begun, &VecDeque::new(), PLAIN), wanted);
    }

    #[test]
    fn lines_are_drawn_over_those_before_also_after_the_terminal_became_narrower() {
        let mut state = State::default();
        let two = ["a".repeat(30), "\x1b[2mb\x1b[0m".to_owned()];
        assert!(!state.redraw(&two, 40).contains("\x1b[J"));
        assert_eq!(
            state.redraw(&two[1..], 40),
            "\r\x1b[2A\x1b[J\x1b[2mb\x1b[0m\r\n"
        );
        state.redraw(&two, 40);
        assert_eq!(state.redraw(&[], 20), "\r\x1b[3A\x1b[J");
        assert_eq!(state.redraw(&[], 20), "");
    }

    #[test]
    fn a_rate_is_noted_once_a_second_and_the_last_minute_is_kept() {
        let mut state = State::default();
        for look in 1..=400_u32 {
            let mut progress = progress();
            progress.elapsed = Duration::from_millis(250) * look;
            progress.recent.rate = f64::from(look / 4);
            state.remember(&progress);
        }
        let wanted: VecDeque<_> = (41..=100).map(f64::from).collect();
        assert_eq!(state.rates, wanted);
    }

    #[test]
    fn text_is_utf8_where_the_locale_says_so() {
        let of = |pairs: &'static [(&str, &str)]| {
            is_utf8(|name| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(of(&[("LANG", "en_GB.UTF-8")]) && of(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!of(&[]) && !of(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]));
    }
}
