//! Loopback ports for replicas.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// First and last port given to models. Below the range from which Linux takes ports for outgoing connections
/// (32768 and up), so that no connection can take a model's port between its choice and the model's bind.
const FIRST: u16 = 20_000;
const LAST: u16 = 29_999;

/// A port that no other Rouse gives to a model while this exists.
///
/// A model may take long to listen, and until then the port looks free to everybody. Were it given out twice, one
/// workload's requests would reach the other's model. What holds it is the UDP port of the same number: models do not use
/// it, nobody else in any process can have it as well, and it is let go on every way to end.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) address: SocketAddr,
    _held: UdpSocket,
}

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

    /// The next port on which nobody listens and that no other replica has. `None` if all are taken.
    pub(crate) fn next(&self) -> Option<Reserved> {
        (FIRST..=LAST).find_map(|_| {
            let port = self.0.fetch_update(Relaxed, Relaxed, |port| {
                Some(if port >= LAST { FIRST } else { port + 1 })
            });
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(FIRST)));
            let held = UdpSocket::bind(address).ok()?;
            // After the reservation, or another could listen and let go of its own in between.
            TcpListener::bind(address).ok()?;
            Some(Reserved {
                address,
                _held: held,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn gives_each_port_once_and_skips_those_in_use() {
        let ports = Ports::new();
        let first = ports.next().unwrap().address;
        let second = ports.next().unwrap().address;
        assert_ne!(first, second);
        ports.0.store(first.port(), Relaxed);
        let _taken = TcpListener::bind(first).unwrap();
        assert_ne!(ports.next().unwrap().address, first);
    }

    #[test]
    fn two_that_begin_at_the_same_place_never_give_the_same_port() {
        let (one, other) = (Ports::new(), Ports::new());
        let given: Vec<_> = (0..20)
            .flat_map(|_| [one.next().unwrap(), other.next().unwrap()])
            .collect();
        let different: HashSet<_> = given.iter().map(|port| port.address).collect();
        assert_eq!(different.len(), given.len());
    }
}
