//! What still stands about for workloads: Services that lead to sidecars, companions, slices. As long as there is any of it, an
//! autoscaler has to stay: nobody else takes it away, and a slice that is forgotten would lead some of the traffic to addresses
//! that are nobody's, or another's.

use std::{collections::HashSet, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, ObjectMeta},
};
use kubernetes::{
    Adopted, Labels,
    labels::{self, selects},
    names,
};
use shared::TargetId;
use tokio::time::{Instant, sleep};

use super::{Cluster, Failed};

/// How long it may take to be given back.
const LIMIT: Duration = Duration::from_mins(1);

/// Whose leavings are meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose<'a> {
    /// Those of one workload of the namespace, whose pods have these labels.
    Workload(&'a str, &'a Labels),
    /// All in the cluster.
    Anybody,
}

/// Namespaces that are being deleted. Kubernetes ends their pods first, each in its grace period, and their Services after that; none of
/// it is for anybody any more.
async fn going(cluster: &Cluster) -> Result<HashSet<String>, Failed> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let all = namespaces.list_metadata(&ListParams::default()).await?;
    let deleted = all.items.into_iter().map(|one| one.metadata);
    let deleted = deleted.filter(|meta| meta.deletion_timestamp.is_some());
    Ok(deleted.filter_map(|meta| meta.name).collect())
}

