//! Listening on what is claimed, and on nothing else.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ::kubernetes::Claim;
use shared::{TargetId, http::serve::bind_family, metrics as names};
use tokio::time::Instant;

use crate::Activator;

/// How long a port that could not be had is left alone: at first, and at most.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Who is served where: the workload, and which of its request ports.
pub(super) type Served = BTreeMap<SocketAddr, (TargetId, usize)>;

/// Every address on which the claimed ports are to be listened on.
pub(super) fn wanted<'a>(claims: impl Iterator<Item = &'a Claim>, listen: &[IpAddr]) -> Served {
    let mut wanted = Served::new();
    for claim in claims.filter(|claim| claim.released.is_none()) {
        for ip in listen {
            let address = SocketAddr::new(*ip, claim.port);
            wanted.insert(address, (claim.target.clone(), claim.index));
        }
    }
    wanted
}

/// What is open and not wanted so, and what is wanted and not open. One that changes hands is in both.
fn plan(open: &Served, wanted: &Served) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let lacks = |a: &Served, b: &Served| {
        let lacking = a
            .iter()
            .filter(|(address, whose)| b.get(address) != Some(whose));
        lacking.map(|(address, _)| *address).collect()
    };
    (lacks(open, wanted), lacks(wanted, open))
}

/// A port that could not be had.
#[derive(Debug)]
struct Refused {
    again: Instant,
    pause: Duration,
}

/// The ports that are open.
#[derive(Debug, Default)]
pub(super) struct Ports {
    open: Served,
    refused: BTreeMap<SocketAddr, Refused>,
}

/// A port that cannot be had, for the first time in a row.
#[derive(Debug)]
pub(super) struct CannotListen {
    pub(super) target: TargetId,
    pub(super) address: SocketAddr,
    pub(super) error: String,
}

impl Ports {
    /// Closes what is not wanted.
    pub(super) fn close(&mut self, activator: &Activator, wanted: &Served) {
        let (close, _) = plan(&self.open, wanted);
        for address in close {
            if let Some((target, _)) = self.open.remove(&address) {
                tracing::info!(%target, %address, "Listens no more");
                activator.close(&target, address);
            }
        }
        self.refused
            .retain(|address, _| wanted.contains_key(address));
    }

    /// Opens what is wanted. One port that cannot be had is one workload's trouble and not this program's.
    pub(super) fn open(
        &mut self,
        activator: &Activator,
        wanted: &Served,
        now: Instant,
    ) -> Vec<CannotListen> {
        let (_, missing) = plan(&self.open, wanted);
        let mut failed = Vec::new();
        for address in missing {
            let resting = |refused: &Refused| now < refused.again;
            let Some(whose) = wanted.get(&address) else {
                continue;
            };
            if self.refused.get(&address).is_some_and(resting) {
                continue;
            }
            let (target, index) = whose;
            let opened = bind_family(address)
                .map_err(|error| error.to_string())
                .and_then(|listener| {
                    let opened = activator.open(target, *index, listener);
                    opened.map_err(|error| error.to_string())
                });
            match opened {
                Ok(()) => {
                    tracing::info!(%target, %address, port = index, "Listens");
                    self.refused.remove(&address);
                    self.open.insert(address, whose.clone());
                }
                Err(error) => {
                    names::ACTIVATOR_LISTEN_ERRORS
                        .counter(&[&target.to_string()])
                        .increment(1);
                    if self.refuse(address, now) {
                        tracing::error!(%target, %address, error, "Cannot listen on a claimed port");
                        failed.push(CannotListen {
                            target: target.clone(),
                            address,
                            error,
                        });
                    }
                }
            }
        }
        failed
    }

    /// Takes note; returns whether it is the first time in a row.
    fn refuse(&mut self, address: SocketAddr, now: Instant) -> bool {
        let last = self.refused.get(&address).map(|refused| refused.pause);
        let pause = last.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
        let again = now + pause;
        self.refused.insert(address, Refused { again, pause });
        last.is_none()
    }

    /// When a port is to be tried again.
    pub(super) fn again(&self) -> Option<Instant> {
        self.refused.values().map(|refused| refused.again).min()
    }
}

/// Every address, of the families that there are here.
pub fn everywhere() -> Vec<IpAddr> {
    let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let there = |ip: &IpAddr| std::net::TcpListener::bind(SocketAddr::new(*ip, 0)).is_ok();
    all.into_iter().filter(there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(port: u16, target: &str, index: usize, released: Option<i64>) -> Claim {
        Claim {
            port,
            target: target.parse().unwrap(),
            index,
            released,
        }
    }

    fn v4(claims: &[Claim]) -> Served {
        wanted(claims.iter(), &[Ipv4Addr::UNSPECIFIED.into()])
    }

    #[test]
    fn every_claim_in_use_is_listened_on_in_every_family() {
        let claims = [
            claim(10_000, "a/m", 0, None),
            claim(10_001, "a/m", 1, None),
            claim(10_002, "b/m", 0, Some(5)),
        ];
        let ips = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let told: Vec<_> = wanted(claims.iter(), &ips)
            .iter()
            .map(|(address, (target, index))| format!("{address} {target} {index}"))
            .collect();
        assert_eq!(
            told,
            [
                "0.0.0.0:10000 a/m 0",
                "0.0.0.0:10001 a/m 1",
                "[::]:10000 a/m 0",
                "[::]:10001 a/m 1",
            ]
        );
    }

    #[test]
    fn what_changes_hands_is_closed_and_opened() {
        let now = [claim(10_000, "a/m", 0, None), claim(10_001, "a/m", 1, None)];
        let table = [
            (vec![now[0].clone(), now[1].clone()], vec![], vec![]),
            (vec![now[0].clone()], vec![10_001], vec![]),
            (
                vec![claim(10_000, "b/m", 0, None), now[1].clone()],
                vec![10_000],
                vec![10_000],
            ),
            (
                vec![claim(10_000, "a/m", 1, None), claim(10_002, "a/m", 0, None)],
                vec![10_000, 10_001],
                vec![10_000, 10_002],
            ),
            (
                vec![claim(10_000, "a/m", 0, Some(1))],
                vec![10_000, 10_001],
                vec![],
            ),
        ];
        for (then, close, open) in table {
            let ports = |addresses: Vec<SocketAddr>| {
                addresses.iter().map(SocketAddr::port).collect::<Vec<_>>()
            };
            let (closed, opened) = plan(&v4(&now), &v4(&then));
            assert_eq!((ports(closed), ports(opened)), (close, open), "{then:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_cannot_be_had_is_tried_again_less_and_less_often() {
        let mut ports = Ports::default();
        let (address, now) = (SocketAddr::from(([0, 0, 0, 0], 10_000)), Instant::now());
        assert!(ports.refuse(address, now));
        assert_eq!(ports.again(), Some(now + FIRST));
        for _ in 0..20 {
            assert!(!ports.refuse(address, now), "told once");
        }
        assert_eq!(ports.again(), Some(now + LONGEST));
        assert!(!everywhere().is_empty());
    }
}
