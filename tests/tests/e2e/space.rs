//! A namespace for one test, with models in it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use integration::{Ledger, client::Account, ledger::Told};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Longer than anything that works takes on two busy cores.
pub(crate) const LONG: Duration = Duration::from_mins(1);
/// Where Rouse is.
pub(crate) const SYSTEM: &str = "rouse-system";
const MODEL_IMAGE: &str = "docker.io/library/tiny-model:dev";

/// A namespace of its own. When the test fails, everything that may explain it is printed.
pub(crate) struct Space {
    pub(crate) client: Client,
    pub(crate) name: String,
    journals: tempfile::TempDir,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// A Deployment of the tiny model with its Service of the same name.
#[derive(Clone)]
pub(crate) struct Model {
    name: String,
    image: String,
    flags: Vec<String>,
    annotations: Vec<(String, String)>,
    replicas: u32,
    enabled: bool,
    journaled: bool,
}

impl Model {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: MODEL_IMAGE.to_owned(),
            flags: Vec::new(),
            // Short, so that a test need not wait for minutes.
            annotations: vec![("autoscaling.knative.dev/window".to_owned(), "6s".to_owned())],
            replicas: 0,
            enabled: true,
            journaled: true,
        }
    }

    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    pub(crate) fn annotate(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    pub(crate) fn image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }

    /// Without the label, as it was before anyone heard of Rouse.
    pub(crate) fn plain(mut self) -> Self {
        self.enabled = false;
        self
    }

    fn labels(&self) -> Value {
        if self.enabled {
            json!({"app": self.name, "rouse.dev/enabled": "true"})
        } else {
            json!({"app": self.name})
        }
    }

    fn deployment(&self, namespace: &str, journals: &Path) -> Deployment {
        let mut args = vec![
            "--host=0.0.0.0".to_owned(),
            "--port=8080".to_owned(),
            "--name=$(POD)".to_owned(),
        ];
        if self.journaled {
            let journal = journal(namespace, &self.name, "$(POD)");
            args.push(format!("--journal=/journals/{journal}"));
        }
        args.extend(self.flags.iter().cloned());
        let annotations: serde_json::Map<String, Value> = self
            .annotations
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let object = json!({
            "metadata": {"name": self.name, "labels": self.labels(), "annotations": annotations},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": self.labels()},
                    "spec": {
                        "terminationGracePeriodSeconds": 30,
                        "containers": [{
                            "name": "model",
                            "image": self.image,
                            "imagePullPolicy": "Never",
                            "args": args,
                            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
                            "volumeMounts": [{"name": "journals", "mountPath": "/journals"}],
                            "securityContext": {"runAsUser": 0},
                        }],
                        "volumes": [{"name": "journals", "hostPath": {"path": journals}}],
                    },
                },
            },
        });
        serde_json::from_value(object).unwrap()
    }
}

/// The name of a pod's journal. It is part of its model's command line, and no other test's.
pub(crate) fn journal(namespace: &str, name: &str, pod: &str) -> String {
    format!("{namespace}.{name}.{pod}")
}

/// Whether a pod takes requests.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The Service in front of a model of the same name.
pub(crate) fn service(name: &str) -> Service {
    let object = json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    });
    serde_json::from_value(object).unwrap()
}

