//! How many threads a program's tasks run on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime with `workers` threads; 0 stands for one per CPU that the process may use.
///
/// With one, tasks run on the thread that waits for the program's end. Nothing then crosses threads: on one core that saves the
/// wake-ups between them, and what is allocated is freed where it was.
///
/// # Errors
/// The operating system's, when it gives no thread or no poll.
pub fn build(workers: usize) -> io::Result<Runtime> {
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
        for (workers, flavor, threads) in [
            (1, CurrentThread, Some(1)),
            (3, MultiThread, Some(3)),
            (0, MultiThread, None),
        ] {
            let runtime = build(workers).unwrap();
            assert_eq!(runtime.handle().runtime_flavor(), flavor);
            let has = runtime.metrics().num_workers();
            assert!(
                threads.is_none_or(|threads| threads == has),
                "{workers}: {has}"
            );
        }
    }
}
