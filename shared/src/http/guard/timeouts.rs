//! How long a client may keep a connection waiting.

use std::time::Duration;

/// Deadlines of a client connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// 10 s, 30 s and 75 s: long enough for bad networks, short enough that a thousand silent clients are gone in a
    /// minute. The idle limit is above the 60 s at which common load balancers close theirs.
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
        }
    }
}