impl Space {
    /// A new namespace named after the test.
    pub(crate) async fn new(test: &str) -> Self {
        let client = Client::try_default().await.expect("run by cargo xtask e2e");
        let name = format!("{test}-{}", std::process::id());
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        Self {
            client,
            name,
            journals: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates a model and waits until Rouse has taken it over, if it may.
    pub(crate) async fn deploy(&self, model: &Model) -> SocketAddr {
        self.create(model).await;
        if model.enabled {
            self.adopted(&model.name).await;
        }
        self.address(&model.name).await
    }

    /// As [`Space::deploy`], and waits until all its replicas are ready and requests go through their sidecars: what is sent before
    /// that may pass them, and nobody counts it.
    pub(crate) async fn deploy_warm(&self, model: &Model) -> SocketAddr {
        let address = self.deploy(model).await;
        let replicas = i32::try_from(model.replicas).unwrap();
        self.settled(&model.name, replicas, LONG).await;
        self.through_sidecars(address).await;
        address
    }

    /// Creates a model's Deployment and Service.
    pub(crate) async fn create(&self, model: &Model) {
        self.create_objects(&service(&model.name), &self.deployment(model))
            .await;
    }

    /// The Deployment of a model, its journal in this namespace's folder.
    pub(crate) fn deployment(&self, model: &Model) -> Deployment {
        model.deployment(&self.name, self.journals.path())
    }

    /// Creates a Service and a Deployment.
    pub(crate) async fn create_objects(&self, service: &Service, deployment: &Deployment) {
        let params = PostParams::default();
        self.api().create(&params, service).await.unwrap();
        self.api().create(&params, deployment).await.unwrap();
    }

    /// Waits until the Service leads to sidecars, and to activators where there is none.
    pub(crate) async fn adopted(&self, name: &str) {
        let (services, slices): (Api<Service>, Api<EndpointSlice>) = (self.api(), self.api());
        let ours = ListParams::default().labels(&format!(
            "{}={name},{}",
            kubernetes::names::SERVICE_NAME,
            kubernetes::names::SLICES_SELECTOR
        ));
        self.until(&format!("{name} is adopted"), LONG * 3, async || {
            let service = services.get(name).await.ok()?;
            let port = service.spec?.ports?.into_iter().next()?.target_port?;
            let flipped = port
                == k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(
                    "rouse-0".to_owned(),
                );
            let slices = slices.list(&ours).await.ok()?;
            let listed = slices.items.iter().any(|slice| !slice.endpoints.is_empty());
            (flipped && listed).then_some(())
        })
        .await;
        self.reachable(name).await;
        // Only where a pod is ready may a connection lead past its sidecar. What sleeps or cannot start is with the activators.
        if self.replicas(name).await.1 > 0 {
            self.through_sidecars(self.address(name).await).await;
        }
    }

    /// Waits until kube-proxy has learned where a Service leads. A connection without a request wakes nobody.
    pub(crate) async fn reachable(&self, name: &str) {
        let address = self.address(name).await;
        self.until(&format!("{name} takes connections"), LONG * 3, async || {
            tokio::net::TcpStream::connect(address).await.ok().map(drop)
        })
        .await;
    }

    /// Waits until requests to a Service go through sidecars: kube-proxy follows a moment after the Service. A connection that is
    /// kept from before leads past them, and nobody counts what comes on it.
    pub(crate) async fn through_sidecars(&self, address: SocketAddr) {
        self.until("requests go through sidecars", LONG, async || {
            let answer = integration::client::fetch(address, integration::client::get("/stats"));
            let answer = answer.await.ok()?;
            // An activator may answer while kube-proxy still sends others past the sidecars: only a sidecar says how long it queued.
            let timing = answer.headers.get("rouse-timing")?;
            timing.as_bytes().starts_with(b"queue").then_some(())
        })
        .await;
    }

    /// Waits until new connections to a Service reach every one of a model's `count` pods: kube-proxy learns of the last of them
    /// a moment after they are ready, and connections that clients keep from before that moment all lead to the others.
    pub(crate) async fn through_every_pod(
        &self,
        account: &Account,
        address: SocketAddr,
        name: &str,
        count: usize,
    ) {
        self.until("every pod gets requests", LONG, async || {
            let get = integration::client::get("/work");
            let _answer = account.send(address, None, get).await;
            let journals = self.journals(name);
            let reached = journals.values().filter(|journal| !journal.is_empty());
            (reached.count() == count).then_some(())
        })
        .await;
    }

    /// Polls until there is something.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut find: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let end = tokio::time::Instant::now() + limit;
        loop {
            if let Some(found) = find().await {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "not within {limit:?}: {what}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The cluster address of a Service.
    pub(crate) async fn address(&self, name: &str) -> SocketAddr {
        let services: Api<Service> = self.api();
        let spec = services.get(name).await.unwrap().spec.unwrap();
        SocketAddr::new(spec.cluster_ip.unwrap().parse().unwrap(), 80)
    }

    /// Wanted and ready replicas.
    pub(crate) async fn replicas(&self, name: &str) -> (i32, i32) {
        let deployments: Api<Deployment> = self.api();
        let deployment = deployments.get(name).await.unwrap();
        let ready = deployment
            .status
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0);
        (deployment.spec.unwrap().replicas.unwrap(), ready)
    }

    /// Waits until `count` replicas are wanted and ready, and no other pod exists.
    pub(crate) async fn settled(&self, name: &str, count: i32, limit: Duration) {
        let pods: Api<Pod> = self.api();
        let of = ListParams::default().labels(&format!("app={name}"));
        self.until(&format!("{name} has {count} replicas"), limit, async || {
            let here = pods.list(&of).await.ok()?.items.len();
            (self.replicas(name).await == (count, count) && here == usize::try_from(count).unwrap())
                .then_some(())
        })
        .await;
    }

    /// Pods of a model that are not on their way out.
    pub(crate) async fn pods(&self, name: &str) -> Vec<Pod> {
        let pods: Api<Pod> = self.api();
        let of = ListParams::default().labels(&format!("app={name}"));
        let all = pods.list(&of).await.unwrap().items;
        all.into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect()
    }

    /// Changes a Deployment by a merge patch.
    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        let deployments: Api<Deployment> = self.api();
        deployments
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Compares the clients' account with a model's journals.
    pub(crate) fn ledger(&self, name: &str, told: &[Told]) -> Ledger {
        let journals = self.journals(name).into_values().collect::<String>();
        Ledger::compare(told, &journals)
    }

    /// What each pod of a model has executed, by the pod's name.
    pub(crate) fn journals(&self, name: &str) -> BTreeMap<String, String> {
        let start = journal(&self.name, name, "");
        let files = std::fs::read_dir(self.journals.path()).unwrap();
        let journals = files.filter_map(|file| {
            let file = file.unwrap();
            let pod = file.file_name().to_str()?.strip_prefix(&start)?.to_owned();
            Some((pod, std::fs::read_to_string(file.path()).unwrap()))
        });
        journals.collect()
    }

    /// Lets the namespace go; what is left of it goes by itself.
    pub(crate) async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .delete(&self.name, &DeleteParams::background())
            .await
            .unwrap();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.dump());
            // Or the next test would find what this one has left.
            let _gone = Command::new("kubectl")
                .args(["delete", "namespace", "--wait=false", &self.name])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status();
        }
    }
}

