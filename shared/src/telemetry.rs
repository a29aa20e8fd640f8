//! Logs: one subscriber per process, set up once.

use std::{io::IsTerminal, sync::OnceLock};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends logs to standard error, filtered by `RUST_LOG` or else by `default` (e.g. `info`).
///
/// Calling it twice keeps the first set-up.
pub fn init(format: Format, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second initialisation is not an error: the first one stands.
    let _already = match format {
        Format::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .finish()
            .try_init(),
        Format::Json => builder.json().finish().try_init(),
    };
}

/// For the first line of a test: logs go to the test's captured output when `RUST_LOG` is set.
pub fn test() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
        let _already = fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .finish()
            .try_init();
    });
}
