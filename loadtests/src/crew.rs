//! The threads of a run: started, let go, halted, joined.

use crate::config::{Config, Load};
use crate::error::Error;
use crate::flight::{Shared, Tally, Timeline};
use crate::pace::pace;
use crate::plan::Schedule;
use crate::worker::Worker;
use std::any::Any;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The threads of a run. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Crew {
    shared: Arc<Shared>,
    pub(crate) tallies: Vec<Arc<Tally>>,
    threads: Vec<JoinHandle<()>>,
    start: watch::Sender<Option<Timeline>>,
    halt: watch::Sender<bool>,
    done_sender: Option<mpsc::Sender<()>>,
    /// Ends once every thread has ended.
    pub(crate) done: mpsc::Receiver<()>,
}

impl Crew {
    /// Starts the load threads, which connect; the receiver ends once they have.
    pub(crate) fn start(
        config: &Config,
        shared: &Arc<Shared>,
    ) -> Result<(Self, mpsc::Receiver<()>), Error> {
        let (ready_sender, ready) = mpsc::channel(1);
        let (done_sender, done) = mpsc::channel(1);
        let count = config.threads.min(config.connections);
        let mut crew = Self {
            shared: Arc::clone(shared),
            tallies: (0..count).map(|_| Arc::default()).collect(),
            threads: Vec::with_capacity(count + 1),
            start: watch::Sender::new(None),
            halt: watch::Sender::new(false),
            done_sender: Some(done_sender),
            done,
        };
        for first in 0..count {
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
                .map_err(Error::Thread)?;
            let workers: Vec<_> = (first..config.connections)
                .step_by(count)
                .map(|index| Worker {
                    shared: Arc::clone(shared),
                    tally: Arc::clone(&crew.tallies[first]),
                    index,
                })
                .collect();
            let (start, halt, ready) = (
                crew.start.subscribe(),
                crew.halt.subscribe(),
                ready_sender.clone(),
            );
            crew.spawn(format!("load-{first}"), move || {
                work(&runtime, workers, &start, halt, ready);
            })?;
        }
        Ok((crew, ready))
    }

    /// Lets the load begin; `first` is the number of the first request that counts, if it is known.
    pub(crate) fn go(
        &mut self,
        load: &Load,
        timeline: Timeline,
        tally: &Arc<Tally>,
        first: Option<u64>,
    ) -> Result<(), Error> {
        self.start.send_replace(Some(timeline));
        if let Load::Open(schedule) = load {
            let (shared, tally, schedule) = (
                Arc::clone(&self.shared),
                Arc::clone(tally),
                Schedule::clone(schedule),
            );
            self.spawn("load-pacer".into(), move || {
                pace(&shared, &tally, &timeline, &schedule, first);
            })?;
        }
        self.done_sender = None;
        Ok(())
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let done = self.done_sender.clone();
        let body = move || {
            let _done = done; // dropped by a panic, too
            body();
        };
        self.threads.push(
            thread::Builder::new()
                .name(name)
                .spawn(body)
                .map_err(Error::Thread)?,
        );
        Ok(())
    }

    /// Stops the load; requests in flight are given up.
    pub(crate) fn halt(&mut self) {
        self.shared.halted.store(true, Ordering::Relaxed);
        self.halt.send_replace(true);
        self.done_sender = None;
    }

    /// Waits for threads that have told they are done.
    pub(crate) fn join(&mut self) -> Result<(), Error> {
        self.threads.drain(..).try_for_each(|thread| {
            thread
                .join()
                .map_err(|panic| Error::Worker(words(panic.as_ref())))
        })
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.halt();
    }
}

/// The body of one load thread.
fn work(
    runtime: &Runtime,
    workers: Vec<Worker>,
    start: &watch::Receiver<Option<Timeline>>,
    mut halt: watch::Receiver<bool>,
    ready: mpsc::Sender<()>,
) {
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for worker in workers {
            tasks.spawn(worker.run(ready.clone(), start.clone()));
        }
        drop(ready);
        loop {
            tokio::select! {
                ended = tasks.join_next() => match ended {
                    Some(Ok(())) => {}
                    Some(Err(error)) => resume_unwind(error.into_panic()),
                    None => break,
                },
                _ = halt.wait_for(|halt| *halt) => break tasks.shutdown().await,
            }
        }
    });
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panic").to_owned()
}
