//! A place of its own for each test: a folder, models that keep a journal there, and local mode over them.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rouse::local::{
    Local, LocalWorkload, Options,
    logs::{Output, Surface},
    process::Launcher,
    supervisor::{ReplicaView, Snapshot},
};
use tempfile::TempDir;

use crate::{Deployment, Programs, process, wait};

/// How long anything may take that takes a second on a machine with nothing else to do.
pub const LONG: Duration = Duration::from_secs(20);

/// A folder and the programs.
#[derive(Debug)]
pub struct Scene {
    folder: TempDir,
    programs: Programs,
}

impl Scene {
    /// An empty one.
    pub fn new(programs: Programs) -> Self {
        Self {
            folder: tempfile::tempdir().expect("the system has room for a folder"),
            programs,
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A tiny model with a journal, which says itself when it is ready.
    pub fn model(&self, name: &str, flags: &[&str]) -> Deployment {
        let journal = self.journal_file(name).display().to_string();
        Deployment::new(name, &[&self.programs.model(), "--journal", &journal])
            .args(flags)
            .ready_path("/ready")
    }

    /// As [`Scene::model`], but its program starts only when [`Scene::open_gate`] says so: as late as the test needs it.
    pub fn gated(&self, name: &str, flags: &[&str]) -> Deployment {
        let (gate, journal) = (self.gate(name), self.journal_file(name));
        let script = format!(
            "until [ -e {} ]; do sleep 0.02; done; exec {} --journal {} {}",
            gate.display(),
            self.programs.model(),
            journal.display(),
            flags.join(" ")
        );
        Deployment::new(name, &["sh", "-c", &script]).ready_path("/ready")
    }

    /// Lets a gated model start.
    pub fn open_gate(&self, name: &str) {
        std::fs::write(self.gate(name), "").expect("the folder is ours");
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.gate"))
    }

    /// Where the model of this name writes down what it executes.
    pub fn journal_file(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.journal"))
    }

    /// What the model of this name has executed. A model that was never asked may have no journal.
    pub fn journal(&self, name: &str) -> String {
        std::fs::read_to_string(self.journal_file(name)).unwrap_or_default()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// Writes Deployments into one file.
    pub fn file(&self, deployments: &[Deployment]) -> PathBuf {
        let documents: Vec<_> = (0..)
            .zip(deployments)
            .map(|(at, deployment)| deployment.clone().shifted(at).yaml())
            .collect();
        self.write("models.yaml", &documents.join("---\n"))
    }

    /// Runs Deployments in this process, on any free ports. `settings` are of config-autoscaler.
    pub fn run(&self, deployments: &[Deployment], settings: &[(&str, &str)]) -> Running {
        let mut options = Options::new(vec![self.file(deployments)]);
        options.any_port = true;
        options.status = false;
        options.launcher = Launcher::program(self.programs.path("rouse"));
        options.settings = settings
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>();
        let printed = Printed::default();
        let output =
            Output::start(printed.clone(), Surface::default()).expect("a thread can be started");
        let local = Local::start(&options, &output, None).expect("local mode starts");
        Running {
            local,
            output,
            printed,
        }
    }
}

/// Local mode under way. When a test fails, what was printed is shown.
#[derive(Debug)]
pub struct Running {
    /// The library's own handle.
    pub local: Local,
    output: Output,
    printed: Printed,
}

impl Running {
    /// A workload.
    pub fn workload(&self, name: &str) -> &LocalWorkload {
        self.local.workload(name).expect("it is in the file")
    }

    /// The first request port of a workload.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.workload(name).addresses[0]
    }

    /// A URL of a workload.
    pub fn url(&self, name: &str, path: &str) -> String {
        format!("http://{}{path}", self.address(name))
    }

    /// What there is of a workload.
    pub fn snapshot(&self, name: &str) -> Arc<Snapshot> {
        self.workload(name).snapshot.borrow().clone()
    }

    /// Replicas that take requests and whose process is known.
    pub fn ready(&self, name: &str) -> Vec<ReplicaView> {
        let replicas = self.snapshot(name).replicas.clone();
        replicas
            .into_iter()
            .filter(|replica| replica.ready && !replica.terminating && replica.pid.is_some())
            .collect()
    }

    /// Waits until exactly `count` replicas take requests and no other exists.
    pub async fn settled(&self, name: &str, count: usize, limit: Duration) {
        wait::until(&format!("{name} has {count} replicas"), limit, || {
            self.ready(name).len() == count && self.snapshot(name).replicas.len() == count
        })
        .await;
    }

    /// Everything printed so far.
    pub fn printed(&self) -> String {
        self.output.finish(Duration::from_millis(200));
        self.printed.text()
    }

    /// Stops, and checks that no process is left.
    pub async fn stop(self) {
        let pids: Vec<u32> = self
            .local
            .workloads
            .iter()
            .flat_map(|workload| workload.snapshot.borrow().replicas.clone())
            .filter_map(|replica| replica.pid)
            .collect();
        let Self { local, output, .. } = self;
        local.stop(Duration::from_secs(5)).await;
        output.finish(Duration::from_secs(1));
        process::gone(&pids, Duration::ZERO).await;
    }
}

/// What was printed.
#[derive(Clone, Debug, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.text());
        }
    }
}
