//! Loopback ports for replicas.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// First and last port given to models. Below the range from which Linux takes ports for outgoing connections
/// (32768 and up), so that no connection can take a model's port between its choice and the model's bind.
const FIRST: u16 = 20_000;
const LAST: u16 = 29_999;

/// Gives out ports one after the other, so that a port that was just left rests: a server that binds without address
/// reuse would meet the old connections there.
#[derive(Debug)]
pub(crate) struct Ports(AtomicU16);

impl Ports {
    /// Starts at a place that differs from process to process, so that two of them rarely try the same ports.
    pub(crate) fn new() -> Self {
        let spread = u16::try_from(std::process::id() * 37 % u32::from(LAST - FIRST)).unwrap_or(0);
        Self(AtomicU16::new(FIRST + spread))
    }

    /// The next port on which nobody listens. `None` if all are taken.
    pub(crate) fn next(&self) -> Option<SocketAddr> {
        (FIRST..=LAST).find_map(|_| {
            let port = self.0.fetch_update(Relaxed, Relaxed, |port| {
                Some(if port >= LAST { FIRST } else { port + 1 })
            });
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(FIRST)));
            TcpListener::bind(address).is_ok().then_some(address)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_port_once_and_skips_those_in_use() {
        let ports = Ports::new();
        let first = ports.next().unwrap();
        let second = ports.next().unwrap();
        assert_ne!(first, second);
        ports.0.store(first.port(), Relaxed);
        let _taken = TcpListener::bind(first).unwrap();
        assert_ne!(ports.next().unwrap(), first);
    }
}
