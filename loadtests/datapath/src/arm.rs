//! What is compared: nothing in between, Rouse's sidecar, Rouse's activator before it, a copy of bytes, nginx, and whatever else is running.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;

use crate::process::{Pinned, listening};

/// One way to the backend.
#[derive(Clone, Debug)]
pub(crate) enum Arm {
    /// Straight to the backend.
    Direct,
    /// `rouse-queue-proxy`.
    Rouse { name: String, program: PathBuf },
    /// `rouse-activator` with a `rouse-queue-proxy` behind it, which has a core with the backend; the activator is measured.
    Activator {
        activator: PathBuf,
        queue_proxy: PathBuf,
    },
    /// What copies bytes and does nothing else: this program.
    Relay(String),
    /// nginx as a reverse proxy with kept connections to the backend.
    Nginx,
    /// Something that somebody else has started.
    Peer {
        name: String,
        to: SocketAddr,
        pid: u32,
    },
}

/// An arm that takes requests.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where.
    pub(crate) to: SocketAddr,
    /// Whose CPU and memory are looked at; none for the way without a proxy.
    pub(crate) pid: Option<u32>,
    processes: Vec<Pinned>,
    /// nginx's folder.
    _folder: Option<Folder>,
}

/// A folder that goes with this.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a temporary folder that stays.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// Where things run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The generator's and the backend's core.
    pub(crate) near: usize,
    /// The core of what is measured.
    pub(crate) proxy: usize,
    /// The backend.
    pub(crate) backend: SocketAddr,
    /// Requests at the backend at once; 0 is no limit.
    pub(crate) concurrency: u32,
}

impl Arm {
    /// How it is called in tables.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Rouse { name, .. } | Self::Peer { name, .. } => name,
            Self::Activator { .. } => "activator",
            Self::Relay(_) => "relay",
            Self::Nginx => "nginx",
        }
    }

    /// What is run for it, listening on `listen`; none where nothing is.
    pub(crate) fn command(&self, place: &Place, listen: SocketAddr) -> Option<Vec<String>> {
        match self {
            Self::Rouse { program, .. } => Some(queue_proxy(program, place, listen)),
            _ => None,
        }
    }

    /// Starts it.
    pub(crate) async fn start(&self, place: &Place) -> anyhow::Result<Running> {
        let listen = free_address()?;
        let mut processes = Vec::new();
        let mut folder = None;
        let pid;
        let mut to = listen;
        match self {
            Self::Direct => {
                to = place.backend;
                pid = None;
            }
            Self::Peer {
                to: address,
                pid: number,
                ..
            } => {
                to = *address;
                pid = Some(*number);
            }
            Self::Rouse { program, .. } => {
                let command = queue_proxy(program, place, listen);
                processes.push(Pinned::start(place.proxy, &command, false)?);
                pid = Some(processes[0].pid()?);
            }
            Self::Activator {
                activator,
                queue_proxy: program,
            } => {
                let (service, pod) = (free_address()?, free_address()?);
                let mut command = queue_proxy(program, place, service);
                let own = ["--activator-listen", &pod.to_string(), "--pod-uid", "pod-1"];
                command.extend(own.map(str::to_owned));
                processes.push(Pinned::start(place.near, &command, false)?);
                listening(service).await?;
                let command = activator_command(activator, place.concurrency, listen, pod);
                processes.push(Pinned::start(place.proxy, &command, false)?);
                pid = Some(processes[1].pid()?);
            }
            Self::Relay(program) => {
                let upstream = place.backend.to_string();
                let listen = listen.to_string();
                let command = [
                    program,
                    "relay",
                    "--listen",
                    &listen,
                    "--upstream",
                    &upstream,
                ];
                let command = command.map(str::to_owned);
                processes.push(Pinned::start(place.proxy, &command, false)?);
                pid = Some(processes[0].pid()?);
            }
            Self::Nginx => {
                let (path, command) = nginx(place, listen)?;
                folder = Some(Folder(path));
                processes.push(Pinned::start(place.proxy, &command, false)?);
                pid = Some(processes[0].pid()?);
            }
        }
        listening(to).await?;
        // What a program does once it listens, such as its first look at the model, is not a request's cost.
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Running {
            to,
            pid,
            processes,
            _folder: folder,
        })
    }
}

impl Running {
    /// Ends what was started.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        for process in self.processes.into_iter().rev() {
            process.end().await?;
        }
        Ok(())
    }
}

/// An address on loopback that nobody has at the moment.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

fn queue_proxy(program: &std::path::Path, place: &Place, listen: SocketAddr) -> Vec<String> {
    vec![
        program.display().to_string(),
        "--listen".to_owned(),
        listen.to_string(),
        "--upstream".to_owned(),
        place.backend.to_string(),
        "--container-concurrency".to_owned(),
        place.concurrency.to_string(),
        // Connections stay as long as a run, as with the peers.
        "--max-connection-age".to_owned(),
        "0".to_owned(),
    ]
}

/// An activator for one pod.
pub(crate) fn activator_command(
    program: &std::path::Path,
    concurrency: u32,
    listen: SocketAddr,
    pod: SocketAddr,
) -> Vec<String> {
    vec![
        program.display().to_string(),
        "--listen".to_owned(),
        listen.to_string(),
        "--container-concurrency".to_owned(),
        concurrency.to_string(),
        "--pod".to_owned(),
        format!("pod-1={pod}"),
        // Connections stay as long as a run.
        "--always-in-path".to_owned(),
    ]
}

fn nginx(place: &Place, listen: SocketAddr) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let folder = std::env::temp_dir().join(format!("datapath-nginx-{}", listen.port()));
    fs::create_dir_all(&folder)?;
    let path = folder.display();
    let limit = match place.concurrency {
        0 => String::new(),
        limit => format!("max_conns={limit}"),
    };
    let text = format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error crit;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
         fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s; client_max_body_size 0;\n\
         upstream model {{ server {} {limit}; keepalive 1024; keepalive_requests 1000000000; }}\n\
         server {{ listen {listen} backlog=4096; location / {{ proxy_pass http://model; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_request_buffering off; proxy_buffering off; }} }} }}\n",
        place.backend
    );
    let file = folder.join("conf");
    fs::write(&file, text)?;
    let command = [
        "nginx",
        "-c",
        &file.display().to_string(),
        "-p",
        &path.to_string(),
    ];
    let command = command.map(str::to_owned).to_vec();
    Ok((folder, command))
}
