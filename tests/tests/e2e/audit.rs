//! What the API server has written down of requests to it: who wrote what, and when. Only a cluster of `tests/cluster` has it.

use std::{env, fs::File, io::BufRead as _, io::BufReader, path::PathBuf};

use serde_json::Value;

/// One write that was carried out.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// RFC 3339, in UTC, with microseconds: ordered as text.
    pub(crate) at: String,
    /// The Pod that wrote, if it was one.
    pub(crate) pod: String,
    pub(crate) namespace: String,
    /// Such as `deployments/scale`.
    pub(crate) resource: String,
}

/// All writes of a program of ours, by the name of its `ServiceAccount`, in their order. None on another cluster.
pub(crate) fn writes(account: &str) -> Option<Vec<Write>> {
    env::var_os("ROUSE_E2E_CLUSTER")?;
    let state = env::var_os("ROUSE_CLUSTER_STATE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/cluster/state"),
        PathBuf::from,
    );
    let file = File::open(state.join("logs/audit.jsonl")).expect("the cluster keeps an audit log");
    let user = format!("system:serviceaccount:{}:{account}", crate::space::SYSTEM);
    let lines = BufReader::new(file).lines();
    let entries = lines.filter_map(|line| serde_json::from_str::<Value>(&line.ok()?).ok());
    let mut writes: Vec<_> = entries.filter_map(|entry| write(&entry, &user)).collect();
    writes.sort_by(|a, b| a.at.cmp(&b.at));
    Some(writes)
}

fn write(entry: &Value, user: &str) -> Option<Write> {
    let text = |pointer: &str| entry.pointer(pointer)?.as_str();
    let done = text("/stage")? == "ResponseComplete"
        && entry.pointer("/responseStatus/code")?.as_u64()? < 300
        && text("/user/username")? == user
        && matches!(text("/verb")?, "create" | "update" | "patch" | "delete");
    let sub = text("/objectRef/subresource").map_or_else(String::new, |sub| format!("/{sub}"));
    done.then_some(Write {
        at: text("/requestReceivedTimestamp")?.to_owned(),
        pod: text("/user/extra/authentication.kubernetes.io~1pod-name/0")?.to_owned(),
        namespace: text("/objectRef/namespace").unwrap_or_default().to_owned(),
        resource: format!("{}{sub}", text("/objectRef/resource")?),
    })
}
