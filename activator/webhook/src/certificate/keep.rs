//! Keeping the shared state and the configurations in step, from one minute to the next.
//!
//! Everything is looked at anew each time: who has written what before does not matter, and a restart changes nothing. Two
//! activators that renew at the same moment write the Secret with the version that they have read, so one of them is refused
//! and takes what the other one wrote.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
};
use kube::{
    Api, Client, Error, Resource,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use kubernetes::{Cache, names, watch::any_change};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::timeout;

use super::{Current, Due, IssueError, State, Unusable, certified, due};

/// How often everything is looked at even if nothing is told.
const EVERY: Duration = Duration::from_mins(1);
/// Pause after a failure, and least time between two looks.
const AGAIN: Duration = Duration::from_secs(5);
/// Limit on one call.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How often a write may be overtaken before a pause is made.
const TRIES: usize = 5;
/// The state in the Secret. Beside it stand certificates in the usual form, for people to look at.
const STATE: &str = "state.json";

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Our namespace.
    pub namespace: String,
    /// The Secret that the activators share.
    pub secret: String,
    /// The name of both webhook configurations.
    pub configuration: String,
    /// The Service that the API server calls.
    pub service: String,
}

impl Default for Place {
    /// As in the manifests.
    fn default() -> Self {
        Self {
            namespace: names::NAMESPACE.to_owned(),
            secret: "rouse-webhook".to_owned(),
            configuration: "rouse".to_owned(),
            service: "rouse-webhook".to_owned(),
        }
    }
}

impl Place {
    /// The names that the certificate is for. The API server asks for the first.
    pub fn names(&self) -> Vec<String> {
        let short = format!("{}.{}.svc", self.service, self.namespace);
        let long = format!("{short}.cluster.local");
        vec![short, long]
    }
}

