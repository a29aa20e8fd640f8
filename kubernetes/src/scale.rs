//! Writing a scale so that it changes only from what was seen.
//!
//! One JSON patch on `/scale`: a test of the present number, then the new one. The API server applies both or neither, in one
//! round trip (RFC 6902, section 5).

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams},
};
use serde_json::json;
use shared::TargetId;
use tokio::time::timeout;

/// Limit on one write. Its outcome is not known then, which is harmless: it is tested when it is tried again.
pub const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// A write whose outcome is an error or unknown. One line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WriteError(pub String);

/// Changes the replicas of the Deployment `target` from `from` to `to` in the name of the field manager `manager`. False if
/// there were not `from`.
///
/// # Errors
/// [`WriteError`] if the API server says no or nothing.
pub async fn change(
    client: &Client,
    manager: &str,
    target: &TargetId,
    from: u32,
    to: u32,
) -> Result<bool, WriteError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), target.namespace());
    let params = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    for form in forms(from, to) {
        let written = api.patch_scale(target.name(), &params, &form);
        match timeout(WRITE_LIMIT, written).await {
            Ok(Ok(_)) => return Ok(true),
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
    Ok(false)
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
