//! What was done to a user's Service, so that it can be undone.
//!
//! It stands on the companion and not on the Service, since other controllers overwrite that one's metadata. It is written
//! before the Service is touched, and read by the autoscaler (which undoes it) and by the webhook (which keeps others from
//! writing the old value back meanwhile).

use k8s_openapi::{
    api::core::v1::Service, apimachinery::pkg::util::intstr::IntOrString as TargetPort,
};
use serde::{Deserialize, Serialize};

use crate::names;

/// The value of the annotation [`names::ADOPTED`], as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The workload's name, in the Service's namespace.
    pub workload: String,
    /// The ports that lead to the sidecar, or are about to.
    pub ports: Vec<AdoptedPort>,
    /// The Service is being given back: nobody may flip it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// One port of an adopted Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedPort {
    /// The Service's port. Request ports are TCP.
    pub port: u16,
    /// Its `targetPort` before.
    pub was: TargetPort,
    /// The request port of the pods that it leads to, counted from 0.
    pub index: usize,
}

impl Adopted {
    /// Reads it from a companion. None if that has none, or one that somebody else wrote.
    pub fn of(companion: &Service) -> Option<Self> {
        let annotations = companion.metadata.annotations.as_ref()?;
        Self::parse(annotations.get(names::ADOPTED)?)
    }

    /// Reads the annotation's value.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The annotation's value.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_as_it_was_written() {
        let mut adopted = Adopted {
            workload: "iris".into(),
            ports: vec![
                AdoptedPort {
                    port: 80,
                    was: TargetPort::Int(8080),
                    index: 0,
                },
                AdoptedPort {
                    port: 81,
                    was: TargetPort::String("grpc".into()),
                    index: 1,
                },
            ],
            leaving: false,
        };
        assert!(!adopted.to_text().contains("leaving"));
        assert_eq!(Adopted::parse(&adopted.to_text()), Some(adopted.clone()));
        adopted.leaving = true;
        assert_eq!(Adopted::parse(&adopted.to_text()), Some(adopted));
        assert_eq!(Adopted::parse("{}"), None);
    }
}
