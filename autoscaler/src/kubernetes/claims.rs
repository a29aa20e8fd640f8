//! Which ports are free to be claimed, also while several claims are being made that no cache shows yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kubernetes::{Cache, Claim, claim};
use parking_lot::Mutex;
use shared::{TargetId, clock};

use super::plan::free_port;

/// A port that we tried is shown by the cache after so long, or was not taken.
const SHOWN: Duration = Duration::from_mins(1);

/// Why there is no port for a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPort {
    #[error("all ports from 10000 to 29999 are claimed or rest")]
    Anywhere,
    #[error(
        "workloads of namespace {namespace} have {claims} of the activators' ports, with those that rest, and {} is the limit",
        claim::PER_NAMESPACE
    )]
    InNamespace { namespace: String, claims: usize },
}

/// Hands out free ports.
#[derive(Debug)]
pub(crate) struct Ports {
    claims: Arc<Cache<Claim>>,
    tried: Mutex<Vec<Tried>>,
}

/// A port that was handed out lately.
#[derive(Debug)]
struct Tried {
    port: u16,
    at: Duration,
    /// For whom. Nobody of ours if it turned out to be taken.
    target: Option<TargetId>,
}

impl Ports {
    pub(crate) fn new(claims: Arc<Cache<Claim>>) -> Self {
        Self {
            claims,
            tried: Mutex::default(),
        }
    }

    /// The lowest port that nobody has, as far as is known.
    pub(crate) fn take(&self, target: &TargetId) -> Result<u16, NoPort> {
        let now = clock::since_epoch();
        let mut tried = self.tried.lock();
        tried.retain(|one| now.saturating_sub(one.at) < SHOWN);
        let seen = self.claims.all();
        let mut taken: BTreeMap<_, _> = tried
            .iter()
            .map(|one| (one.port, one.target.clone()))
            .collect();
        // What is seen counts more than what we tried.
        taken.extend(
            seen.iter()
                .map(|(_, claim)| (claim.port, Some(claim.target.clone()))),
        );
        let port = choose(&taken, target.namespace())?;
        tried.push(Tried {
            port,
            at: now,
            target: Some(target.clone()),
        });
        Ok(port)
    }

    /// Somebody has it already.
    pub(crate) fn is_taken(&self, port: u16) {
        let mut tried = self.tried.lock();
        for one in tried.iter_mut().filter(|one| one.port == port) {
            one.target = None;
        }
    }

    /// It was not claimed after all.
    pub(crate) fn give_back(&self, port: u16) {
        self.tried.lock().retain(|one| one.port != port);
    }
}

/// The lowest free port, unless the namespace has its share: what one takes beyond that is missing to all others.
fn choose(taken: &BTreeMap<u16, Option<TargetId>>, namespace: &str) -> Result<u16, NoPort> {
    let owners = taken.values().flatten();
    let claims = owners
        .filter(|owner| owner.namespace() == namespace)
        .count();
    if claims >= claim::PER_NAMESPACE {
        let namespace = namespace.to_owned();
        return Err(NoPort::InNamespace { namespace, claims });
    }
    free_port(&taken.keys().copied().collect()).ok_or(NoPort::Anywhere)
}

#[cfg(test)]
mod tests {
    use kubernetes::names;

    use super::*;

    fn id(target: &str) -> TargetId {
        target.parse().unwrap()
    }

    #[tokio::test]
    async fn a_namespace_that_has_its_share_gets_no_more_and_others_do() {
        let (cache, hand) = Cache::by_hand();
        let ports = Ports::new(Arc::new(cache));
        let greedy = id("greedy/model");
        for number in 0..claim::PER_NAMESPACE {
            let port = ports.take(&greedy).unwrap();
            assert_eq!(usize::from(port), 10_000 + number);
            // Half of them live, half of them rest, and of the last ones no cache tells yet.
            if number < 1_900 {
                let claim = Claim {
                    port,
                    target: greedy.clone(),
                    index: 0,
                    released: (number % 2 == 0).then_some(1),
                };
                hand.set("ours", &Claim::name_of(port), Some(claim));
            }
        }
        let refused = ports.take(&id("greedy/another")).unwrap_err();
        let told = refused.to_string();
        assert!(told.contains("namespace greedy have 2000 "), "{told}");
        assert!(told.ends_with("2000 is the limit"), "{told}");
        assert_eq!(ports.take(&id("modest/model")), Ok(12_000));
        // One that was not made, or is somebody else's, is not counted.
        ports.give_back(11_999);
        assert_eq!(ports.take(&greedy), Ok(11_999));
        ports.is_taken(11_999);
        assert_eq!(ports.take(&greedy), Ok(12_001));
        assert!(ports.take(&greedy).is_err());
        // And so is one that was forgotten.
        hand.set("ours", &Claim::name_of(10_000), None);
        ports.give_back(10_000);
        assert_eq!(ports.take(&greedy), Ok(10_000));
    }

    #[test]
    fn there_may_be_no_port_at_all() {
        let namespaces =
            names::CLAIM_PORTS.map(|port| (port, Some(id(&format!("n-{}/m", port % 20)))));
        let taken = namespaces.collect();
        assert_eq!(choose(&taken, "other"), Err(NoPort::Anywhere));
    }
}