impl Space {
    /// Everything that may explain a failure.
    fn dump(&self) -> String {
        let mut text = String::new();
        let namespace = self.name.as_str();
        for args in [
            &[
                "-n",
                namespace,
                "get",
                "deployments,pods,services,endpointslices",
                "-o",
                "wide",
            ][..],
            &[
                "-n",
                namespace,
                "get",
                "events.events.k8s.io",
                "--sort-by=.metadata.creationTimestamp",
            ],
            &[
                "-n",
                namespace,
                "get",
                "endpointslices,services",
                "-o",
                "yaml",
            ],
            &["-n", SYSTEM, "get", "pods,leases,configmaps", "-o", "wide"],
            &[
                "-n",
                SYSTEM,
                "logs",
                "--prefix",
                "--tail=60",
                "-l",
                "app.kubernetes.io/name=rouse-activator",
            ],
            &[
                "-n",
                SYSTEM,
                "logs",
                "--prefix",
                "--tail=60",
                "-l",
                "app.kubernetes.io/name=rouse-autoscaler",
            ],
        ] {
            let _written = writeln!(text, "---- kubectl {}", args.join(" "));
            let told = Command::new("kubectl")
                .args(args)
                .stdin(Stdio::null())
                .output();
            match told {
                Ok(told) => {
                    text.push_str(&String::from_utf8_lossy(&told.stdout));
                    text.push_str(&String::from_utf8_lossy(&told.stderr));
                }
                Err(error) => {
                    let _written = writeln!(text, "{error}");
                }
            }
        }
        text
    }
}

/// Orders to the cluster of `tests/cluster`, such as `stop apiserver`. Elsewhere there is none to give them to.
pub(crate) fn order(args: &[&str]) -> bool {
    let Some(script) = std::env::var_os("ROUSE_E2E_CLUSTER") else {
        println!("left out: this is not a cluster of tests/cluster");
        return false;
    };
    let status = Command::new(script)
        .args(args)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{args:?}: {status}");
    true
}
