//! How many threads a program's tasks run on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime with `workers` threads; 0 stands for one per CPU that the process may use, which is also one if that cannot be told.
///
/// With one, tasks run on the thread that waits for the program's end. Nothing then crosses threads: on one core that saves the
/// wake-ups between them, and what is allocated is freed where it was.
///
/// # Errors
/// The operating system's, when it gives no thread or no poll.
pub fn build(workers: usize) -> io::Result<Runtime> {
    let workers = match workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        _ => workers,
    };
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()
}

#[cfg(test)]
mod tests {
    use tokio::runtime::RuntimeFlavor::{CurrentThread, MultiThread};

    use super::*;

    #[test]
    fn has_as_many_threads_as_it_is_told() {
        let cpus = std::thread::available_parallelism().unwrap().get();
        for (workers, threads) in [(1, 1), (3, 3), (0, cpus)] {
            let runtime = build(workers).unwrap();
            assert_eq!(runtime.metrics().num_workers(), threads);
            let expected = if threads == 1 {
                CurrentThread
            } else {
                MultiThread
            };
            assert_eq!(runtime.handle().runtime_flavor(), expected);
        }
    }
}
