//! The log's writer: a thread, and a bounded queue of requests that have ended.
//!
//! Whoever writes may block: a pipe that nobody reads, a disk. Requests never wait for it. What the queue has no room for is left
//! out and counted.

use std::{
    fmt, io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{Ended, form::Form, line};

/// Requests that wait to be written: a tenth of a second of as many as one process can do, and 10 MB at the very most.
const QUEUE: usize = 4_096;
/// Lines are written together as long as there are more, up to so many bytes: what a pipe takes at once by default.
const BATCH_BYTES: usize = 64 * 1024;
/// How often a flush looks for room in a full queue.
const LOOK: Duration = Duration::from_millis(5);

/// What goes into the log and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What a line looks like.
    pub form: Form,
    /// Whether the query is told with the path.
    pub query: bool,
    /// Whether requests to probe paths are told.
    pub probes: bool,
}

/// A log that is open. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    settings: Settings,
    queue: SyncSender<Message>,
    dropped: metrics::Counter,
}

enum Message {
    Line(Box<Ended>),
    /// Whoever sent it wants to know when all before it is written.
    Flush(oneshot::Sender<()>),
}

impl Log {
    /// Starts the thread that writes to `sink`; it ends with the last copy of the log. Lines that are left out are counted in
    /// `dropped`.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn start(
        settings: Settings,
        sink: impl io::Write + Send + 'static,
        dropped: metrics::Counter,
    ) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let (form, lost) = (settings.form.clone(), dropped.clone());
        thread::Builder::new()
            .name("request-log".into())
            .spawn(move || write(&lines, sink, &form, &lost))?;
        Ok(Self(Arc::new(Inner {
            settings,
            queue,
            dropped,
        })))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// A request has ended. Never waits.
    pub(super) fn tell(&self, ended: Ended) {
        if self
            .0
            .queue
            .try_send(Message::Line(Box::new(ended)))
            .is_err()
        {
            self.0.dropped.increment(1);
        }
    }

    /// Waits until what was told so far is written, but no longer than `limit`.
    pub(super) async fn flush(&self, limit: Duration) {
        let (tx, written) = oneshot::channel();
        let flushed = async {
            let mut message = Message::Flush(tx);
            while let Err(TrySendError::Full(back)) = self.0.queue.try_send(message) {
                message = back;
                sleep(LOOK).await;
            }
            // An error means that the thread is gone, which has nothing left to write.
            let _gone = written.await;
        };
        let _late = timeout(limit, flushed).await;
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Log").field(&self.0.settings).finish()
    }
}

/// Writes until nobody has anything to tell any more.
fn write(
    queue: &Receiver<Message>,
    mut sink: impl io::Write,
    form: &Form,
    lost: &metrics::Counter,
) {
    let mut lines = String::new();
    let mut has_failed = false;
    while let Ok(first) = queue.recv() {
        let (mut count, mut next) = (0, Some(first));
        let mut flush = None;
        while let Some(message) = next {
            match message {
                Message::Line(ended) => {
                    line::write(&mut lines, form, &ended);
                    count += 1;
                }
                Message::Flush(tx) => {
                    flush = Some(tx);
                    break;
                }
            }
            next = (lines.len() < BATCH_BYTES)
                .then(|| queue.try_recv().ok())
                .flatten();
        }
        let done = sink.write_all(lines.as_bytes()).and_then(|()| sink.flush());
        lines.clear();
        if let Err(error) = done {
            lost.increment(count);
            // Most likely for ever, such as a pipe whose reader has left: said once.
            if !std::mem::replace(&mut has_failed, true) {
                tracing::warn!(%error, "Cannot write the request log");
            }
        }
        if let Some(tx) = flush {
            let _gone = tx.send(());
        }
    }
}
