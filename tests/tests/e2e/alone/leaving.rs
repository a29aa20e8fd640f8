//! When somebody deletes Rouse by its manifests, with workloads that rely on it.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use integration::{
    client::{fetch, get},
    load,
};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use kubernetes::names;
use serde_json::{Value, json};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::deaths::whole_again;
use crate::{
    Space,
    space::{LONG, Model, SYSTEM, service},
};

/// What `cargo xtask e2e` installs from.
const MANIFESTS: &str = "tests/e2e/install";
/// Within this nothing of Rouse may be left.
const GONE: Duration = Duration::from_mins(2);

fn kubectl(args: &[&str]) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(MANIFESTS);
    let status = Command::new("kubectl")
        .args(args)
        .arg("-k")
        .arg(folder)
        .stdin(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Installs Rouse again, also if the test fails: others follow.
struct Installs;

impl Drop for Installs {
    fn drop(&mut self) {
        // A namespace that is still on its way out takes nothing new, and what is made in it meanwhile goes with it.
        let _gone = Command::new("kubectl")
            .args(["wait", "--for=delete", "--timeout=120s", "namespace"])
            .arg(SYSTEM)
            .stdin(Stdio::null())
            .status();
        let installed = kubectl(&["apply", "--server-side"]);
        println!("installed again: {installed}");
    }
}

/// What a user can see of a Service's ports.
async fn ports(space: &Space, name: &str) -> Value {
    let services: Api<Service> = space.api();
    serde_json::to_value(services.get(name).await.unwrap().spec.unwrap().ports).unwrap()
}

/// The ports of a Service as they are before anybody hears of Rouse.
async fn untouched(space: &Space) -> Value {
    let services: Api<Service> = space.api();
    services
        .create(&PostParams::default(), &service("before"))
        .await
        .unwrap();
    ports(space, "before").await
}

/// Both workloads have a ready replica, and their Services are as they were, with nothing of ours beside them.
async fn nothing_is_left(space: &Space, before: &Value) {
    let services: Api<Service> = space.api();
    for name in ["warm", "asleep"] {
        assert_eq!(ports(space, name).await, *before, "{name}");
        let companion = names::companion(name);
        assert!(services.get_opt(&companion).await.unwrap().is_none());
        assert!(space.replicas(name).await.1 >= 1, "{name}");
    }
    let slices: Api<EndpointSlice> = space.api();
    let ours = ListParams::default().labels(names::SLICES_SELECTOR);
    let left = slices.list(&ours).await.unwrap();
    assert!(left.items.is_empty(), "{:?}", left.items);
}

/// A namespace that is being deleted, with a workload that sleeps, is opted in and stays for now: nobody can wake it any more.
async fn going() -> Space {
    let space = Space::new("going").await;
    let mut stuck = space.deployment(&Model::new("stuck"));
    stuck.metadata.finalizers = Some(vec!["example.com/kept".to_owned()]);
    space.create_objects(&service("stuck"), &stuck).await;
    space.adopted("stuck").await;
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    let params = DeleteParams::background();
    namespaces.delete(&space.name, &params).await.unwrap();
    space
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_uninstall_command_gives_every_workload_back_first() {
    let Some(program) = env::var_os("ROUSE_E2E_COMMAND") else {
        println!("left out: the command was not built for this cluster");
        return;
    };
    let installs = Installs;
    let space = Space::new("uninstall").await;
    let before = untouched(&space).await;
    let warm = Model::new("warm").replicas(1);
    let warm = warm.annotate("autoscaling.knative.dev/min-scale", "1");
    space.deploy(&warm).await;
    let asleep = space.deploy(&Model::new("asleep")).await;
    space.settled("asleep", 0, LONG).await;
    let going = going().await;

    let began = Instant::now();
    let uninstall = move || {
        Command::new(program)
            .arg("uninstall")
            .stdin(Stdio::null())
            .status()
    };
    let done = spawn_blocking(uninstall).await.unwrap().unwrap();
    println!("all of Rouse is gone {:?} after the order", began.elapsed());
    assert!(done.success());
    let finalizers = json!({"metadata": {"finalizers": null}});
    going.patch("stuck", finalizers).await;
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    space
        .until("its namespace is gone", GONE, async || {
            let namespace = namespaces.get_opt(SYSTEM).await.ok()?;
            namespace.is_none().then_some(())
        })
        .await;
    nothing_is_left(&space, &before).await;
    // The pods without a sidecar are on their way.
    space
        .until("without Rouse it answers", LONG, async || {
            let answer = fetch(asleep, get("/work")).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;

    spawn_blocking(move || drop(installs)).await.unwrap();
    whole_again(&space).await;
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_the_manifests_gives_every_workload_back_first() {
    // Made first, so that a failure is explained before.
    let installs = Installs;
    let space = Space::new("leaving").await;
    let before = untouched(&space).await;
    let warm = Model::new("warm")
        .replicas(1)
        // Connections that clients make while Rouse is away lead past the sidecar for as long as they are kept: once it is back,
        // nobody counts them, and a workload that may sleep would.
        .annotate("autoscaling.knative.dev/min-scale", "1")
        .annotate("autoscaling.knative.dev/max-scale", "1")
        .flags(&["--service-time=10ms"]);
    let address = space.deploy_warm(&warm).await;
    let asleep = space.deploy(&Model::new("asleep")).await;
    space.settled("asleep", 0, LONG).await;
    let url = format!("http://{address}/work");
    let length = Duration::from_mins(2);
    let load = tokio::spawn(async move { load::run(&url, 4, load::closed(length)).await });
    tokio::time::sleep(Duration::from_secs(3)).await;

    let began = Instant::now();
    let deleted = spawn_blocking(|| kubectl(&["delete", "--timeout=150s"]));
    space
        .until("a replica of what slept", LONG, async || {
            let (wanted, ready) = space.replicas("asleep").await;
            (wanted >= 1 && ready >= 1).then_some(())
        })
        .await;
    println!("awake {:?} after the order", began.elapsed());
    assert!(deleted.await.unwrap(), "kubectl delete ends, and well");
    let took = began.elapsed();
    println!("all of Rouse is gone {took:?} after the order");
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    assert!(namespaces.get_opt(SYSTEM).await.unwrap().is_none());
    assert!(took < GONE, "{took:?}");
    nothing_is_left(&space, &before).await;
    let answer = timeout(LONG, fetch(asleep, get("/work"))).await;
    assert_eq!(answer.unwrap().unwrap().status, 200, "without Rouse");

    spawn_blocking(move || drop(installs)).await.unwrap();
    whole_again(&space).await;
    // What still has its sidecar is taken over as it is.
    space.adopted("warm").await;
    let (_, told) = timeout(LONG * 4, load).await.unwrap().unwrap();
    println!("{} requests of the warm one", told.len());
    space.ledger("warm", &told).assert_exact();
    space.end().await;
}
