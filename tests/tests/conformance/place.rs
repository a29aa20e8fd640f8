//! Where the tools and programs are, and both listeners in front of a server.

use std::{
    env,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use integration::{
    Programs, Scene,
    process::{Program, free_port},
    scene::LONG,
    wait,
};

/// The folder of the tools that `cargo xtask conformance` has built.
const TOOLS: &str = "ROUSE_CONFORMANCE_TOOLS";
/// The folder of our programs that are to be tried.
const PROGRAMS: &str = "ROUSE_CONFORMANCE_PROGRAMS";

/// Set to anything for everything, however long it takes.
const FULL: &str = "ROUSE_CONFORMANCE_FULL";

/// A folder, the programs and the tools.
pub(crate) struct Place {
    scene: Scene,
    tools: PathBuf,
}

/// A queue-proxy in front of a server, and an activator in front of that queue-proxy.
pub(crate) struct Listeners {
    /// Where clients of the queue-proxy connect.
    pub(crate) queue_proxy: SocketAddr,
    /// Where clients of the activator connect.
    pub(crate) activator: SocketAddr,
    _programs: [Program; 2],
}

impl Place {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let folder =
            |name| PathBuf::from(env::var_os(name).expect("run by cargo xtask conformance"));
        // The folder's programs lie beside any name in it.
        let programs = Programs::beside(&folder(PROGRAMS).join("any"));
        Self {
            scene: Scene::new(programs),
            tools: folder(TOOLS),
        }
    }

    /// Whether everything is to be run, not the part that CI has time for.
    pub(crate) fn full() -> bool {
        env::var_os(FULL).is_some_and(|value| !value.is_empty())
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.scene.folder()
    }

    /// The root of the repository.
    pub(crate) fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// A tool, by its place below the tools' folder.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }

    /// Starts one of our programs. `flags` are separated by spaces.
    pub(crate) fn start(&self, name: &str, flags: &str) -> Program {
        self.start_other(&self.scene.programs().path(name), flags)
    }

    /// Starts any program.
    pub(crate) fn start_other(&self, path: &Path, flags: &str) -> Program {
        let flags: Vec<_> = flags.split_whitespace().collect();
        Program::start(path, &flags, self.folder())
    }

    /// Starts both listeners in front of a server that takes connections.
    pub(crate) async fn listen(&self, upstream: SocketAddr) -> Listeners {
        let (queue_proxy, admit, activator) = (free_port(), free_port(), free_port());
        let programs = [
            self.start(
                "rouse-queue-proxy",
                // A connection's age would end some of them in the middle of what a tool does.
                &format!(
                    "--listen {queue_proxy} --upstream {upstream} --activator-listen {admit} --pod-uid a --grace 1 \
                     --max-connection-age 0"
                ),
            ),
            self.start(
                "rouse-activator",
                &format!("--listen {activator} --pod a={admit} --always-in-path --grace 1"),
            ),
        ];
        for address in [queue_proxy, admit, activator] {
            takes_connections(address).await;
        }
        Listeners {
            queue_proxy,
            activator,
            _programs: programs,
        }
    }
}

impl Listeners {
    /// Both, each with its name.
    pub(crate) fn both(&self) -> [(&'static str, SocketAddr); 2] {
        [
            ("queue-proxy", self.queue_proxy),
            ("activator", self.activator),
        ]
    }
}

/// Waits until somebody listens.
pub(crate) async fn takes_connections(address: SocketAddr) {
    wait::until(&format!("{address} takes connections"), LONG, || {
        TcpStream::connect(address).is_ok()
    })
    .await;
}