/// Why certificate and configurations may be out of step.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server says no.
    #[error("{what}: {error}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        error: Box<Error>,
    },
    /// The API server says nothing.
    #[error("{0}: no answer within {CALL_LIMIT:?}")]
    Silence(&'static str),
    /// Others were faster each time.
    #[error("the Secret with the certificate was overtaken {TRIES} times in a row")]
    Overtaken,
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// What there is cannot be served.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// Keeps one activator's certificate.
#[expect(missing_debug_implementations, reason = "a client has none")]
pub struct Keeper {
    client: Client,
    place: Place,
    current: Arc<Current>,
}

impl Keeper {
    /// Nothing happens before [`Self::run`] or [`Self::step`].
    pub fn new(client: Client, place: Place, current: Arc<Current>) -> Self {
        Self {
            client,
            place,
            current,
        }
    }

    /// Keeps everything in step until it is dropped.
    pub async fn run(&self) {
        let only = watcher::Config::default()
            .fields(&format!("metadata.name={}", self.place.configuration));
        let mutating = self.watch::<MutatingWebhookConfiguration>(&only);
        let validating = self.watch::<ValidatingWebhookConfiguration>(&only);
        let mut changes = [mutating.changes(), validating.changes()];
        loop {
            let pause = match self.step(now()).await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, "The webhook's certificate is not in step; tried again soon");
                    AGAIN
                }
            };
            // Our own writes are told too, and must not make this spin.
            let _elapsed = timeout(pause, any_change(&mut changes, AGAIN)).await;
        }
    }

    fn watch<K>(&self, only: &watcher::Config) -> Cache<String>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    {
        Cache::watch(
            Api::<K>::all(self.client.clone()),
            only.clone(),
            |object: K| object.meta().resource_version.clone(),
        )
    }

    /// Brings everything in step once.
    ///
    /// # Errors
    /// [`KeepError`]; what was reached before stays.
    pub async fn step(&self, now: i64) -> Result<(), KeepError> {
        let state = self.agree(now).await?;
        // First trusted, then served: what fails here must not keep a good certificate from being served, though.
        let bundle = ByteString(state.bundle().into_bytes());
        let mutating = self.trust::<MutatingWebhookConfiguration>(&bundle).await;
        let validating = self.trust::<ValidatingWebhookConfiguration>(&bundle).await;
        self.current.set(&state)?;
        mutating.and(validating)
    }

    /// The state that all activators use, renewed where that is due.
    async fn agree(&self, now: i64) -> Result<State, KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.place.namespace);
        let (name, wanted) = (&self.place.secret, self.place.names());
        for _ in 0..TRIES {
            let secret = call("reading the Secret with the certificate", api.get_opt(name)).await?;
            let state = secret.as_ref().map(read).unwrap_or_default();
            let what = due(&state, &wanted, now);
            if what == Due::Nothing {
                return Ok(state);
            }
            let next = state.after(what, &wanted, now)?;
            let version = secret.and_then(|secret| secret.metadata.resource_version);
            let is_new = version.is_none();
            let written = self.write(&next, version);
            let params = PostParams::default();
            let outcome = if is_new {
                call(
                    "making the Secret with the certificate",
                    api.create(&params, &written),
                )
                .await
            } else {
                let replaced = api.replace(name, &params, &written);
                call("renewing the Secret with the certificate", replaced).await
            };
            match outcome {
                Ok(_) => {
                    tracing::info!(renewed = ?what, "The webhook's certificate was renewed");
                    return Ok(next);
                }
                // Somebody was faster: theirs counts.
                Err(KeepError::Call { error, .. }) if is_conflict(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(KeepError::Overtaken)
    }

    fn write(&self, state: &State, version: Option<String>) -> Secret {
        let serving = state.serving.as_ref().map(|one| one.certificate.clone());
        let text = serde_json::to_string(state).unwrap_or_default();
        let data = [
            (STATE, text),
            ("ca.crt", state.bundle()),
            ("tls.crt", serving.unwrap_or_default()),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(self.place.secret.clone()),
                namespace: Some(self.place.namespace.clone()),
                resource_version: version,
                labels: Some([(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(
                data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                    .into(),
            ),
            ..Secret::default()
        }
    }

    /// Puts the bundle into one of the configurations.
    async fn trust<K>(&self, bundle: &ByteString) -> Result<(), KeepError>
    where
        K: Resource<DynamicType = ()>
            + k8s_openapi::Resource
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let name = &self.place.configuration;
        let Some(found) = call("reading a webhook configuration", api.get_opt(name)).await? else {
            tracing::warn!(
                kind = K::KIND,
                name,
                "There is no such configuration, so nobody asks"
            );
            return Ok(());
        };
        let patch = patch_of(&json!(found), &json!(bundle));
        if patch.0.len() < 2 {
            return Ok(());
        }
        let params = PatchParams {
            field_manager: Some(names::ACTIVATOR_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::<K>::Json(patch);
        let outcome = call(
            "writing a webhook configuration",
            api.patch(name, &params, &patch),
        );
        match outcome.await {
            // Somebody was faster; that is told as a change.
            Err(KeepError::Call { error, .. }) if is_conflict(&error) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// A test of the version, then the bundle wherever it is not there yet.
fn patch_of(configuration: &serde_json::Value, bundle: &serde_json::Value) -> json_patch::Patch {
    let version = &configuration["metadata"]["resourceVersion"];
    let mut steps =
        vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    let webhooks = configuration["webhooks"].as_array();
    for (index, webhook) in webhooks.into_iter().flatten().enumerate() {
        if webhook["clientConfig"].get("caBundle") != Some(bundle) {
            let path = format!("/webhooks/{index}/clientConfig/caBundle");
            steps.push(json!({"op": "add", "path": path, "value": bundle}));
        }
    }
    serde_json::from_value(json!(steps)).unwrap_or_default()
}

/// The state in a Secret. What cannot be read or served is as if it were not there, and is made anew.
fn read(secret: &Secret) -> State {
    let text = secret.data.as_ref().and_then(|data| data.get(STATE));
    let state: Option<State> = text.and_then(|text| serde_json::from_slice(&text.0).ok());
    let state = state.unwrap_or_default();
    match certified(&state) {
        Ok(_) => state,
        Err(error) => {
            if text.is_some() {
                tracing::warn!(%error, "The Secret's certificate is replaced");
            }
            State {
                authorities: Vec::new(),
                ..state
            }
        }
    }
}

fn is_conflict(error: &Error) -> bool {
    // 422 is a JSON patch whose test failed.
    matches!(error, Error::Api(status) if matches!(status.code, 409 | 422))
}

async fn call<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, KeepError> {
    match timeout(CALL_LIMIT, call).await {
        Ok(outcome) => outcome.map_err(|error| KeepError::Call {
            what,
            error: Box::new(error),
        }),
        Err(_) => Err(KeepError::Silence(what)),
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}
