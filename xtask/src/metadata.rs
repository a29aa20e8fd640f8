//! What `cargo metadata` says, as far as the chores ask.
//!
//! The JSON is read by hand: a handful of fields does not justify a dependency. A missing field is an error that names
//! it, since it would mean that cargo's format (version 1) is not what we think.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::cargo;

/// The platform that we ship for. Crates that only other platforms pull in are not looked at.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The workspace and everything it depends on.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) root: PathBuf,
    pub(crate) target_directory: PathBuf,
    pub(crate) packages: Vec<Package>,
    /// From a package id to the ids of what it links or runs at build time; test-only edges are left out.
    links: BTreeMap<String, Vec<String>>,
}

/// One package, ours or not.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) is_member: bool,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) bins: Vec<String>,
}

/// One line of a manifest's dependency tables.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) optional: bool,
}

/// Which of the dependency tables it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Dev,
    Build,
}

impl Metadata {
    /// Asks cargo about the workspace around the current directory.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let output = cargo::command()
            .args([
                "metadata",
                "--format-version",
                "1",
                "--filter-platform",
                PLATFORM,
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed ({})",
            output.status
        );
        let json = serde_json::from_slice(&output.stdout)
            .context("cargo metadata did not answer with JSON")?;
        Self::parse(&json)
    }

    /// Reads the answer of `cargo metadata`.
    pub(crate) fn parse(json: &Value) -> anyhow::Result<Self> {
        let members: BTreeSet<&str> = array(json, "workspace_members")?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let packages = array(json, "packages")?
            .iter()
            .map(|package| Package::parse(package, &members))
            .collect::<anyhow::Result<_>>()?;
        let mut links = BTreeMap::new();
        for node in array(&json["resolve"], "nodes")? {
            let mut to = Vec::new();
            for dep in array(node, "deps")? {
                if array(dep, "dep_kinds")?
                    .iter()
                    .any(|kind| kind["kind"].as_str() != Some("dev"))
                {
                    to.push(text(dep, "pkg")?);
                }
            }
            links.insert(text(node, "id")?, to);
        }
        Ok(Self {
            root: text(json, "workspace_root")?.into(),
            target_directory: text(json, "target_directory")?.into(),
            packages,
            links,
        })
    }

    /// The packages of this workspace, in the order of their names.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members: Vec<_> = self
            .packages
            .iter()
            .filter(|package| package.is_member)
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// The shortest chain of names from a package to one that `is_wanted`, itself left out of the question.
    pub(crate) fn chain(
        &self,
        from: &Package,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Option<Vec<&str>> {
        let names: BTreeMap<&str, &str> = self
            .packages
            .iter()
            .map(|package| (package.id.as_str(), package.name.as_str()))
            .collect();
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([from.id.as_str()]);
        while let Some(at) = queue.pop_front() {
            for next in self.links.get(at).into_iter().flatten().map(String::as_str) {
                if next == from.id || came_from.contains_key(next) {
                    continue;
                }
                came_from.insert(next, at);
                if names.get(next).is_some_and(|name| is_wanted(name)) {
                    let steps =
                        std::iter::successors(Some(next), |step| came_from.get(step).copied());
                    let mut chain: Vec<_> =
                        steps.filter_map(|step| names.get(step).copied()).collect();
                    chain.reverse();
                    return Some(chain);
                }
                queue.push_back(next);
            }
        }
        None
    }
}

impl Package {
    fn parse(json: &Value, members: &BTreeSet<&str>) -> anyhow::Result<Self> {
        let id = text(json, "id")?;
        let mut bins = Vec::new();
        for target in array(json, "targets")? {
            if array(target, "kind")?.iter().any(|kind| kind == "bin") {
                bins.push(text(target, "name")?);
            }
        }
        Ok(Self {
            is_member: members.contains(id.as_str()),
            id,
            name: text(json, "name")?,
            dependencies: array(json, "dependencies")?
                .iter()
                .map(Dependency::parse)
                .collect::<anyhow::Result<_>>()?,
            bins,
        })
    }
}

impl Dependency {
    fn parse(json: &Value) -> anyhow::Result<Self> {
        Ok(Self {
            name: text(json, "name")?,
            kind: match json["kind"].as_str() {
                Some("dev") => Kind::Dev,
                Some("build") => Kind::Build,
                _ => Kind::Normal,
            },
            optional: json["optional"].as_bool().unwrap_or_default(),
        })
    }
}

fn array<'a>(json: &'a Value, key: &str) -> anyhow::Result<&'a Vec<Value>> {
    json[key]
        .as_array()
        .with_context(|| format!("cargo metadata has no list {key:?} where one was expected"))
}

fn text(json: &Value, key: &str) -> anyhow::Result<String> {
    let text = json[key]
        .as_str()
        .with_context(|| format!("cargo metadata has no text {key:?} where one was expected"))?;
    Ok(text.to_owned())
}
