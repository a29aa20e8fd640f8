//! `cargo xtask conformance`: the data path under tools that no one here wrote.
//!
//! Fetches and builds the tools, each at the version that `tests/conformance` pins, outside the tree and once; builds our
//! programs; and runs the tests of `tests/tests/conformance`, which start both and say what must come of it. What that is
//! and was: docs/reference/conformance.md.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use crate::cargo::{self, succeed};
use crate::metadata::Metadata;
use crate::report;

/// The suite, which `PyPI` has as source alone.
const AUTOBAHN: &str = "autobahntestsuite==25.10.1";

/// A tool, or a group of those that are only useful together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// HTTP/2 and HPACK.
    H2spec,
    /// The interoperability cases of grpc-go.
    Grpc,
    /// Ambiguous HTTP/1, before nginx, Go's server and hyper's.
    Smuggling,
    /// The Autobahn test suite for WebSocket.
    Websocket,
}

/// How to run the tests.
#[derive(Debug)]
pub(crate) struct Options {
    /// Which; all if none.
    pub(crate) tools: Vec<Tool>,
    /// Try the optimised programs.
    pub(crate) release: bool,
    /// Everything, however long it takes.
    pub(crate) full: bool,
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
            Self::Websocket => "websocket::",
        }
    }

    /// What it needs and this machine does not have, with the words of Debian.
    fn missing(self) -> Option<&'static str> {
        const PYTHON: &str = "import sys, ensurepip, venv, lib2to3; sys.exit(not (3, 11) <= sys.version_info < (3, 13))";
        let runs = |command: &mut Command| {
            let quiet = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            quiet.status().is_ok_and(|status| status.success())
        };
        let go = || runs(Command::new("go").arg("version"));
        match self {
            Self::Websocket if !runs(Command::new("python3").args(["-c", PYTHON])) => Some(
                "websocket needs Python 3.11 or 3.12 with venv and lib2to3: apt-get install python3-venv python3-lib2to3",
            ),
            Self::Smuggling if !runs(Command::new("/usr/sbin/nginx").arg("-v")) => {
                Some("smuggling needs /usr/sbin/nginx: apt-get install nginx-light")
            }
            Self::H2spec | Self::Grpc | Self::Smuggling if !go() => {
                Some("h2spec, grpc and smuggling need Go 1.26 or newer in PATH: https://go.dev/dl")
            }
            _ => None,
        }
    }

    fn go_programs(self) -> &'static [GoProgram] {
        match self {
            Self::H2spec => &[GoProgram {
                module: "h2spec",
                package: "github.com/summerwind/h2spec/cmd/h2spec",
                name: "h2spec",
            }],
            Self::Websocket => &[],
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
    let missing: Vec<_> = tools.iter().filter_map(|tool| tool.missing()).collect();
    ensure!(missing.is_empty(), "{}", missing.join("; "));
    let folder = metadata.target_directory.join("tools/conformance");
    for program in tools.iter().flat_map(|tool| tool.go_programs()) {
        build_go(root, &folder, program)?;
    }
    if tools.contains(&Tool::Websocket) {
        prepare_autobahn(root, &folder.join("autobahn"))?;
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
    // With the same selection of packages as all other tests, so that the features of what they share are the same.
    let tests = cargo::test_program(root, &["--workspace"], "conformance")?;

    let mut command = Command::new(tests);
    if !all {
        command.args(tools.iter().map(|tool| tool.tests()));
    }
    // One after the other: each has deadlines of its own, and a machine of two cores is busy enough with one.
    let status = command
        .args(["--test-threads", "1", "--nocapture"])
        .env("ROUSE_CONFORMANCE_TOOLS", &folder)
        .env(
            "ROUSE_CONFORMANCE_FULL",
            if options.full { "1" } else { "" },
        )
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

/// Fetches the Autobahn suite's source and makes a Python environment for it, unless both are there.
fn prepare_autobahn(root: &Path, folder: &Path) -> anyhow::Result<()> {
    let requirements = root.join("tests/conformance/autobahn/requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?
        + AUTOBAHN;
    // Written last: what is there without it is half of something.
    let done = folder.join("done");
    if fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    report::line("fetching the Autobahn test suite");
    if folder.exists() {
        fs::remove_dir_all(folder).context("cannot remove the old suite")?;
    }
    fs::create_dir_all(folder).context("cannot make a folder for the suite")?;
    let venv = folder.join("venv");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let pip = || {
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        pip
    };
    // What builds the others from source comes first; they build without an environment of their own, in which it would not be.
    succeed(pip().args(["install", "--quiet", "setuptools==65.5.0", "wheel==0.48.0"]))?;
    succeed(
        pip()
            .args(["install", "--quiet", "--no-build-isolation", "-r"])
            .arg(&requirements),
    )?;
    let fetched = folder.join("fetched");
    succeed(
        pip()
            .args([
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
                "--no-build-isolation",
            ])
            .arg("--dest")
            .arg(&fetched)
            .arg(AUTOBAHN),
    )?;
    let archive = fs::read_dir(&fetched)
        .and_then(|mut files| files.next().transpose())
        .context("cannot look at what was fetched")?
        .context("nothing was fetched")?;
    let suite = folder.join("suite");
    fs::create_dir_all(&suite).context("cannot make a folder for the source")?;
    succeed(
        Command::new("tar")
            .arg("xzf")
            .arg(archive.path())
            .args(["--strip-components=1", "-C"])
            .arg(&suite),
    )?;
    fs::write(&done, wanted).context("cannot note that the suite is there")
}
