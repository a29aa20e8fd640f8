//! `cargo xtask e2e`: the tests on a real cluster.
//!
//! Builds static programs, boots the cluster of `tests/cluster` (or takes the one that `ROUSE_E2E_KUBECONFIG` names), loads
//! images of them, installs `deploy/` and runs the tests of `tests/tests/e2e` inside the cluster's network.
//!
//! `KUBECONFIG` is never looked at: whatever it happens to name may be somebody's production.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::cargo::{self, succeed};
use crate::metadata::Metadata;
use crate::report;

/// Static: the images hold nothing else.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// The profile of what goes into images.
const PROFILE: &str = "e2e";
/// What goes into the image of Rouse, and from which packages.
const PROGRAMS: [(&str, &str); 4] = [
    ("activator", "rouse-activator"),
    ("autoscaler", "rouse-autoscaler"),
    ("loadtests", "rouse-load"),
    ("queue-proxy", "rouse-queue-proxy"),
];
/// The command line, as a kubectl plugin. Tests run it.
const COMMAND: &str = "rouse";
/// The image of Rouse, as the manifests name it.
const IMAGE: &str = "docker.io/library/rouse:dev";
/// The image of the model that misbehaves on demand.
const MODEL_IMAGE: &str = "docker.io/library/tiny-model:dev";
/// A throwaway cluster that is there already, with both images loaded.
const FOREIGN: &str = "ROUSE_E2E_KUBECONFIG";

/// How to run the tests.
#[derive(Debug)]
pub(crate) struct Options {
    /// Leave the cluster running.
    pub(crate) keep: bool,
    /// Use the cluster that is running, and leave it running.
    pub(crate) again: bool,
    /// Arguments for the test binary: a filter, `--nocapture`.
    pub(crate) args: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let metadata = Metadata::load()?;
    let root = metadata.root.clone();
    if let Some(kubeconfig) = env::var_os(FOREIGN) {
        let cluster = Cluster::Foreign(kubeconfig);
        install(&root, &cluster)?;
        return test(&metadata, &cluster, &options.args);
    }
    if let Some(missing) = missing() {
        ensure!(
            env::var_os("CI").is_none(),
            "the tests on a cluster cannot run here: {missing}"
        );
        report::line(format!(
            "skipped: the tests on a cluster need {missing}; or set {FOREIGN} to a throwaway cluster's kubeconfig"
        ));
        return Ok(());
    }
    build_static(&root)?;
    let cluster = Cluster::Own(root.join("tests/cluster/run"));
    if options.again {
        images(&metadata, &cluster)?;
        install(&root, &cluster)?;
        let mut renew = cluster.inside(Path::new("kubectl"));
        succeed(renew.args(["-n", "rouse-system", "rollout", "restart", "deployment"]))?;
        ready(&cluster)?;
        return test(&metadata, &cluster, &options.args);
    }
    // A cluster that is to be kept has no owner whose end it would follow.
    let owner = std::process::id().to_string();
    let up = if options.keep {
        cluster.run(&["up"])
    } else {
        cluster.run(&["up", "--owner", &owner])
    };
    let done = up
        .and_then(|()| images(&metadata, &cluster))
        .and_then(|()| install(&root, &cluster))
        .and_then(|()| test(&metadata, &cluster, &options.args));
    if options.keep {
        report::line("the cluster is left running; end it with tests/cluster/run down");
        return done;
    }
    let ended = cluster.run(&["down"]);
    done.and(ended)
}

/// What this machine has not.
fn missing() -> Option<&'static str> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    if !root {
        return Some("root");
    }
    let finds = |program: &str| {
        env::var_os("PATH").is_some_and(|path| {
            env::split_paths(&path).any(|folder| folder.join(program).is_file())
        })
    };
    if !finds("go") {
        return Some("go 1.26 or newer in PATH");
    }
    (!finds("musl-gcc")).then_some("musl-gcc (Debian: musl-tools)")
}

enum Cluster {
    /// The script of `tests/cluster`.
    Own(PathBuf),
    /// A kubeconfig.
    Foreign(OsString),
}

impl Cluster {
    /// A command of the cluster's own script.
    fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        match self {
            Self::Own(script) => succeed(Command::new(script).args(args)),
            Self::Foreign(_) => bail!("a foreign cluster is neither booted nor ended here"),
        }
    }

    /// A program where the cluster's addresses can be reached.
    fn inside(&self, program: &Path) -> Command {
        match self {
            Self::Own(script) => {
                let mut command = Command::new(script);
                command.arg("exec").arg(program);
                command
            }
            Self::Foreign(kubeconfig) => {
                let mut command = Command::new(program);
                command.env("KUBECONFIG", kubeconfig);
                command
            }
        }
    }
}

