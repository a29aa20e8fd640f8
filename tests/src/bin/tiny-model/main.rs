//! `tiny-model`: a fake model server for the integration tests. Fast, small, and able to misbehave on purpose.
//!
//! It knows nothing of our libraries, so that a bug of ours cannot hide in both sides of a test. What it says about itself
//! (`/stats`, the journal) is the truth that clients' accounts are compared with.

mod args;
mod body;
mod connection;
mod relay;
mod route;
mod socket;
mod stats;

use crate::args::Args;
use crate::connection::serve;
use crate::stats::Server;
use clap::Parser;
use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// The status of a crash on purpose.
const CRASH: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(run(args))) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or Ctrl-C, or until the crash that was asked for.
async fn run(args: Args) -> io::Result<ExitCode> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        () = sleep(args.start_delay) => {}
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    }
    let server = Arc::new(Server::new(args)?);
    let listener = listen(server.args.host, server.args.port)?;
    let (closing, closed) = watch::channel(false);
    // Every task that has something to finish holds a sender; the last one to go ends the wait below.
    let (open, mut finished) = mpsc::channel::<()>(1);
    let args = &server.args;
    let early = crash_at(args.crash_before_ready);
    let late = crash_at(args.crash_after_start.map(|after| args.ready_delay + after));
    tokio::pin!(early, late);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(serve(Arc::clone(&server), stream, closed.clone(), open.clone()));
                }
                // Out of files, or a client that left again: neither is a reason to die.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut early => return Ok(crash("the weights cannot be loaded: unexpected end of file")),
            () = &mut late => return Ok(crash("the device is lost")),
        }
    }
    drop((listener, open));
    closing.send_replace(true);
    finished.recv().await;
    Ok(ExitCode::SUCCESS)
}

/// The usual queue of 128 new connections overflows when a test opens hundreds at once, and each one too many costs its
/// client a second.
fn listen(host: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((host, port).into())?;
    socket.listen(4_096)
}

async fn crash_at(after: Option<Duration>) {
    match after {
        Some(after) => sleep(after).await,
        None => pending().await,
    }
}

/// Two lines, as tests check that the last words of a process are kept.
fn crash(why: &str) -> ExitCode {
    complain(&format!("fatal: {why}"));
    complain("tiny-model crashes on purpose, status 3");
    ExitCode::from(CRASH)
}

#[expect(
    clippy::print_stderr,
    reason = "the only place that talks to the terminal"
)]
fn complain(line: &str) {
    eprintln!("{line}");
}
