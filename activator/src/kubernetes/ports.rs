//! Listening on what is claimed, and on nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ::kubernetes::Claim;
use shared::{TargetId, http::serve::bind};
use tokio::time::Instant;

use crate::Activator;

/// How long a port that could not be had is left alone.
const PAUSE: Duration = Duration::from_secs(5);

/// The claimed ports of each workload, with the request port that each stands for.
pub(super) fn wanted<'a>(
    claims: impl Iterator<Item = &'a Claim>,
) -> BTreeMap<TargetId, BTreeMap<u16, usize>> {
    let mut wanted: BTreeMap<TargetId, BTreeMap<u16, usize>> = BTreeMap::new();
    for claim in claims.filter(|claim| claim.released.is_none()) {
        wanted
            .entry(claim.target.clone())
            .or_default()
            .insert(claim.port, claim.index);
    }
    wanted
}

/// The ports that are open.
#[derive(Debug, Default)]
pub(super) struct Ports {
    open: HashMap<SocketAddr, (TargetId, usize)>,
    /// Ports that could not be had, and when they are tried again.
    refused: HashMap<SocketAddr, Instant>,
}

impl Ports {
    /// The listeners of a workload have been closed with it.
    pub(super) fn forget(&mut self, target: &TargetId) {
        self.open.retain(|_, (whose, _)| whose != target);
    }

    /// Opens what is missing of a workload's ports and closes what is too much.
    pub(super) fn open(
        &mut self,
        activator: &Activator,
        target: &TargetId,
        wanted: &BTreeMap<u16, usize>,
        listen: &[IpAddr],
        now: Instant,
    ) {
        self.open.retain(|address, (whose, index)| {
            let stays = whose != target || wanted.get(&address.port()) == Some(index);
            if !stays {
                activator.close(target, *address);
            }
            stays
        });
        self.refused.retain(|_, again| now < *again);
        for (port, index) in wanted {
            for ip in listen {
                let address = SocketAddr::new(*ip, *port);
                if self.open.contains_key(&address) || self.refused.contains_key(&address) {
                    continue;
                }
                let opened =
                    bind(address)
                        .map_err(|error| error.to_string())
                        .and_then(|listener| {
                            activator
                                .open(target, *index, listener)
                                .map_err(|error| error.to_string())
                        });
                match opened {
                    Ok(()) => {
                        self.open.insert(address, (target.clone(), *index));
                    }
                    Err(error) => {
                        // One port that cannot be had is one workload's trouble, not this program's.
                        tracing::error!(%target, %address, error, "Cannot listen on a claimed port");
                        self.refused.insert(address, now + PAUSE);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_claims_are_not_listened_on() {
        let claim = |port, target: &str, index, released| Claim {
            port,
            target: target.parse().unwrap(),
            index,
            released,
        };
        let claims = [
            claim(10_000, "a/m", 0, None),
            claim(10_001, "a/m", 1, None),
            claim(10_002, "b/m", 0, Some(5)),
        ];
        let wanted = wanted(claims.iter());
        assert_eq!(wanted.len(), 1);
        let ports: Vec<_> = wanted[&"a/m".parse().unwrap()].iter().collect();
        assert_eq!(ports, [(&10_000, &0), (&10_001, &1)]);
    }
}
