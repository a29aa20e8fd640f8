//! What the sidecar may use: annotations with the words of Knative's `queue.sidecar.serving.knative.dev/`, and defaults.
//!
//! Requests are what a sidecar uses while little happens, since they are paid for all the time. There is no limit on the CPU:
//! a throttled proxy slows down every request, and the tail most. The limit on memory is room for the worst that the
//! queue allows, 1000 waiting requests: 64 MiB of bodies (the queue's budget) and up to 40 KiB for each connection, about
//! 110 MiB with the program itself; twice that, since running into it fails everything that is in flight.

use std::collections::BTreeMap;

use autoscaler_core::annotations::{AnnotationError, Annotations};
use k8s_openapi::{
    api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity,
};

/// One quantity that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Kubernetes' word.
    pub name: &'static str,
    /// It is the limit, not the request.
    pub limit: bool,
    /// Our annotation.
    pub key: &'static str,
    /// Knative's annotation, which counts where ours is absent.
    pub alias: &'static str,
    /// What counts where neither is given.
    pub default: Option<&'static str>,
}

macro_rules! resource {
    ($name:literal, request, $default:expr) => {
        resource!($name, "request", false, $default)
    };
    ($name:literal, limit, $default:expr) => {
        resource!($name, "limit", true, $default)
    };
    ($name:literal, $end:literal, $limit:literal, $default:expr) => {
        Resource {
            name: $name,
            limit: $limit,
            key: concat!("rouse.dev/sidecar-", $name, "-", $end),
            alias: concat!(
                "queue.sidecar.serving.knative.dev/",
                $name,
                "-resource-",
                $end
            ),
            default: $default,
        }
    };
}

/// All of them, each request before its limit.
pub const KEYS: [Resource; 6] = [
    resource!("cpu", request, Some("25m")),
    resource!("cpu", limit, None),
    resource!("memory", request, Some("16Mi")),
    resource!("memory", limit, Some("256Mi")),
    resource!("ephemeral-storage", request, None),
    resource!("ephemeral-storage", limit, None),
];

/// Whether it is the key of one of them.
pub(super) fn is_one(key: &str) -> bool {
    KEYS.iter().any(|one| one.key == key || one.alias == key)
}

/// What was asked for, in the order of [`KEYS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantities([Option<String>; KEYS.len()]);

impl Quantities {
    pub(super) fn read(all: &Annotations) -> Result<Self, Vec<AnnotationError>> {
        let mut asked = Self::default();
        let mut errors = Vec::new();
        for (slot, one) in asked.0.iter_mut().zip(KEYS) {
            let found = [one.key, one.alias]
                .into_iter()
                .find_map(|key| Some((key, all.get(key)?)));
            let Some((key, value)) = found else { continue };
            if amount(value).is_some() {
                *slot = Some(value.clone());
            } else {
                let allowed = "a quantity such as 100m or 64Mi";
                errors.push(super::invalid(key, value, allowed));
            }
        }
        for (pair, keys) in asked.0.chunks(2).zip(KEYS.chunks(2)) {
            if let ([Some(request), Some(limit)], [_, of]) = (pair, keys)
                && amount(request) > amount(limit)
            {
                let allowed = format!("at least the request, {request}");
                errors.push(super::invalid(of.key, limit, &allowed));
            }
        }
        if errors.is_empty() {
            Ok(asked)
        } else {
            Err(errors)
        }
    }

    /// With the defaults. Where only one of a pair was asked for, the other one's default gives way.
    pub(crate) fn requirements(&self) -> ResourceRequirements {
        let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
        for (pair, keys) in self.0.chunks(2).zip(KEYS.chunks(2)) {
            let ([asked_request, asked_limit], [request, limit]) = (pair, keys) else {
                continue;
            };
            let quantity = |asked: &Option<String>, default: Option<&str>| {
                asked.clone().or_else(|| default.map(ToOwned::to_owned))
            };
            let mut request_value = quantity(asked_request, request.default);
            let mut limit_value = quantity(asked_limit, limit.default);
            if let (Some(asks), Some(most)) = (&request_value, &limit_value)
                && amount(asks) > amount(most)
            {
                if asked_request.is_some() {
                    limit_value.clone_from(&request_value);
                } else {
                    request_value.clone_from(&limit_value);
                }
            }
            let put = |map: &mut BTreeMap<_, _>, value: Option<String>| {
                if let Some(value) = value {
                    map.insert(request.name.to_owned(), Quantity(value));
                }
            };
            put(&mut requests, request_value);
            put(&mut limits, limit_value);
        }
        ResourceRequirements {
            claims: None,
            limits: Some(limits),
            requests: Some(requests),
        }
    }
}

/// The size of a quantity that is not negative, if it is one.
fn amount(text: &str) -> Option<f64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024_f64,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            10_f64.powi(exponent.parse::<i8>().ok()?.into())
        }
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<serde_json::Value, Vec<AnnotationError>> {
        let all = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Quantities::read(&all)
            .map(|quantities| serde_json::to_value(quantities.requirements()).unwrap())
    }

    #[test]
    fn defaults_have_no_limit_on_the_cpu() {
        assert_eq!(
            asked(&[]).unwrap(),
            serde_json::json!({
                "requests": {"cpu": "25m", "memory": "16Mi"},
                "limits": {"memory": "256Mi"},
            })
        );
    }

    #[test]
    fn a_default_gives_way_to_what_was_asked_for() {
        assert_eq!(
            asked(&[
                ("rouse.dev/sidecar-memory-request", "1Gi"),
                ("rouse.dev/sidecar-cpu-limit", "10m"),
            ])
            .unwrap(),
            serde_json::json!({
                "requests": {"cpu": "10m", "memory": "1Gi"},
                "limits": {"cpu": "10m", "memory": "1Gi"},
            })
        );
    }

    #[test]
    fn knatives_annotation_counts_where_ours_is_absent() {
        let knative = "queue.sidecar.serving.knative.dev/cpu-resource-request";
        let of = |pairs: &[(&str, &str)]| asked(pairs).unwrap()["requests"]["cpu"].clone();
        assert_eq!(of(&[(knative, "50m")]), "50m");
        let ours = "rouse.dev/sidecar-cpu-request";
        assert_eq!(of(&[(knative, "50m"), (ours, "75m")]), "75m");
    }

    #[test]
    fn a_request_above_its_limit_is_refused() {
        let errors = asked(&[
            ("rouse.dev/sidecar-memory-request", "1Gi"),
            ("rouse.dev/sidecar-memory-limit", "1000Mi"),
        ])
        .unwrap_err();
        assert!(errors[0].to_string().contains("at least the request, 1Gi"));
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, size) in [("1", 1.0), ("0.5", 0.5), ("1e3", 1e3), ("2Ki", 2048.0)] {
            assert_eq!(amount(text), Some(size), "{text}");
        }
        for bad in [
            "", "m", "-1", "1 Gi", "1g", "0x1", "NaN", "inf", "1e", "1.2.3",
        ] {
            assert_eq!(amount(bad), None, "{bad}");
        }
    }
}
