//! Writing a scale so that it changes only from what was seen.
//!
//! One JSON patch on `/scale`: a test of the present number, then the new one. The API server applies both or neither, in one
//! round trip (RFC 6902, section 5).

use std::time::Duration;

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams},
};
use serde_json::json;
use shared::TargetId;
use tokio::time::timeout;

/// Limit on one write. Its outcome is not known then, which is harmless: it is tested when it is tried again.
pub const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// How late in the history of an object something is: its resource version, where that is a number.
///
/// Kubernetes promises that those of one kind of object can be compared as integers from 1.35 on (KEP-5504); every API server
/// over etcd has made them so before. What is no number is neither earlier nor later than anything.
///
/// Two versions are always equal: it accompanies what is known of an object, and alone makes no difference to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Version(Option<u64>);

impl Version {
    /// The version of the object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        let given = meta.resource_version.as_deref();
        Self(given.and_then(|version| version.parse().ok()))
    }

    /// Whether it is certain that this is later than `other`.
    pub fn is_after(self, other: Self) -> bool {
        matches!((self.0, other.0), (Some(ours), Some(other)) if ours > other)
    }
}

impl PartialEq for Version {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Version {}

/// A write whose outcome is an error or unknown. One line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WriteError(pub String);

/// Changes the replicas of the Deployment `target` from `from` to `to` in the name of the field manager `manager`. The version
/// of the Deployment that this made, or nothing if there were not `from`.
///
/// # Errors
/// [`WriteError`] if the API server says no or nothing.
pub async fn change(
    client: &Client,
    manager: &str,
    target: &TargetId,
    from: u32,
    to: u32,
) -> Result<Option<Version>, WriteError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), target.namespace());
    let params = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    for form in forms(from, to) {
        let written = api.patch_scale(target.name(), &params, &form);
        match timeout(WRITE_LIMIT, written).await {
            Ok(Ok(scale)) => return Ok(Some(Version::of(&scale.metadata))),
            // The test failed, or somebody was faster between it and the write.
            Ok(Err(Error::Api(status))) if matches!(status.code, 409 | 422) => {}
            Ok(Err(error)) => return Err(WriteError(error.to_string())),
            Err(_) => {
                return Err(WriteError(format!(
                    "no answer to a write of the scale within {WRITE_LIMIT:?}"
                )));
            }
        }
    }
    Ok(None)
}

/// The patches to try, one after another: a scale of 0 has no `replicas` in its JSON (`omitempty` in
/// `k8s.io/api/autoscaling/v1`), but nothing promises that it will stay so.
fn forms(from: u32, to: u32) -> Vec<Patch<()>> {
    let patch = |test_path: &str, test: serde_json::Value| {
        let text = json!([
            {"op": "test", "path": test_path, "value": test},
            {"op": "add", "path": "/spec/replicas", "value": to},
        ]);
        Patch::Json(serde_json::from_value(text).unwrap_or_default())
    };
    let given = patch("/spec/replicas", json!(from));
    if from == 0 {
        vec![patch("/spec", json!({})), given]
    } else {
        vec![given]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(form: &Patch<()>) -> serde_json::Value {
        match form {
            Patch::Json(patch) => serde_json::to_value(patch).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn versions_are_compared_as_numbers_or_not_at_all() {
        let version = |text: &str| {
            Version::of(&ObjectMeta {
                resource_version: Some(text.to_owned()),
                ..ObjectMeta::default()
            })
        };
        assert!(version("1000").is_after(version("999")));
        assert!(!version("999").is_after(version("999")));
        assert!(!version("x2").is_after(version("1")) && !version("2").is_after(version("x1")));
        assert!(!version("2").is_after(Version::default()));
    }

    #[test]
    fn every_form_tests_before_it_writes() {
        for (from, to, count) in [(0, 3, 2), (3, 0, 1), (2, 5, 1)] {
            let forms = forms(from, to);
            assert_eq!(forms.len(), count);
            for form in forms {
                let ops = ops(&form);
                assert_eq!(ops[0]["op"], "test");
                assert_eq!(ops[1]["path"], "/spec/replicas");
                assert_eq!(ops[1]["value"], to);
            }
        }
        assert_eq!(ops(&forms(0, 3)[0])[0]["value"], json!({}));
    }
}
