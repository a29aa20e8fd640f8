//! `cargo xtask links`: every link between our documents leads somewhere.
//!
//! Looked at are relative links in Markdown files: the file or folder must exist inside the repository, and an anchor must
//! be a heading of the page it points into. Links into the web are not followed: a check must not fail because somebody
//! else's server is down. Code, in blocks and in lines, is not looked at.

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
    let mut pages = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(root.join(&file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        pages.insert(file, Page::parse(&text));
    }
    let broken = broken(&pages, |path| root.join(path).exists());
    report::conclude(
        &broken,
        "links that lead nowhere",
        "every link leads somewhere",
    )
}

/// What matters of a page.
#[derive(Debug, Default)]
struct Page {
    /// (line, target) of its links.
    links: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

/// The Markdown files below `folder`, relative to `root`. Hidden folders and build folders are left out.
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
        } else if path.extension().is_some_and(|extension| extension == "md")
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
