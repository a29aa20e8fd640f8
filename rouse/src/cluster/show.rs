//! `status` and `explain`.

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{Api, api::ListParams};
use kubernetes::names;
use serde_json::Value;

use super::{Cluster, Failed};

/// The autoscalers' own port, as in the manifests.
const ADMIN_PORT: u16 = 9094;

pub(super) async fn status(cluster: &Cluster, everywhere: bool) -> Result<(), Failed> {
    let deployments: Api<Deployment> = if everywhere {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    let enabled = ListParams::default().labels(names::ENABLED_SELECTOR);
    let found = deployments.list(&enabled).await?.items;
    if found.is_empty() {
        cluster
            .output
            .line("no workload is enabled here: kubectl rouse enable deploy/NAME");
        return Ok(());
    }
    // Without the autoscaler's words the rest is still worth seeing.
    let words = ask(cluster, "debug/decisions").await;
    let last = words.as_deref().unwrap_or_default();
    let mut rows = vec![["WORKLOAD", "WANTED", "READY", "LAST DECISION"].map(str::to_owned)];
    rows.extend(found.iter().map(|deployment| row(deployment, last)));
    for line in table(&rows) {
        cluster.output.line(line);
    }
    if let Err(error) = words {
        cluster
            .output
            .line(format!("the autoscaler cannot be asked: {error}"));
    }
    Ok(())
}

fn row(deployment: &Deployment, last: &str) -> [String; 4] {
    let meta = &deployment.metadata;
    let name = format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    );
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0);
    let paused = meta
        .annotations
        .as_ref()
        .and_then(|all| all.get(names::PAUSED));
    let said = if paused.map(String::as_str) == Some(names::TRUE) {
        "paused"
    } else {
        let prefix = format!("{name}: ");
        last.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or("-")
    };
    [name, wanted.to_string(), ready.to_string(), said.to_owned()]
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

pub(super) async fn explain(cluster: &Cluster, name: &str) -> Result<(), Failed> {
    let target = cluster.target(name)?;
    let text = ask(cluster, &format!("debug/decisions/{target}")).await?;
    let history: Vec<Value> = serde_json::from_str(&text)
        .map_err(|error| Failed(format!("the autoscaler's answer cannot be read: {error}")))?;
    if history.is_empty() {
        cluster
            .output
            .line(format!("{target}: nothing was decided yet"));
    }
    for decision in history {
        let written = decision["written"]
            .as_str()
            .map_or(String::new(), |word| format!(" [written: {word}]"));
        let said = decision["explain"].as_str().unwrap_or_default();
        cluster.output.line(format!("{said}{written}"));
    }
    Ok(())
}

/// Asks the leading autoscaler, through the API server.
async fn ask(cluster: &Cluster, path: &str) -> Result<String, Failed> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.ours);
    let lease = leases.get(names::LEASE).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    let leader = holder
        .as_deref()
        .and_then(kubernetes::leader::pod)
        .ok_or_else(|| Failed("no autoscaler leads at present".to_owned()))?;
    let uri = format!(
        "/api/v1/namespaces/{}/pods/{leader}:{ADMIN_PORT}/proxy/{path}",
        cluster.ours
    );
    let request = http::Request::get(uri)
        .body(Vec::new())
        .map_err(|error| Failed(error.to_string()))?;
    Ok(cluster.client.request_text(request).await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_has_the_autoscalers_word_unless_the_scale_is_frozen() {
        let mut object = json!({
            "metadata": {"namespace": "a", "name": "b"},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"readyReplicas": 1},
        });
        let said = "a/bb: other\na/b: holds 2: stable\n";
        let row_of = |object: &Value| row(&serde_json::from_value(object.clone()).unwrap(), said);
        assert_eq!(row_of(&object), ["a/b", "2", "1", "holds 2: stable"]);
        object["metadata"]["annotations"] = json!({"rouse.dev/paused": "true"});
        assert_eq!(row_of(&object)[3], "paused");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), ["a    bb", "ccc  d"]);
    }
}
