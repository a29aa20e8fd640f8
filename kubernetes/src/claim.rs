//! Which port of the activators stands for which port of which workload.
//!
//! The port is all that says whom a connection is for, so it must be unique and nobody else's to write: each claim is a
//! `ConfigMap` in our own namespace whose name is the port. The API server refuses a second one of that name, and tenants may
//! not write there. The leading autoscaler makes and removes claims; activators listen on what is claimed and on nothing
//! else.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use shared::TargetId;

use crate::names;

/// How long a port that was given up is not claimed again: connections and routes to it may still be about.
pub const REST: std::time::Duration = std::time::Duration::from_mins(10);

/// Claims that one namespace may have, live and resting together: a tenth of the ports. Each request port of a Deployment takes
/// one, and whoever may make Deployments in one namespace must not take those of all others. It is enough for 2,000 workloads
/// with one request port each, or 250 with eight.
pub const PER_NAMESPACE: usize = 2_000;

/// A claimed port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The activators' port.
    pub port: u16,
    /// Whose it is.
    pub target: TargetId,
    /// Which request port of the workload's pods, counted from 0.
    pub index: usize,
    /// Since when it is not in use any more, in seconds since 1970. It is not listened on then.
    pub released: Option<i64>,
}

/// Why a `ConfigMap` is no claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ConfigMap {name} is no port claim: {reason}")]
pub struct NotAClaim {
    /// Its name.
    pub name: String,
    /// One line.
    pub reason: String,
}

const NAMESPACE: &str = "namespace";
const WORKLOAD: &str = "workload";
const INDEX: &str = "index";

impl Claim {
    /// The name of the `ConfigMap` for a port.
    pub fn name_of(port: u16) -> String {
        format!("rouse-port-{port}")
    }

    /// The object, in the namespace `ours`.
    pub fn to_config_map(&self, ours: &str) -> ConfigMap {
        let data = [
            (NAMESPACE, self.target.namespace().to_owned()),
            (WORKLOAD, self.target.name().to_owned()),
            (INDEX, self.index.to_string()),
        ];
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(Self::name_of(self.port)),
                namespace: Some(ours.to_owned()),
                labels: Some(BTreeMap::from([(
                    names::CLAIM.to_owned(),
                    names::TRUE.to_owned(),
                )])),
                annotations: self
                    .released
                    .map(|at| BTreeMap::from([(names::RELEASED.to_owned(), at.to_string())])),
                ..ObjectMeta::default()
            },
            data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ConfigMap::default()
        }
    }

    /// Reads one back.
    ///
    /// # Errors
    /// [`NotAClaim`]: somebody else wrote it.
    pub fn from_config_map(object: &ConfigMap) -> Result<Self, NotAClaim> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let no = |reason: &str| NotAClaim {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let port = name
            .strip_prefix("rouse-port-")
            .and_then(|port| port.parse().ok())
            .filter(|port| names::CLAIM_PORTS.contains(port) && Self::name_of(*port) == name)
            .ok_or_else(|| no("its name is not rouse-port- and a port from 10000 to 29999"))?;
        let data = object.data.as_ref().ok_or_else(|| no("it has no data"))?;
        let value = |key| {
            data.get(key)
                .ok_or_else(|| no(&format!("{key} is missing")))
        };
        let target = TargetId::new(value(NAMESPACE)?, value(WORKLOAD)?)
            .map_err(|error| no(&error.to_string()))?;
        let index = value(INDEX)?
            .parse()
            .ok()
            .filter(|index| *index < names::MAX_REQUEST_PORTS)
            .ok_or_else(|| no("index is not a number from 0 to 7"))?;
        let released = object
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(names::RELEASED))
            // Unreadable is as if it were given up just now: neither in use nor free.
            .map(|at| at.parse().unwrap_or(i64::MAX));
        Ok(Self {
            port,
            target,
            index,
            released,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_gets_a_tenth_of_the_ports() {
        assert_eq!(names::CLAIM_PORTS.count(), PER_NAMESPACE * 10);
    }

    fn claim() -> Claim {
        Claim {
            port: 10_007,
            target: "models/iris".parse().unwrap(),
            index: 1,
            released: None,
        }
    }

    #[test]
    fn a_claim_is_read_back_as_it_was_written() {
        let claim = claim();
        assert_eq!(
            Claim::from_config_map(&claim.to_config_map("ours")),
            Ok(claim.clone())
        );
        let released = Claim {
            released: Some(1_700_000_000),
            ..claim
        };
        assert_eq!(
            Claim::from_config_map(&released.to_config_map("ours")),
            Ok(released)
        );
    }

    #[test]
    fn what_is_no_claim_is_refused_with_its_reason() {
        let bad = |change: fn(&mut ConfigMap)| {
            let mut object = claim().to_config_map("ours");
            change(&mut object);
            Claim::from_config_map(&object).unwrap_err().to_string()
        };
        for (told, part) in [
            (
                bad(|o| o.metadata.name = Some("rouse-port-80".into())),
                "10000 to 29999",
            ),
            (
                bad(|o| o.metadata.name = Some("rouse-port-010007".into())),
                "10000 to 29999",
            ),
            (bad(|o| o.data = None), "no data"),
            (
                bad(|o| {
                    o.data.as_mut().unwrap().remove(WORKLOAD);
                }),
                "workload is missing",
            ),
            (
                bad(|o| {
                    o.data.as_mut().unwrap().insert(INDEX.into(), "8".into());
                }),
                "0 to 7",
            ),
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn an_unreadable_release_counts_as_one() {
        let mut object = claim().to_config_map("ours");
        object.metadata.annotations = Some(BTreeMap::from([(
            names::RELEASED.to_owned(),
            "yesterday".to_owned(),
        )]));
        assert_eq!(
            Claim::from_config_map(&object).unwrap().released,
            Some(i64::MAX)
        );
    }
}
