//! The form of the log's lines: JSON, or a template of an operator's own.

use std::str::FromStr;

use super::field::{FIELDS, Field};

/// What a line looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON object with every field.
    Json,
    /// These pieces, one after the other.
    Template(Vec<Piece>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// The value of a field.
    Field(Field),
}

/// A text is neither `json` nor a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidForm {
    /// A name in braces is no field's.
    #[error("there is no field {name:?}: expected one of {}", names())]
    UnknownField {
        /// The name.
        name: String,
    },
    /// A brace without its other half.
    #[error(
        "a brace at byte {at} without its other half: expected {{FIELD}}, or {{{{ and }}}} for braces themselves"
    )]
    Brace {
        /// Where it is.
        at: usize,
    },
    /// It says the same of every request.
    #[error(
        "has no field: expected json, or a template such as \"{{method}} {{path}} {{status}}\""
    )]
    NoField,
    /// It would be more than one line.
    #[error("has a control character at byte {at}: expected one line of text")]
    Control {
        /// Where it is.
        at: usize,
    },
}

fn names() -> String {
    FIELDS.map(|field| field.name).join(", ")
}

impl FromStr for Form {
    type Err = InvalidForm;

    fn from_str(text: &str) -> Result<Self, InvalidForm> {
        if text == "json" {
            return Ok(Self::Json);
        }
        if let Some(at) = text.find(|c: char| c.is_control()) {
            return Err(InvalidForm::Control { at });
        }
        let pieces = pieces(text)?;
        if pieces.iter().any(|piece| matches!(piece, Piece::Field(_))) {
            Ok(Self::Template(pieces))
        } else {
            Err(InvalidForm::NoField)
        }
    }
}

fn pieces(template: &str) -> Result<Vec<Piece>, InvalidForm> {
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let from = &rest[at..];
        let here = template.len() - from.len();
        if let Some(after) = from.strip_prefix("{{") {
            text.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            text.push('}');
            rest = after;
        } else {
            let inner = from.strip_prefix('{');
            let (name, after) = inner
                .and_then(|inner| inner.split_once('}'))
                .filter(|(name, _)| !name.contains('{'))
                .ok_or(InvalidForm::Brace { at: here })?;
            let field = FIELDS.into_iter().find(|field| field.name == name);
            let field = field.ok_or_else(|| InvalidForm::UnknownField {
                name: name.to_owned(),
            })?;
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Field(field));
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(template: &str) -> String {
        match template.parse().unwrap() {
            Form::Json => "json".to_owned(),
            Form::Template(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Field(field) => format!("<{}>", field.name),
                })
                .collect(),
        }
    }

    #[test]
    fn a_template_has_fields_in_braces_and_doubled_braces_are_braces() {
        assert_eq!(shown("json"), "json");
        assert_eq!(shown("{method}"), "<method>");
        assert_eq!(
            shown("{method} \"{path}\" {status}"),
            "<method> \"<path>\" <status>"
        );
        assert_eq!(shown("{{{path}}}"), "{<path>}");
        assert_eq!(shown("{{method}} {path}ü"), "{method} <path>ü");
        assert_eq!(shown("{path}{{}}"), "<path>{}");
    }

    #[test]
    fn what_is_no_template_is_refused_and_the_error_says_what_is_allowed() {
        for (template, says) in [
            (
                "{methd} {path}",
                "no field \"methd\": expected one of time, program, ",
            ),
            ("{}", "no field \"\""),
            ("{ path }", "no field \" path \""),
            ("{path} {", "brace at byte 7"),
            ("{path", "brace at byte 0"),
            ("{path} }", "brace at byte 7"),
            ("{a{path}", "brace at byte 0"),
            ("jsn", "expected json, or a template"),
            ("", "has no field"),
            ("{{path}}", "has no field"),
            ("{path}\n", "control character at byte 6"),
        ] {
            let error = template.parse::<Form>().unwrap_err().to_string();
            assert!(error.contains(says), "{template:?}: {error}");
        }
    }

    #[test]
    fn names_are_stable_words_and_none_is_twice() {
        let mut names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FIELDS.len());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[{}a-z_ \\n\u{80}-\u{300}]{0,40}") {
            let _form = text.parse::<Form>();
        }
    }
}
