//! `cargo xtask links`: every link between our documents leads somewhere.
//!
//! Looked at are relative links in Markdown files: the file or folder must exist inside the repository, and an anchor must
//! be a heading of the page it points into. Links into the web are not followed: a check must not fail because somebody
//! else's server is down. Blocks of code are not looked at.
//!
//! In `docs`, what is named in code spans must exist too: source files (`a/b.rs`), and long names in snake case, mostly of
//! tests, which must occur in some source file. A page that names the test that guards a promise would otherwise go on
//! naming it when it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;

use crate::metadata::Metadata;
use crate::report;

pub(crate) fn run() -> anyhow::Result<()> {
    let root = Metadata::load()?.root;
    let mut files = Vec::new();
    find(&root, &root, &mut files)?;
    let (mut pages, mut sources) = (BTreeMap::new(), BTreeMap::new());
    for file in files {
        let text = fs::read_to_string(root.join(&file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        if is(&file, "md") {
            pages.insert(file, Page::parse(&text));
        } else {
            sources.insert(file, text);
        }
    }
    let mut broken = broken(&pages, |path| root.join(path).exists());
    broken.extend(unknown(&pages, &sources));
    report::conclude(
        &broken,
        "links that lead nowhere, or names of nothing",
        "every link leads somewhere, and every name is in the code",
    )
}

/// What matters of a page.
#[derive(Debug, Default)]
struct Page {
    /// (line, target) of its links.
    links: Vec<(usize, String)>,
    /// (line, text) of its code spans.
    spans: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The Markdown and source files below `folder`, relative to `root`. Hidden folders and build folders are left out.
fn find(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let list = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in list {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                find(root, &path, files)?;
            }
        } else if (is(&path, "md") || is(&path, "rs"))
            && let Ok(relative) = path.strip_prefix(root)
        {
            files.push(relative.to_owned());
        }
    }
    Ok(())
}

/// One line per link that leads nowhere.
fn broken(pages: &BTreeMap<PathBuf, Page>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for (file, page) in pages {
        for (line, target) in &page.links {
            if let Some(why) = judge(pages, &exists, file, target) {
                findings.push(format!("{}:{line}: {target}: {why}", file.display()));
            }
        }
    }
    findings
}

/// One line per thing that is named in `docs` and does not exist.
fn unknown(pages: &BTreeMap<PathBuf, Page>, sources: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let exists = |span: &str| {
        if is(Path::new(span), "rs") {
            return sources.keys().any(|path| path.ends_with(span));
        }
        sources.values().any(|text| text.contains(span))
    };
    let docs = pages.iter().filter(|(file, _)| file.starts_with("docs"));
    docs.flat_map(|(file, page)| page.spans.iter().map(move |span| (file, span)))
        .filter(|(_, (_, span))| is_checkable(span) && !exists(span))
        .map(|(file, (line, span))| format!("{}:{line}: {span}: no such name", file.display()))
        .collect()
}

/// A path of a source file, or a name in snake case that is too long to be a word of its own.
fn is_checkable(span: &str) -> bool {
    let snake = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let path = |byte: u8| snake(byte) || matches!(byte, b'/' | b'-' | b'.');
    let is_name = span.len() > 15 && span.bytes().all(snake) && span.contains('_');
    is_name || (is(Path::new(span), "rs") && span.bytes().all(path))
}

fn judge(
    pages: &BTreeMap<PathBuf, Page>,
    exists: &impl Fn(&Path) -> bool,
    file: &Path,
    target: &str,
) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let path = if path.is_empty() {
        file.to_owned()
    } else {
        let folder = file.parent().unwrap_or_else(|| Path::new(""));
        match inside(&folder.join(path)) {
            Some(path) => path,
            None => return Some("outside of the repository"),
        }
    };
    if !exists(&path) {
        return Some("no such file");
    }
    match (anchor, pages.get(&path)) {
        (Some(anchor), Some(page)) if !page.anchors.contains(anchor) => Some("no such heading"),
        _ => None,
    }
}

