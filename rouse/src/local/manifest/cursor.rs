//! Walking a document: a cursor knows its path and position, so that every question it cannot answer becomes an error
//! that names both.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::error::{Fault, ManifestError, Position, Source, shown};
use super::node::{Node, Value};

type Result<T> = std::result::Result<T, ManifestError>;

/// A place in a document that may or may not hold a value.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    source: &'a Source,
    /// The value, unless missing or null: Kubernetes treats both alike.
    node: Option<&'a Node>,
    /// Where the value is or, if it is missing, its closest parent.
    position: Position,
    path: String,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(source: &'a Source, node: &'a Node) -> Self {
        Self {
            source,
            node: present(node),
            position: node.position,
            path: String::new(),
        }
    }

    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn exists(&self) -> bool {
        self.node.is_some()
    }

    /// The value under `key`; an error if this is something else than a map.
    pub(super) fn get(&self, key: &str) -> Result<Self> {
        let found = self
            .map()?
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node);
        Ok(self.child(found, self.path_of(key)))
    }

    /// The value under several keys, one below the other.
    pub(super) fn at<const N: usize>(&self, keys: [&str; N]) -> Result<Self> {
        keys.into_iter()
            .try_fold(self.clone(), |cursor, key| cursor.get(key))
    }

    pub(super) fn items(&self) -> Result<Vec<Self>> {
        match self.node.map(|node| &node.value) {
            None => Ok(Vec::new()),
            Some(Value::List(items)) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, node)| self.child(Some(node), format!("{}[{index}]", self.path)))
                .collect()),
            Some(_) => Err(self.error("must be a list")),
        }
    }

    pub(super) fn text(&self) -> Result<Option<&'a str>> {
        match self.node.map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Text(text)) if text.contains('\0') => {
                Err(self.error("must not contain a NUL character"))
            }
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Bool(_) | Value::Integer(_) | Value::Float(_)) => {
                Err(self.error("must be a string: put it in quotes, as Kubernetes asks too"))
            }
            Some(_) => Err(self.error("must be a string")),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<String>> {
        self.items()?
            .iter()
            .map(|item| Ok(item.text()?.unwrap_or_default().to_owned()))
            .collect()
    }

    /// A map of strings (labels, annotations, `ConfigMap` data), each with its position.
    pub(super) fn text_map(&self) -> Result<BTreeMap<String, (String, Self)>> {
        let mut texts = BTreeMap::new();
        for (key, node) in self.map()? {
            let path = if key.contains(['.', '/']) {
                format!("{}[{key:?}]", self.path)
            } else {
                self.path_of(key)
            };
            let value = self.child(Some(node), path);
            texts.insert(
                key.clone(),
                (value.text()?.unwrap_or_default().to_owned(), value),
            );
        }
        Ok(texts)
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let allowed = || {
            format!(
                "must be a whole number from {} to {}",
                range.start(),
                range.end()
            )
        };
        match self.node.map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Integer(number)) if range.contains(number) => Ok(Some(*number)),
            Some(_) => Err(self.error(allowed())),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(
            self.node,
            Some(Node {
                value: Value::Text(_),
                ..
            })
        )
    }

    /// An error about this value; what is `allowed` instead.
    pub(super) fn error(&self, allowed: impl Into<String>) -> ManifestError {
        let value = match self.node.map(|node| &node.value) {
            None => "missing".to_owned(),
            Some(Value::Null) => "null".to_owned(),
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Integer(value)) => value.to_string(),
            Some(Value::Float(value)) => value.to_string(),
            Some(Value::Text(value)) => shown(value),
            Some(Value::List(items)) if items.is_empty() => "an empty list".to_owned(),
            Some(Value::List(_)) => "a list".to_owned(),
            Some(Value::Map(_)) => "a map".to_owned(),
        };
        let path = if self.path.is_empty() {
            "the document"
        } else {
            &self.path
        };
        Fault {
            place: self.source.clone(),
            position: Some(self.position),
            value: Some((path.to_owned(), value)),
            allowed: allowed.into(),
        }
        .error()
    }

    fn map(&self) -> Result<&'a [(String, Node)]> {
        match self.node.map(|node| &node.value) {
            None => Ok(&[]),
            Some(Value::Map(entries)) => Ok(entries),
            Some(_) => Err(self.error("must be a map of keys and values")),
        }
    }

    fn child(&self, node: Option<&'a Node>, path: String) -> Self {
        let position = node.map_or(self.position, |node| node.position);
        Self {
            source: self.source,
            node: node.and_then(present),
            position,
            path,
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

fn present(node: &Node) -> Option<&Node> {
    (!matches!(node.value, Value::Null)).then_some(node)
}
