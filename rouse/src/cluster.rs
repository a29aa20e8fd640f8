//! The commands for a cluster: opting workloads in and out, and looking at what Rouse does with them.
//!
//! They speak to the API server alone. What an autoscaler knows is fetched through it too, so that nothing needs to be exposed.
//! Named `kubectl-rouse` in `PATH`, the same program is `kubectl rouse`.

mod check;
mod left;
mod show;
mod uninstall;
mod write;

use std::process::ExitCode;

use kube::Client;
use kubernetes::{client, names};
use shared::TargetId;

use crate::{cli::fail, local::logs::Output};

/// Where and as whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Access {
    /// Namespace of the workload [default: that of the kubeconfig's context].
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Context of the kubeconfig [default: the current one].
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// Namespace that Rouse itself is in.
    #[arg(long, default_value = names::NAMESPACE, value_name = "NAMESPACE")]
    rouse_namespace: String,
}

/// Which workload.
#[derive(Clone, Debug, clap::Args)]
pub struct Named {
    /// The Deployment.
    #[arg(value_parser = deployment, value_name = "deploy/NAME")]
    workload: String,
    #[command(flatten)]
    access: Access,
}

/// What to do on a cluster.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Cluster: say what enabling a workload would do and what stands in the way.
    ///
    /// Changes nothing; exits 1 if it cannot be enabled.
    Check(Named),
    /// Cluster: make a Deployment serverless.
    ///
    /// Labels it and its pod template, which restarts its pods with the sidecar.
    Enable(Named),
    /// Cluster: undo enable.
    ///
    /// Its Services are given back first, then its pods are restarted without the sidecar. It keeps a replica.
    Disable(Named),
    /// Cluster: list the enabled workloads, with their replicas and the autoscaler's last word.
    Status {
        /// In all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        #[command(flatten)]
        access: Access,
    },
    /// Cluster: print the autoscaler's last decisions about a workload, each with its reason.
    Explain(Named),
    /// Cluster: wake a workload that is at zero, as a request would.
    Wake(Named),
    /// Cluster: freeze the scale of a workload.
    Pause {
        #[command(flatten)]
        named: Named,
        /// Let it go again.
        #[arg(long)]
        resume: bool,
    },
    /// Cluster: take Rouse off it.
    ///
    /// Every workload is disabled and keeps a replica, then Rouse is deleted.
    Uninstall {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        access: Access,
    },
}

/// Why a command failed: one line, or one for each mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(pub(crate) String);

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        match error {
            // The API server's own words say best what is missing or forbidden.
            kube::Error::Api(status) => Self(status.message.clone()),
            other => Self(other.to_string()),
        }
    }
}

/// A cluster, and where on it to look.
struct Cluster {
    client: Client,
    namespace: String,
    ours: String,
    output: Output,
}

impl Cluster {
    fn target(&self, name: &str) -> Result<TargetId, Failed> {
        TargetId::new(&self.namespace, name).map_err(|error| Failed(error.to_string()))
    }
}

/// Runs a command.
pub(crate) async fn run(command: Command, output: &Output) -> ExitCode {
    match execute(command, output).await {
        Ok(code) => code,
        Err(error) => {
            output.finish(crate::cli::PRINT_LIMIT);
            fail(1, &error.to_string())
        }
    }
}

async fn execute(command: Command, output: &Output) -> Result<ExitCode, Failed> {
    let at = |access| connect(access, output);
    match command {
        Command::Check(on) => return check::run(&at(on.access).await?, &on.workload).await,
        Command::Enable(on) => write::enable(&at(on.access).await?, &on.workload).await?,
        Command::Disable(on) => write::disable(&at(on.access).await?, &on.workload).await?,
        Command::Status {
            all_namespaces,
            access,
        } => show::status(&at(access).await?, all_namespaces).await?,
        Command::Explain(on) => show::explain(&at(on.access).await?, &on.workload).await?,
        Command::Wake(on) => write::wake(&at(on.access).await?, &on.workload).await?,
        Command::Pause { named, resume } => {
            write::pause(&at(named.access).await?, &named.workload, !resume).await?;
        }
        Command::Uninstall { dry_run, access } => {
            uninstall::run(&at(access).await?, dry_run).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn connect(access: Access, output: &Output) -> Result<Cluster, Failed> {
    let said = |error: client::ConnectError| Failed(error.to_string());
    let config = client::config_for(access.context.as_deref())
        .await
        .map_err(said)?;
    Ok(Cluster {
        client: client::connect(&config).map_err(said)?,
        namespace: access.namespace.unwrap_or(config.default_namespace),
        ours: access.rouse_namespace,
        output: output.clone(),
    })
}

/// Reads `deploy/NAME`, `deployment/NAME` or `NAME`, as kubectl does.
fn deployment(text: &str) -> Result<String, String> {
    let name = match text.split_once('/') {
        Some(("deploy" | "deployment" | "deployments" | "deployment.apps", name)) => name,
        Some((kind, _)) => return Err(format!("{kind} is not supported: expected deploy/NAME")),
        None => text,
    };
    TargetId::new("default", name)
        .map(|id| id.name().to_owned())
        .map_err(|_| format!("{name:?} is not the name of a Deployment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_named_as_in_kubectl() {
        for good in [
            "iris",
            "deploy/iris",
            "deployment/iris",
            "deployment.apps/iris",
        ] {
            assert_eq!(deployment(good).as_deref(), Ok("iris"), "{good}");
        }
        for bad in ["pod/iris", "deploy/", "deploy/A", "a/b/c"] {
            assert!(deployment(bad).is_err(), "{bad}");
        }
    }
}
