//! The admission webhook, served by every activator: what must be up to wake a workload is one program.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ::kubernetes::{adopted::Adopted, names};
use autoscaler_core::annotations::Annotations;
use kube::Client;
use shared::{TargetId, http::serve::bind};
use tokio::{sync::watch, time::sleep};
use webhook::{
    Lookup, Settings,
    certificate::{Current, Keeper, Place},
};

use super::Caches;

/// How often it is looked whether there is a certificate yet.
const LOOK: Duration = Duration::from_millis(20);

/// How the webhook is run.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What reviews are answered by; the cluster's defaults in it follow `rouse-config`.
    pub settings: Settings,
}

/// Serves reviews and keeps the certificate, until `stop`.
///
/// # Errors
/// When its port cannot be had.
pub async fn serve(
    admission: Admission,
    current: Arc<Current>,
    client: Client,
    caches: Arc<Caches>,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let listener = bind(admission.listen)?;
    let place = Place {
        namespace: admission.settings.namespace.clone(),
        ..Place::default()
    };
    let keeper = Keeper::new(client, place, Arc::clone(&current));
    let (settings, receiver) = watch::channel(Arc::new(admission.settings));
    let follow = follow_config(&caches, settings);
    let serve = webhook::serve::serve(listener, current, receiver, Arc::clone(&caches) as _, stop);
    tokio::select! {
        done = serve => done,
        () = keeper.run() => Ok(()),
        () = follow => Ok(()),
    }
}

/// Waits until there is a certificate: before that no review can be answered.
pub async fn certified(current: &Current) {
    while !current.is_set() {
        sleep(LOOK).await;
    }
}

/// Annotations are checked against the defaults that are in force.
async fn follow_config(caches: &Caches, settings: watch::Sender<Arc<Settings>>) {
    let mut changes = caches.config.changes();
    loop {
        let namespace = settings.borrow().namespace.clone();
        let data = caches.config.get(&namespace, names::CONFIG);
        let data = data.map(|data| (*data).clone()).unwrap_or_default();
        // One that cannot be used is told of where it is read for scaling.
        if let Ok(config) = autoscaler_core::ClusterConfig::parse(&data) {
            settings.send_modify(|current| {
                let mut next = (**current).clone();
                next.config = config;
                *current = Arc::new(next);
            });
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Lookup for Caches {
    fn is_opted_in(&self, target: &TargetId) -> bool {
        self.workloads
            .get(target.namespace(), target.name())
            .is_some()
    }

    fn adopted(&self, namespace: &str, service: &str) -> Option<webhook::Adopted> {
        let record: Arc<Adopted> = self.companions.get(namespace, &names::companion(service))?;
        // While it is given back, whoever writes the old port is right.
        (!record.leaving).then(|| webhook::Adopted {
            ports: record
                .ports
                .iter()
                .map(|port| webhook::AdoptedPort {
                    port: port.port,
                    was: port.was.clone(),
                    index: port.index,
                })
                .collect(),
        })
    }

    fn annotations(&self, target: &TargetId) -> Option<Annotations> {
        let view = self.workloads.get(target.namespace(), target.name())?;
        Some(view.settings.clone())
    }
}
