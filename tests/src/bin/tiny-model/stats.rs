//! What happened, counted where it happens.

use crate::args::Args;
use http::Method;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The server's settings and counts.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) args: Args,
    pub(crate) pid: String,
    /// How it signs its answers.
    pub(crate) name: String,
    pub(crate) opened: Instant,
    pub(crate) requests: AtomicU64,
    cancelled: AtomicU64,
    rejected: AtomicU64,
    open: AtomicUsize,
    max_open: AtomicUsize,
    connections: AtomicU64,
    hung: AtomicBool,
    journal: Option<File>,
    dice: AtomicU64,
}

impl Server {
    pub(crate) fn new(args: Args) -> io::Result<Self> {
        let append = |path| OpenOptions::new().create(true).append(true).open(path);
        let journal = args.journal.as_ref().map(append).transpose()?;
        let pid = process::id().to_string();
        Ok(Self {
            name: args.name.clone().unwrap_or_else(|| pid.clone()),
            args,
            pid,
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            max_open: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            hung: AtomicBool::new(false),
            journal,
            dice: AtomicU64::new(0),
        })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.args.crash_before_ready.is_none() && self.opened.elapsed() >= self.args.ready_delay
    }

    /// From now on nothing is answered.
    pub(crate) fn hang(&self) {
        self.hung.store(true, Relaxed);
    }

    pub(crate) fn is_hung(&self) -> bool {
        self.hung.load(Relaxed)
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// Counts a request as executed, and writes it down in one write, so that lines of several processes never mix.
    pub(crate) fn execute(
        &self,
        id: Option<&str>,
        method: &Method,
        path: &str,
        body_bytes: u64,
    ) -> io::Result<u64> {
        let count = self.requests.fetch_add(1, Relaxed) + 1;
        if let Some(mut journal) = self.journal.as_ref() {
            let id = id
                .filter(|id| !id.is_empty())
                .unwrap_or("-")
                .replace(char::is_whitespace, "_");
            let line = format!("{id} {} {method} {path} {body_bytes}\n", self.pid);
            journal.write_all(line.as_bytes())?;
        }
        Ok(count)
    }

    /// The next of a fixed sequence of numbers that look random, from 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    pub(crate) fn roll(&self) -> f64 {
        let mut z = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn json(&self) -> String {
        format!(
            r#"{{"pid":{},"requests":{},"max_concurrency":{},"open":{},"cancelled":{},"rejected":{},"connections":{}}}"#,
            self.pid,
            self.requests.load(Relaxed),
            self.max_open.load(Relaxed),
            self.open.load(Relaxed),
            self.cancelled.load(Relaxed),
            self.rejected.load(Relaxed),
            self.connections.load(Relaxed),
        )
    }
}

/// What a connection's task needs to know of its requests.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    pub(crate) open: AtomicUsize,
    pub(crate) answered: AtomicU64,
    pub(crate) changed: Notify,
}

/// A request from its head to the last byte of its response. Dropped before [`Open::finish`], it was cancelled.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) server: Arc<Server>,
    activity: Arc<Activity>,
    /// Administrative requests only count for the connection.
    counted: bool,
    finished: bool,
}

impl Open {
    /// `None` if the request is one too many.
    pub(crate) fn begin(
        server: &Arc<Server>,
        activity: &Arc<Activity>,
        counted: bool,
    ) -> Option<Self> {
        if counted {
            let now = server.open.fetch_add(1, Relaxed) + 1;
            let limit = server.args.concurrency;
            if limit != 0 && now > limit {
                server.open.fetch_sub(1, Relaxed);
                server.rejected.fetch_add(1, Relaxed);
                return None;
            }
            server.max_open.fetch_max(now, Relaxed);
        }
        activity.open.fetch_add(1, Relaxed);
        activity.changed.notify_one();
        Some(Self {
            server: Arc::clone(server),
            activity: Arc::clone(activity),
            counted,
            finished: false,
        })
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.counted {
            self.server.open.fetch_sub(1, Relaxed);
            self.server
                .cancelled
                .fetch_add(u64::from(!self.finished), Relaxed);
        }
        self.activity.open.fetch_sub(1, Relaxed);
        self.activity.answered.fetch_add(1, Relaxed);
        self.activity.changed.notify_one();
    }
}
