//! Access to the API server.

use std::time::Duration;

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, KubeconfigError},
};

/// Limit on connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Limit on the silence of a connection while an answer is awaited. Watches are told every minute or so that there is nothing
/// new, and end by themselves after [`crate::watch::WATCH_SECONDS`].
const SILENCE_LIMIT: Duration = Duration::from_secs(35);

/// Why there is no access.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account was found.
    #[error("no access to a cluster: {0}; run in a pod with a service account, or set KUBECONFIG")]
    NoConfig(#[source] Box<InferConfigError>),
    /// The kubeconfig has no such context, or there is none.
    #[error("no access to a cluster: {0}")]
    NoContext(#[source] Box<KubeconfigError>),
    /// What was found cannot be used.
    #[error("the access to the cluster cannot be used: {0}")]
    Unusable(#[source] Box<kube::Error>),
}

/// Finds the access as `kubectl` does: `KUBECONFIG`, then the pod's service account. Nothing is sent yet.
///
/// # Errors
/// [`ConnectError`].
pub async fn config() -> Result<Config, ConnectError> {
    config_for(None).await
}

/// The same for one context of the kubeconfig, if any is named.
///
/// # Errors
/// [`ConnectError`].
pub async fn config_for(context: Option<&str>) -> Result<Config, ConnectError> {
    let mut config = match context {
        None => Config::infer()
            .await
            .map_err(|error| ConnectError::NoConfig(Box::new(error)))?,
        Some(context) => {
            let options = KubeConfigOptions {
                context: Some(context.to_owned()),
                ..KubeConfigOptions::default()
            };
            Config::from_kubeconfig(&options)
                .await
                .map_err(|error| ConnectError::NoContext(Box::new(error)))?
        }
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.write_timeout = Some(CONNECT_LIMIT);
    config.read_timeout = Some(SILENCE_LIMIT);
    config.reset_reader_on_write = true;
    // A write that is answered 429 is tried again by whoever wrote it, who knows better whether it is still wanted.
    config.default_retry = false;
    Ok(config)
}

/// A client with connections of its own: what is urgent shares none with what is large.
///
/// # Errors
/// [`ConnectError::Unusable`].
pub fn connect(config: &Config) -> Result<Client, ConnectError> {
    Client::try_from(config.clone()).map_err(|error| ConnectError::Unusable(Box::new(error)))
}
