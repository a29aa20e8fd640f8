//! Rouse's own objects that must outlast its leaving, and how they are let go.
//!
//! A finalizer stands on what the two programs need to be allowed anything: their `ServiceAccount`s, roles and bindings. Whoever
//! deletes the manifests takes none of these away before the finalizer goes, and it goes when every workload is given back.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::{Request, header::CONTENT_TYPE};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{Api, Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::names;

/// Limit on one request here. There is a grace period to be kept.
const LIMIT: Duration = Duration::from_secs(5);
/// Limits on finding out whether this is the end. Every rollout of ours asks, and has its answer within milliseconds; but if the API
/// server is slow, to stop without one would leave workloads broken.
const ASK_LIMIT: Duration = Duration::from_secs(10);
const ONE_ASK: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at whether the finalizers are off.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A kind of object with the finalizer. There is one of each for each program, and it has the program's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Without it, or a minute after its deletion, the program's token counts no more.
    ServiceAccount,
    /// What the program may do in our namespace.
    Role,
    /// To whom that is given.
    RoleBinding,
    /// What the program may do everywhere.
    ClusterRole,
    /// To whom that is given.
    ClusterRoleBinding,
}

impl Held {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::ClusterRole,
        Self::ClusterRoleBinding,
    ];

    fn path(self, namespace: &str, name: &str) -> String {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        match self {
            Self::ServiceAccount => {
                format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}")
            }
            Self::Role => format!("{RBAC}/namespaces/{namespace}/roles/{name}"),
            Self::RoleBinding => format!("{RBAC}/namespaces/{namespace}/rolebindings/{name}"),
            Self::ClusterRole => format!("{RBAC}/clusterroles/{name}"),
            Self::ClusterRoleBinding => format!("{RBAC}/clusterrolebindings/{name}"),
        }
    }
}

/// Takes our finalizer, and no other, off an object.
fn patch(path: &str) -> Result<Request<Vec<u8>>, http::Error> {
    let body = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [names::GIVE_BACK]}});
    Request::patch(path)
        .header(CONTENT_TYPE, "application/strategic-merge-patch+json")
        .body(body.to_string().into_bytes())
}

/// Has the namespace changed, and with that looked at again. Its controller otherwise comes back after half the longest grace
/// period of the pods that it saw (`pkg/controller/namespace`), which is minutes, and 5 s after a change of the namespace.
fn touch(path: &str) -> Result<Request<Vec<u8>>, http::Error> {
    let body = json!({"metadata": {"annotations": {names::GIVE_BACK: "done"}}});
    Request::patch(path)
        .header(CONTENT_TYPE, "application/merge-patch+json")
        .body(body.to_string().into_bytes())
}

/// Sends a patch. What is not there any more needs none.
async fn send(
    client: &Client,
    request: Result<Request<Vec<u8>>, http::Error>,
) -> Result<(), String> {
    let request = request.map_err(|error| error.to_string())?;
    let path = request.uri().to_string();
    match timeout(LIMIT, client.request::<Value>(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Error::Api(status))) if status.is_not_found() => Ok(()),
        Ok(Err(error)) => Err(format!("{path}: {error}")),
        Err(_) => Err(format!("{path}: no answer in time")),
    }
}

/// Takes the finalizer off everything: first what belongs to the activators, then what the caller's own rights may hang on.
/// Returns what could not be done, a line each.
///
/// The autoscaler's own objects are let go all at once, each by a connection that is open already. Whichever goes first takes the
/// right to change the others with it, so they must all have been asked for by then. The API server looks at rights when a request
/// comes in; that one was carried out it learns by a watch, after a write to disk.
pub async fn release(client: &Client, namespace: &str) -> Vec<String> {
    let all = |name: &'static str| {
        join_all(Held::ALL.map(|kind| send(client, patch(&kind.path(namespace, name)))))
    };
    let others = all(names::ACTIVATOR_ACCOUNT).await;
    // What it answers does not matter: it opens connections, and lets the API server remember the token.
    let warm = Held::ALL.map(|_| is_terminating::<Namespace>(Api::all(client.clone()), namespace));
    let _warm = timeout(LIMIT, join_all(warm)).await;
    let touched = send(client, touch(&format!("/api/v1/namespaces/{namespace}"))).await;
    let own = all(names::AUTOSCALER_ACCOUNT).await;
    let done = others.into_iter().chain(own).chain([touched]);
    done.filter_map(Result::err).collect()
}