/// The path without `.` and `..`; none if it leaves the root.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut fence: Option<&str> = None;
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim_start();
            let mark = ["```", "~~~"]
                .into_iter()
                .find(|mark| trimmed.starts_with(mark));
            match (fence, mark) {
                (None, Some(mark)) => fence = Some(mark),
                (Some(open), Some(mark)) if open == mark => fence = None,
                (None, None) => page.line(index + 1, line),
                _ => {}
            }
        }
        page
    }

    fn line(&mut self, number: usize, line: &str) {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=6).contains(&level) && line[level..].starts_with(' ') {
            let slug = slug(line[level..].trim());
            let again = (1..).map(|count| format!("{slug}-{count}"));
            let free = std::iter::once(slug.clone())
                .chain(again)
                .find(|slug| !self.anchors.contains(slug));
            self.anchors.extend(free);
        }
        let spans = line.split('`').skip(1).step_by(2);
        self.spans
            .extend(spans.map(|span| (number, span.to_owned())));
        let text = without_code(line);
        let mut add = |target: &str| {
            // A title may follow the target.
            let target = target.split_whitespace().next().unwrap_or_default();
            self.links
                .push((number, target.trim_matches(['<', '>']).to_owned()));
        };
        if let Some((_, target)) = text
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
        {
            add(target);
        }
        for (at, _) in text.match_indices("](") {
            if let Some((target, _)) = text[at + 2..].split_once(')') {
                add(target);
            }
        }
    }
}

/// A line with its code spans taken out.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("code")
}

/// A heading's anchor, as code hosts make it: lower case, spaces as hyphens, no other punctuation.
fn slug(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A page
[self](#a-page), [wrong](#nowhere), [web](https://example.com/#x), [mail](mailto:a@b)
[other](b/other.md#what-it-is), [folder](b/), [gone](gone.md \"title\"), [out](../x.md), `[code](no.md)`
```text
[not](looked-at.md)
# nor this
```
[def]: b/other.md#twice-1
";

    #[test]
    fn finds_what_leads_nowhere_and_nothing_else() {
        let pages = BTreeMap::from([
            (PathBuf::from("a.md"), Page::parse(TEXT)),
            (
                PathBuf::from("b/other.md"),
                Page::parse("# `What` it is?\n## Twice\n## Twice\n[up](../a.md#a-page)\n"),
            ),
        ]);
        let exists = |path: &Path| {
            ["a.md", "b", "b/other.md"]
                .iter()
                .any(|known| Path::new(known) == path)
        };
        assert_eq!(
            broken(&pages, exists),
            [
                "a.md:2: #nowhere: no such heading",
                "a.md:3: gone.md: no such file",
                "a.md:3: ../x.md: outside of the repository",
            ]
        );
    }

    #[test]
    fn what_docs_name_must_be_in_the_code() {
        let page = "`src/a.rs`, `src/b.rs`, `serves_two_at_once`, `serves_three_at_once`, `short_one`, `cargo x`";
        let pages = BTreeMap::from([
            (PathBuf::from("docs/a.md"), Page::parse(page)),
            (PathBuf::from("README.md"), Page::parse(page)),
        ]);
        let source = "fn serves_two_at_once() {}".to_owned();
        let sources = BTreeMap::from([(PathBuf::from("x/src/a.rs"), source)]);
        assert_eq!(
            unknown(&pages, &sources),
            [
                "docs/a.md:1: src/b.rs: no such name",
                "docs/a.md:1: serves_three_at_once: no such name",
            ]
        );
    }

    #[test]
    fn anchors_are_those_of_code_hosts() {
        for (heading, expected) in [
            ("Code map", "code-map"),
            ("`shared`: what all use", "shared-what-all-use"),
            ("0 → N", "0--n"),
            ("rouse_load", "rouse_load"),
        ] {
            assert_eq!(slug(heading), expected, "{heading}");
        }
    }
}