/// Builds what the images hold.
fn build_static(root: &Path) -> anyhow::Result<()> {
    let mut args = vec!["build", "--profile", PROFILE, "--target", TARGET];
    for (package, binary) in PROGRAMS {
        args.extend(["-p", package, "--bin", binary]);
    }
    args.extend(["-p", "integration", "--bin", "tiny-model"]);
    args.extend(["-p", "rouse", "--bin", COMMAND]);
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(root)
        .status();
    ensure!(
        added.is_ok_and(|status| status.success()),
        "rustup cannot add the target {TARGET}"
    );
    cargo::run(root, &args)
}

fn images(metadata: &Metadata, cluster: &Cluster) -> anyhow::Result<()> {
    let folder = metadata.target_directory.join(TARGET).join(PROFILE);
    let binary = |name: &str| format!("{name}={}", folder.join(name).display());
    let mut args = vec![
        "load-image".to_owned(),
        "--name".to_owned(),
        IMAGE.to_owned(),
    ];
    for (_, name) in PROGRAMS {
        args.extend(["--binary".to_owned(), binary(name)]);
    }
    cluster.run(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    let model = binary("tiny-model");
    cluster.run(&["load-image", "--name", MODEL_IMAGE, "--binary", &model])
}

/// Installs Rouse as users do, but for the images, which come from no registry.
fn install(root: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    let overlay = root.join("tests/tests/e2e/install");
    let mut apply = cluster.inside(Path::new("kubectl"));
    succeed(apply.args(["apply", "--server-side", "-k"]).arg(overlay))?;
    ready(cluster)
}

/// Waits until Rouse's own programs are ready. If they do not become so, tells what may explain it.
fn ready(cluster: &Cluster) -> anyhow::Result<()> {
    for name in ["rouse-activator", "rouse-autoscaler"] {
        let mut wait = cluster.inside(Path::new("kubectl"));
        wait.args([
            "-n",
            "rouse-system",
            "rollout",
            "status",
            "--timeout=90s",
            "deployment",
            name,
        ]);
        let done = succeed(&mut wait);
        if done.is_err() {
            let mut tell = cluster.inside(Path::new("kubectl"));
            let _told = succeed(tell.args(["-n", "rouse-system", "get", "pods,events"]));
            let mut tell = cluster.inside(Path::new("kubectl"));
            let _told = succeed(
                tell.args(["-n", "rouse-system", "logs", "--tail=30", "--prefix"])
                    .arg(format!("deployment/{name}")),
            );
        }
        done?;
    }
    Ok(())
}

/// How many tests of the group `together` run at once: they mostly wait, but share two cores with a whole Kubernetes.
const AT_ONCE: &str = "3";

/// Builds the tests and runs them: first those that may run beside each other, then each of the others by itself.
fn test(metadata: &Metadata, cluster: &Cluster, args: &[String]) -> anyhow::Result<()> {
    let root = &metadata.root;
    let program = cargo::test_program(root, &["-p", "integration"], "e2e")?;
    let mut prepare = Command::new(&program);
    succeed(prepare.args(["--ignored", "prepare"]).current_dir(root))?;
    let list = Command::new(&program)
        .args(["--list", "--format", "terse"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot list the tests")?;
    ensure!(
        list.status.success(),
        "the tests cannot be listed: {}",
        String::from_utf8_lossy(&list.stderr)
    );
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let (alone, together): (Vec<_>, Vec<_>) = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .partition(|name| name.starts_with("alone::"));
    ensure!(
        !alone.is_empty() || !together.is_empty(),
        "no test of that name"
    );
    let flags = args.iter().filter(|arg| arg.starts_with('-'));
    let mut results = Vec::new();
    for (names, at_once) in [(together, AT_ONCE), (alone, "1")] {
        if names.is_empty() {
            continue;
        }
        let mut tests = cluster.inside(&program);
        tests
            .args(["--exact", "--test-threads", at_once])
            .args(flags.clone())
            .args(names);
        if let Cluster::Own(script) = cluster {
            let built = metadata.target_directory.join(TARGET).join(PROFILE);
            tests
                .env("ROUSE_E2E_CLUSTER", script)
                .env("ROUSE_E2E_COMMAND", built.join(COMMAND));
        }
        results.push(succeed(tests.current_dir(root)));
    }
    results.into_iter().collect()
}
