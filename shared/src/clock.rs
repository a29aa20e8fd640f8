//! The process clock: one epoch, so that seconds in statistics mean the same in every part of a process.

use std::sync::OnceLock;

use tokio::time::{Duration, Instant};

/// Microseconds since the first call in this process. Monotonic; obeys tokio's paused time.
pub fn micros() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}

/// Time since the process epoch.
pub fn since_epoch() -> Duration {
    // Starts at one hour so that subtracting a window from an early instant never meets zero.
    Instant::now().saturating_duration_since(epoch()) + Duration::from_hours(1)
}

/// Milliseconds since 1970 by the machine's wall clock, for what is older than this process. It may be set back.
pub fn unix_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
