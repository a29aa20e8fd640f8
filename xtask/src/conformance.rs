//! `cargo xtask conformance`: the data path under tools that no one here wrote.
//!
//! Fetches and builds the tools, each at the version that `tests/conformance` pins, outside the tree and once; builds our
//! programs; and runs the tests of `tests/tests/conformance`, which start both and say what must come of it. What that is
//! and was: docs/reference/conformance.md.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use crate::cargo;
use crate::metadata::Metadata;
use crate::report;

/// A tool, or a group of those that are only useful together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// HTTP/2 and HPACK.
    H2spec,
    /// The interoperability cases of grpc-go.
    Grpc,
    /// Ambiguous HTTP/1, before nginx, Go's server and hyper's.
    Smuggling,
}

/// How to run the tests.
#[derive(Debug)]
pub(crate) struct Options {
    /// Which; all if none.
    pub(crate) tools: Vec<Tool>,
    /// Try the optimised programs.
    pub(crate) release: bool,
}

/// A Go program and where it is from: a folder with a go.mod of ours, which pins the versions of everything.
struct GoProgram {
    module: &'static str,
    package: &'static str,
    name: &'static str,
}

impl Tool {
    /// The module of tests that is for it.
    fn tests(self) -> &'static str {
        match self {
            Self::H2spec => "h2spec::",
            Self::Grpc => "grpc::",
            Self::Smuggling => "smuggling::",
        }
    }

    fn go_programs(self) -> &'static [GoProgram] {
        match self {
            Self::H2spec => &[GoProgram {
                module: "h2spec",
                package: "github.com/summerwind/h2spec/cmd/h2spec",
                name: "h2spec",
            }],
            Self::Smuggling => &[GoProgram {
                module: "upstream",
                package: ".",
                name: "upstream",
            }],
            Self::Grpc => &[
                GoProgram {
                    module: "grpc",
                    package: "google.golang.org/grpc/interop/client",
                    name: "grpc-interop-client",
                },
                GoProgram {
                    module: "grpc",
                    package: "google.golang.org/grpc/interop/server",
                    name: "grpc-interop-server",
                },
            ],
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let metadata = Metadata::load()?;
    let root = &metadata.root;
    let all = options.tools.is_empty();
    let tools = if all {
        Tool::value_variants()
    } else {
        &options.tools
    };
    let folder = metadata.target_directory.join("tools/conformance");
    for program in tools.iter().flat_map(|tool| tool.go_programs()) {
        build_go(root, &folder, program)?;
    }

    let profile: &[&str] = if options.release { &["--release"] } else { &[] };
    let mut programs = vec!["build"];
    programs.extend(profile);
    if options.release {
        for package in ["queue-proxy", "activator", "integration"] {
            programs.extend(["-p", package]);
        }
        programs.push("--bins");
    } else {
        // As `cargo xtask test` does, so that nothing is built twice.
        programs.extend(&cargo::EVERYTHING[1..]);
    }
    cargo::run(root, &programs)?;
    let tests = build_tests(root)?;

    let mut command = Command::new(tests);
    if !all {
        command.args(tools.iter().map(|tool| tool.tests()));
    }
    // One after the other: each has deadlines of its own, and a machine of two cores is busy enough with one.
    let status = command
        .args(["--test-threads", "1", "--nocapture"])
        .env("ROUSE_CONFORMANCE_TOOLS", &folder)
        .env(
            "ROUSE_CONFORMANCE_PROGRAMS",
            metadata
                .target_directory
                .join(if options.release { "release" } else { "debug" }),
        )
        .current_dir(root)
        .stdin(Stdio::null())
        .status()
        .context("cannot start the tests")?;
    ensure!(status.success(), "the tests failed ({status})");
    Ok(())
}

/// Builds a Go program. Go keeps what it has built, so doing it again costs a second.
fn build_go(root: &Path, folder: &Path, program: &GoProgram) -> anyhow::Result<()> {
    report::line(format_args!("building {}", program.name));
    let status = Command::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(folder.join(program.name))
        .arg(program.package)
        .current_dir(root.join("tests/conformance").join(program.module))
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .status()
        .context("cannot start go; version 1.26 or newer must be in PATH")?;
    ensure!(
        status.success(),
        "{} does not build ({status})",
        program.name
    );
    Ok(())
}

/// Builds the tests with the same selection of packages as all others, so that the features of what they share are the same.
fn build_tests(root: &Path) -> anyhow::Result<PathBuf> {
    let built = cargo::command()
        .current_dir(root)
        .args([
            "test",
            "--no-run",
            "--workspace",
            "--test",
            "conformance",
            "--message-format=json",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(built.status.success(), "the tests do not build");
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "conformance")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no test program")
}
