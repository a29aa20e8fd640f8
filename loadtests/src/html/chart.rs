//! A chart: its table, with what the script needs to draw it.

use std::fmt;

use super::text::{escaped, moment};

/// How a chart is drawn, by the names that the script knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Lines or columns over the first column.
    OverX,
    /// A bar for each row.
    Bars,
    /// A row of parts for each row.
    Waterfall,
}

/// What values are, by the names that the script knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Rate,
    Count,
    Share,
}

/// How a column is drawn: the words after the first are classes of the line.
pub(super) type Draw = Option<&'static str>;

/// A column of the table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) draw: Draw,
    /// The colour, `c1` to `c6`.
    pub(super) mark: &'static str,
}

/// A cell of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) value: Option<f64>,
    /// Parts of a waterfall, as JSON.
    pub(super) parts: Option<String>,
    /// Whether it is prose, which may wrap.
    pub(super) is_words: bool,
}

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) mark: Option<&'static str>,
    pub(super) cells: Vec<Cell>,
}

/// A chart and the table behind it.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) id: String,
    pub(super) title: String,
    /// What it shows and how to read it.
    pub(super) note: String,
    pub(super) kind: Kind,
    /// The first column is a share of requests instead of a time.
    pub(super) is_rank: bool,
    /// What the first column is, along the axis.
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    /// Whether the scale may be logarithmic where values differ much.
    pub(super) may_be_log: bool,
    /// How far the first column goes.
    pub(super) end: f64,
    /// Colours and what they are, where they are not those of columns.
    pub(super) keys: Vec<(String, &'static str)>,
    pub(super) is_wide: bool,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// What is left out of the table, in words.
    pub(super) omitted: String,
}

impl Chart {
    pub(super) fn new(
        id: impl Into<String>,
        title: impl Into<String>,
        kind: Kind,
        unit: Unit,
    ) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            note: String::new(),
            kind,
            is_rank: false,
            label: "since the start of the measurement",
            unit,
            may_be_log: false,
            end: 0.0,
            keys: Vec::new(),
            is_wide: false,
            columns: Vec::new(),
            rows: Vec::new(),
            omitted: String::new(),
        }
    }

    pub(super) fn column(mut self, name: &str, draw: Draw, mark: &'static str) -> Self {
        self.columns.push(Column {
            name: name.to_owned(),
            draw,
            mark,
        });
        self
    }

    pub(super) fn note(mut self, note: &str) -> Self {
        note.clone_into(&mut self.note);
        self
    }

    pub(super) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }
}

impl Cell {
    /// Text alone.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Prose.
    pub(super) fn words(text: impl Into<String>) -> Self {
        Self {
            is_words: true,
            ..Self::text(text)
        }
    }

    /// A figure, which may be missing.
    pub(super) fn of(value: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        let value = value.filter(|value| value.is_finite());
        Self {
            text: value.map_or_else(|| "–".to_owned(), show),
            value,
            ..Self::default()
        }
    }

    /// A number of things.
    #[expect(clippy::cast_precision_loss, reason = "for drawing")]
    pub(super) fn count(value: u64) -> Self {
        Self {
            text: super::text::count(value),
            value: Some(value as f64),
            ..Self::default()
        }
    }

    /// A moment of the run, drawn at `at`.
    pub(super) fn moment(shown: f64, at: f64) -> Self {
        Self {
            text: moment(shown),
            value: Some(at),
            ..Self::default()
        }
    }
}

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Self {
        Self { mark: None, cells }
    }
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::OverX => "x",
            Kind::Bars => "bars",
            Kind::Waterfall => "waterfall",
        };
        let unit = match self.unit {
            Unit::Seconds => "seconds",
            Unit::Rate => "rate",
            Unit::Count => "count",
            Unit::Share => "share",
        };
        write!(
            f,
            "<section class=\"card{}\" id=\"{}\" data-kind=\"{kind}\" data-x=\"{}\" data-y=\"{unit}\" data-scale=\"{}\" data-end=\"{}\" \
             data-label=\"{}\"",
            if self.is_wide { " wide" } else { "" },
            escaped(&self.id),
            if self.is_rank { "rank" } else { "time" },
            if self.may_be_log { "auto" } else { "linear" },
            self.end,
            escaped(self.label),
        )?;
        if !self.keys.is_empty() {
            let keys = serde_json::to_string(&self.keys).unwrap_or_default();
            write!(f, " data-keys=\"{}\"", escaped(&keys))?;
        }
        write!(f, "><h3>{}</h3>", escaped(&self.title))?;
        if !self.note.is_empty() {
            write!(f, "<p class=\"note\">{}</p>", escaped(&self.note))?;
        }
        f.write_str("<div class=\"legend\"></div><div class=\"plot\"></div>")?;
        if !self.omitted.is_empty() {
            write!(f, "<p class=\"omitted\">{}</p>", escaped(&self.omitted))?;
        }
        f.write_str("<details><summary>Table</summary><div class=\"scroll\" tabindex=\"0\"><table><thead><tr>")?;
        self.columns.iter().try_for_each(|column| column.fmt(f))?;
        f.write_str("</tr></thead><tbody>")?;
        self.rows.iter().try_for_each(|row| row.fmt(f))?;
        f.write_str("</tbody></table></div></details></section>\n")
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<th scope=\"col\"")?;
        if let Some(draw) = self.draw {
            write!(f, " data-draw=\"{draw}\" data-mark=\"{}\"", self.mark)?;
        }
        write!(f, ">{}</th>", escaped(&self.name))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark {
            Some(mark) => write!(f, "<tr data-mark=\"{mark}\">")?,
            None => f.write_str("<tr>")?,
        }
        self.cells.iter().try_for_each(|cell| cell.fmt(f))?;
        f.write_str("</tr>")
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_words {
            "<td class=\"words\""
        } else {
            "<td"
        })?;
        if let Some(value) = self.value {
            write!(f, " data-v=\"{value}\"")?;
        }
        if let Some(parts) = &self.parts {
            write!(f, " data-parts=\"{}\"", escaped(parts))?;
        }
        write!(f, ">{}</td>", escaped(&self.text))
    }
}
