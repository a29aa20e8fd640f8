//! One page with plots: load, replicas and waiting over time, one column for each policy, with the same axes in both.
//!
//! Everything is in the one file: no script, nothing from elsewhere, so that it can be mailed and kept.

use std::fmt::Write as _;

use autoscaler_core::sim::Point;

use super::{Done, Run, table};

/// Size of a plot in its own units, and the room around it for the axes.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;
/// Points of a line at most: more than there are pixels say nothing.
const MOST_POINTS: usize = 700;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2733;--soft:#6b7684;--line:#d9dee4;--back:#fff;--a:#2f6fb2;--b:#d9822b}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#98a2ad;--line:#3a424b;--back:#15191e;--a:#6fb0f2;--b:#f0a355}}\
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:2rem auto;max-width:1240px;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .9rem;text-align:right;border-bottom:1px solid var(--line)}\
td:first-child,th:first-child{text-align:left;padding-left:0}\
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:1rem}\
svg{width:100%;height:auto}text{font-size:11px;fill:var(--soft)}.axis{stroke:var(--line)}\
.a{stroke:var(--a);fill:none;stroke-width:1.6}.b{stroke:var(--b);fill:none;stroke-width:1.6}\
.fill{fill:var(--a);opacity:.18;stroke:none}pre,.about{color:var(--soft)}h3{margin:.4rem 0 0;font-size:1rem}\
.key{font-size:.85rem;color:var(--soft)}.ka{color:var(--a)}.kb{color:var(--b)}";

pub(super) fn page(done: &[Done], seeds: u32) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>rouse simulate</title>\n<style>",
    );
    page.push_str(STYLE);
    page.push_str("</style>\n</head>\n<body>\n<h1>What would have happened</h1>\n");
    let _ = writeln!(
        page,
        "<p class=\"about\">Simulated by rouse. Tables are means of {seeds} runs, plots show the first.</p>"
    );
    for one in done {
        section(&mut page, one);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(page: &mut String, done: &Done) {
    let _ = writeln!(page, "<h2>{}</h2>", escaped(&done.scenario.name));
    if !done.scenario.about.is_empty() {
        let _ = writeln!(
            page,
            "<p class=\"about\">{}</p>",
            escaped(&done.scenario.about)
        );
    }
    let _ = writeln!(page, "<pre>{}</pre>", escaped(&table::heading(done)));
    summary(page, done);
    page.push_str("<div class=\"two\">\n");
    let all = || done.runs.iter().flat_map(|run| &run.first.points);
    let most = |of: fn(&Point) -> f64| all().map(of).fold(1.0, f64::max);
    let seconds = all().map(|point| point.second).max().unwrap_or(1);
    let load = most(|point| point.load.max(f64::from(point.arrived)));
    let pods = most(|point| f64::from(point.replicas.max(point.ready)));
    let waiting = most(|point| point.waiting);
    for run in &done.runs {
        let _ = writeln!(page, "<div>\n<h3>{}</h3>", run.policy.as_str());
        let plot = Plot { run, seconds };
        plot.draw(
            page,
            "requests there, and arrivals per second",
            load,
            [|point| point.load, |point| f64::from(point.arrived)],
        );
        plot.draw(
            page,
            "replicas, and ready pods",
            pods,
            [
                |point| f64::from(point.replicas),
                |point| f64::from(point.ready),
            ],
        );
        plot.draw(page, "requests that wait", waiting, [|point| point.waiting]);
        page.push_str("</div>\n");
    }
    page.push_str("</div>\n");
}

fn summary(page: &mut String, done: &Done) {
    page.push_str("<table>\n<tr><th></th>");
    for run in &done.runs {
        let _ = write!(page, "<th>{}</th>", run.policy.as_str());
    }
    page.push_str("</tr>\n");
    for (name, value, decimals) in table::ROWS {
        let _ = write!(page, "<tr><td>{name}</td>");
        for run in &done.runs {
            let _ = write!(page, "<td>{:.decimals$}</td>", value(&run.summary));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

/// One run's time, from its beginning to the last second of all.
struct Plot<'a> {
    run: &'a Run,
    seconds: u32,
}

impl Plot<'_> {
    /// Draws one or two lines up to `most`.
    fn draw<const N: usize>(
        &self,
        page: &mut String,
        name: &str,
        most: f64,
        lines: [fn(&Point) -> f64; N],
    ) {
        let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
        let _ = writeln!(
            page,
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{name}\">",
            right + 8.0,
            bottom + BOTTOM
        );
        let step = nice(most / 4.0);
        let mut value = 0.0;
        while value <= most * 1.001 {
            let y = bottom - value / most * HEIGHT;
            let _ = writeln!(
                page,
                "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
            value += step;
        }
        let minutes = f64::from(self.seconds) / 60.0;
        let every = nice(minutes / 6.0);
        let mut minute = 0.0;
        while minute <= minutes * 1.001 {
            let x = LEFT + minute / minutes * WIDTH;
            let _ = writeln!(
                page,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{} min</text>",
                bottom + 15.0,
                short(minute)
            );
            minute += every;
        }
        for (class, of) in ["a", "b"].into_iter().zip(lines) {
            let path = self.path(most, of);
            if class == "a" {
                let _ = writeln!(
                    page,
                    "<path class=\"fill\" d=\"M{LEFT} {bottom} L{path} L{right} {bottom} Z\"/>"
                );
            }
            let _ = writeln!(page, "<path class=\"{class}\" d=\"M{path}\"/>");
        }
        page.push_str("</svg>\n");
        let (first, second) = name.split_once(", and ").unwrap_or((name, ""));
        let _ = write!(
            page,
            "<p class=\"key\"><span class=\"ka\">&#9632;</span> {first}"
        );
        if !second.is_empty() {
            let _ = write!(page, " <span class=\"kb\">&#9632;</span> {second}");
        }
        page.push_str("</p>\n");
    }

    /// The points of a line; of several in one place the highest.
    fn path(&self, most: f64, of: fn(&Point) -> f64) -> String {
        let points = &self.run.first.points;
        let each = points.len().div_ceil(MOST_POINTS).max(1);
        let mut path = format!("{LEFT} {}", TOP + HEIGHT);
        for some in points.chunks(each) {
            let highest = some.iter().map(of).fold(0.0, f64::max);
            let second = some.last().map_or(0, |point| point.second);
            let x = LEFT + f64::from(second) / f64::from(self.seconds.max(1)) * WIDTH;
            let _ = write!(
                path,
                " L{x:.1} {:.1}",
                TOP + HEIGHT - highest / most * HEIGHT
            );
        }
        path
    }
}

/// A round number that is not below `step`.
fn nice(step: f64) -> f64 {
    let step = step.max(1e-3);
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}

fn short(value: f64) -> String {
    if (value - value.round()).abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