/// Waits until nothing is left.
pub(super) async fn wait(cluster: &Cluster, whose: Whose<'_>) -> Result<(), Failed> {
    let client = || cluster.client.clone();
    let (services, slices): (Api<Service>, Api<EndpointSlice>) = match whose {
        Whose::Workload(..) => (
            Api::namespaced(client(), &cluster.namespace),
            Api::namespaced(client(), &cluster.namespace),
        ),
        Whose::Anybody => (Api::all(client()), Api::all(client())),
    };
    let all = ListParams::default();
    let managed = ListParams::default().labels(names::SLICES_SELECTOR);
    let end = Instant::now() + LIMIT;
    loop {
        let (mut services, mut slices) = (
            services.list(&all).await?.items,
            slices.list(&managed).await?.items,
        );
        if let Whose::Anybody = whose {
            let going = going(cluster).await?;
            let stays =
                |meta: &ObjectMeta| meta.namespace.as_ref().is_none_or(|of| !going.contains(of));
            services.retain(|one| stays(&one.metadata));
            slices.retain(|one| stays(&one.metadata));
        }
        let left = left(&services, &slices, whose);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Failed(format!(
                "not given back within {LIMIT:?}: {}; is an autoscaler running, and are the pods ready? They keep their sidecar \
                 until then; run this again",
                left.join(", ")
            )));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What is left, each by its kind and name.
fn left(services: &[Service], slices: &[EndpointSlice], whose: Whose<'_>) -> Vec<String> {
    let is_meant = |meta: &ObjectMeta, workload: Option<&str>| match whose {
        Whose::Workload(name, _) => workload == Some(name),
        // What is there for nobody, as who may write in a namespace can make it, no autoscaler ever takes away.
        Whose::Anybody => {
            let namespace = meta.namespace.as_deref();
            let of = namespace.zip(workload);
            of.is_some_and(|(namespace, name)| TargetId::new(namespace, name).is_ok())
        }
    };
    let name = |meta: &ObjectMeta, kind: &str| {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        format!(
            "{kind} {namespace}/{}",
            meta.name.as_deref().unwrap_or_default()
        )
    };
    let led = services.iter().filter_map(|service| {
        let label = |label: &str| service.labels().get(label).map(String::as_str);
        let companion = label(names::COMPANION).is_some() || label(names::RELAY).is_some();
        let left = if companion {
            // Only one that we made: it says for whom.
            let adopted = Adopted::of(service);
            adopted.is_some_and(|of| {
                let name = match label(names::COMPANION) {
                    Some(of) => Some(names::companion(of)),
                    None => names::relay(&of.workload),
                };
                name == service.metadata.name && is_meant(&service.metadata, Some(&of.workload))
            })
        } else {
            let spec = service.spec.as_ref();
            let selector = labels::kept(spec.and_then(|spec| spec.selector.as_ref()));
            leads_to_sidecars(service)
                && match whose {
                    Whose::Workload(_, labels) => selects(&selector, labels),
                    Whose::Anybody => true,
                }
        };
        left.then(|| name(&service.metadata, "Service"))
    });
    let offered = slices.iter().filter(|slice| {
        let of = slice.annotations().get(names::WORKLOAD);
        slice.labels().contains_key(names::SERVICE_NAME)
            && is_meant(&slice.metadata, of.map(String::as_str))
    });
    led.chain(offered.map(|slice| name(&slice.metadata, "EndpointSlice")))
        .collect()
}

fn leads_to_sidecars(service: &Service) -> bool {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports.into_iter().flatten().any(|port| {
        matches!(&port.target_port, Some(IntOrString::String(name)) if names::request_port_index(name).is_some())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, target: &Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": target}]},
        }))
        .unwrap()
    }

    fn companion(of: &str) -> Service {
        let adopted = Adopted {
            workload: of.to_owned(),
            ..Adopted::default()
        };
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "n", "name": format!("{of}-rouse"),
                "labels": {names::COMPANION: of},
                "annotations": {names::ADOPTED: adopted.to_text()},
            },
        }))
        .unwrap()
    }

    fn slice(of: &str) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "n", "name": format!("{of}-activators-ipv4"),
                "labels": {names::SERVICE_NAME: of}, "annotations": {names::WORKLOAD: of},
            },
            "addressType": "IPv4", "endpoints": [],
        }))
        .unwrap()
    }

    #[test]
    fn everything_that_leads_to_us_is_left_and_nothing_else() {
        let services = [
            service("a", &json!("rouse-0")),
            service("b", &json!(8080)),
            service("c", &json!("http")),
            companion("a"),
            companion("b"),
        ];
        let slices = [slice("a"), slice("b")];
        let all = left(&services, &slices, Whose::Anybody);
        let names = [
            "Service n/a",
            "Service n/a-rouse",
            "Service n/b-rouse",
            "EndpointSlice n/a-activators-ipv4",
            "EndpointSlice n/b-activators-ipv4",
        ];
        assert_eq!(all, names);
        let labels = |app: &str| Labels::from_iter([("app".to_owned(), app.to_owned())]);
        let of = |name: &str| left(&services, &slices, Whose::Workload(name, &labels(name)));
        assert_eq!(of("a").len(), 3, "{:?}", of("a"));
        assert_eq!(
            of("b"),
            ["Service n/b-rouse", "EndpointSlice n/b-activators-ipv4"]
        );
        assert_eq!(of("c"), [""; 0]);
    }

    #[test]
    fn what_a_stranger_has_forged_for_no_workload_keeps_rouse_from_leaving_no_longer() {
        let nobodys = [slice("tenant/m"), slice("")];
        assert_eq!(
            left(&[companion("tenant/m")], &nobodys, Whose::Anybody),
            [""; 0]
        );
        let (mut unnamed, mut of_none) = (slice("a"), slice("a"));
        unnamed.metadata.annotations = None;
        of_none.metadata.labels = None;
        let mut elsewhere = companion("a");
        elsewhere.metadata.name = Some("b".to_owned());
        let relay = |name: &str| {
            let mut relay = companion("a");
            relay.metadata.labels = Some([(names::RELAY.to_owned(), "true".to_owned())].into());
            relay.metadata.name = Some(name.to_owned());
            relay
        };
        assert_eq!(
            left(
                &[elsewhere, relay("b")],
                &[unnamed, of_none],
                Whose::Anybody
            ),
            [""; 0]
        );
        let ours = left(&[relay("a-rouse-relay")], &[], Whose::Anybody);
        assert_eq!(ours, ["Service n/a-rouse-relay"]);
    }
}
