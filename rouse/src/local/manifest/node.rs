//! A YAML document as a tree that remembers where each value stands, read within fixed bounds.
//!
//! The tree is walked by hand (`cursor.rs`) instead of being deserialized into structs: a wrong value is then
//! reported with its own position and path, and a field nobody asks for costs nothing.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::error::{Fault, ManifestError, Position, Source, one_line};

/// Aliases may repeat this many events in all: far more than any Deployment needs, and a bomb ends in milliseconds.
const MAX_REPLAYED_EVENTS: usize = 20_000;
/// Values in one file.
const MAX_NODES: usize = 100_000;
/// Levels of nesting. A Deployment uses about twelve.
const MAX_DEPTH: usize = 48;

/// One YAML value and its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

/// What a YAML value is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Reads all documents of a file's text. Documents without content are left out.
pub(super) fn parse(file: &Path, text: &str) -> Result<Vec<(Source, Node)>, ManifestError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_depth: MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED_EVENTS },
        with_snippet: false,
        emit_comments: false,
    };
    let source_at = |line: u64| Source {
        file: file.to_path_buf(),
        document: document_at(text, line),
    };
    let nodes: Vec<Node> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let position = error
                .location()
                .filter(|at| at.line() > 0)
                .map(|at| Position {
                    line: at.line(),
                    column: at.column(),
                });
            Fault {
                place: position.map_or_else(|| Source::file(file), |at| source_at(at.line)),
                position,
                value: None,
                allowed: format!(
                    "not usable YAML: {}",
                    without_position(&one_line(&error.to_string()))
                ),
            }
            .error()
        })?;
    Ok(nodes
        .into_iter()
        .map(|node| (source_at(node.position.line), node))
        .collect())
}

/// Which document a line belongs to, counting only documents that have content.
///
/// A line that starts with `---` is a document marker wherever it stands: YAML allows it in no scalar.
fn document_at(text: &str, line: u64) -> usize {
    let mut before = 0;
    let mut has_content = false;
    for (number, content) in (1..=line).zip(text.lines()) {
        let marker = content
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        let content = match marker {
            Some(rest) => {
                before += usize::from(has_content && number > 1);
                has_content = false;
                rest
            }
            None => content,
        };
        let content = content.trim();
        has_content |= !(content.is_empty() || content.starts_with(['#', '%']) || content == "...");
    }
    before + 1
}

/// The parser repeats the position at the start or end of some messages; ours already has it.
fn without_position(message: &str) -> &str {
    let message = message
        .split_once(" at line ")
        .map_or(message, |(message, _)| message);
    match message
        .strip_prefix("error: line ")
        .and_then(|rest| rest.split_once(": "))
    {
        Some((_, message)) => message,
        None => message.strip_prefix("error: ").unwrap_or(message),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let position = Position {
            line: spanned.referenced.line(),
            column: spanned.referenced.column(),
        };
        Ok(Self {
            position,
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        // Nothing we read is that large: any number beyond i64 is out of range wherever it stands.
        Ok(Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_counted_by_content() {
        let text = "# header\n---\na: 1\n---\n# nothing\n---\nb: |\n  --- text\n---\nc: 3\n";
        let documents: Vec<_> = parse(Path::new("f"), text)
            .unwrap()
            .iter()
            .map(|(source, _)| source.document)
            .collect();
        assert_eq!(documents, [1, 2, 3]);
    }

    #[test]
    fn positions_survive_nesting_and_aliases() {
        let text = "a: &x\n  - 1\nb: *x\n";
        let (_, node) = parse(Path::new("f"), text).unwrap().remove(0);
        let Value::Map(entries) = node.value else {
            panic!("not a map")
        };
        assert_eq!(
            (entries[0].1.position.line, entries[1].1.position.line),
            (2, 3)
        );
    }

    #[test]
    fn an_alias_bomb_is_refused_fast() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            text.extend([format!("a{level}: &a{level} [{refs}]\n")]);
        }
        let begin = tokio::time::Instant::now();
        let error = parse(Path::new("f"), &text).unwrap_err().to_string();
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(1),
            "took {:?}",
            begin.elapsed()
        );
        assert!(
            error.starts_with("f: document 1, line") && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = format!("a: {}1{}", "[".repeat(200), "]".repeat(200));
        assert!(parse(Path::new("f"), &text).is_err());
    }
}