/// Whether a program that is told to stop is told so because Rouse is being deleted: its `ServiceAccount` is, or the namespace. If
/// nobody can say so for 10 s, it is not.
pub async fn is_asked(client: &Client, namespace: &str, account: &str) -> bool {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let asked = join(
        is_terminating(accounts, account),
        is_terminating::<Namespace>(Api::all(client.clone()), namespace),
    );
    timeout(ASK_LIMIT, asked)
        .await
        .is_ok_and(|(account, namespace)| account || namespace)
}

/// Waits until the finalizers are off, whoever took them off: then the program may not even look at its own account.
pub async fn is_released(client: &Client, namespace: &str, account: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    loop {
        let asked = timeout(ONE_ASK, accounts.get_metadata(account)).await;
        let refused = matches!(&asked, Ok(Err(Error::Api(status))) if is_refusal(status.code));
        if refused {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn is_refusal(code: u16) -> bool {
    matches!(code, 401 | 403 | 404)
}

/// Asks until there is an answer.
async fn is_terminating<K>(api: Api<K>, name: &str) -> bool
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    loop {
        let asked = timeout(ONE_ASK, api.get_metadata(name)).await;
        let answer = asked.map(|answer| answer.map(|object| object.metadata.deletion_timestamp));
        if let Some(known) = answer.ok().and_then(|answer| verdict(&answer)) {
            return known;
        }
        sleep(ASK_AGAIN).await;
    }
}

/// What an answer says, if it says anything. Whoever may not know is not asked to leave: manifests that are older than the program
/// have no finalizers either.
fn verdict<T>(answer: &Result<Option<T>, Error>) -> Option<bool> {
    match answer {
        Ok(deleted) => Some(deleted.is_some()),
        Err(Error::Api(status)) if is_refusal(status.code) => Some(false),
        Err(error) => {
            tracing::warn!(%error, "Not known whether Rouse is being deleted");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_finalizer_is_taken_off_and_nothing_else_is_said() {
        let request = patch(&Held::Role.path("ours", "rouse-autoscaler")).unwrap();
        assert_eq!(
            request.uri(),
            "/apis/rbac.authorization.k8s.io/v1/namespaces/ours/roles/rouse-autoscaler"
        );
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(
            body,
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["rouse.dev/give-back"]}})
        );
        let cluster = Held::ClusterRole.path("ours", "x");
        assert!(cluster.ends_with("/v1/clusterroles/x"), "{cluster}");
    }

    #[test]
    fn a_program_that_may_not_ask_is_not_asked_to_leave_and_one_without_an_answer_asks_again() {
        let refused = |code| {
            let status = kube::core::Status {
                code,
                ..kube::core::Status::default()
            };
            verdict::<()>(&Err(Error::Api(Box::new(status))))
        };
        assert_eq!(verdict(&Ok(Some(()))), Some(true));
        assert_eq!(verdict::<()>(&Ok(None)), Some(false));
        assert_eq!([401, 403, 404].map(refused), [Some(false); 3]);
        assert_eq!([429, 500, 503].map(refused), [None; 3]);
    }

    /// What stays without the leader's knowing would stay for ever, and what it does not find to hold is gone too early.
    #[test]
    fn the_manifests_hold_what_is_let_go_and_nothing_else() {
        let manifests = [
            (
                include_str!("../../deploy/activator-rbac.yaml"),
                names::ACTIVATOR_ACCOUNT,
            ),
            (
                include_str!("../../deploy/autoscaler-rbac.yaml"),
                names::AUTOSCALER_ACCOUNT,
            ),
        ];
        let line = format!("  finalizers: [{}]", names::GIVE_BACK);
        for (text, account) in manifests {
            let objects: Vec<_> = text.split("\n---\n").collect();
            assert_eq!(objects.len(), Held::ALL.len());
            for (object, kind) in objects.iter().zip([
                Held::ServiceAccount,
                Held::ClusterRole,
                Held::ClusterRoleBinding,
                Held::Role,
                Held::RoleBinding,
            ]) {
                let has = |wanted: &str| object.lines().any(|one| one == wanted);
                assert!(has(&format!("kind: {kind:?}")), "{object}");
                assert!(has(&format!("  name: {account}")), "{object}");
                assert!(has(&line), "{object}");
            }
        }
        for other in [
            include_str!("../../deploy/activator.yaml"),
            include_str!("../../deploy/autoscaler.yaml"),
            include_str!("../../deploy/config.yaml"),
            include_str!("../../deploy/namespace.yaml"),
            include_str!("../../deploy/network-policy.yaml"),
            include_str!("../../deploy/webhook.yaml"),
        ] {
            assert!(!other.contains("finalizers"), "{other}");
        }
    }
}
