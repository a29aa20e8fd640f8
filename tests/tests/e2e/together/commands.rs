//! The command line on a cluster, as `kubectl rouse` runs it.

use std::{env, process::Stdio};

use integration::client::{Account, fetch, get};
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{Api, ResourceExt, api::ListParams};
use tokio::{process::Command, time::timeout};

use crate::{
    Space,
    space::{LONG, Model, is_ready},
};

/// Runs it in a namespace; what it prints. None if it was not built here.
async fn rouse(space: &Space, args: &[&str]) -> Option<String> {
    let program = env::var_os("ROUSE_E2E_COMMAND")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .args(["-n", &space.name])
        .stdin(Stdio::null());
    let done = timeout(LONG * 5, command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&done.stdout);
    assert!(
        done.status.success(),
        "{args:?}: {said}{}",
        text(&done.stderr)
    );
    println!("{args:?}:\n{said}");
    Some(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_is_enabled_explained_woken_frozen_and_given_back_by_commands() {
    let space = Space::new("commands").await;
    let address = space.deploy(&Model::new("m").plain().replicas(1)).await;
    let Some(_checked) = rouse(&space, &["check", "deploy/m"]).await else {
        println!("left out: the command was not built for this cluster");
        return space.end().await;
    };
    rouse(&space, &["enable", "deploy/m"]).await;
    space.adopted("m").await;
    // Nobody comes: it sleeps.
    let asleep = async || (space.replicas("m").await == (0, 0)).then_some(());
    space.until("it sleeps", LONG * 2, asleep).await;

    let status = rouse(&space, &["status"]).await.unwrap();
    let row = status.lines().find(|line| line.contains("/m "));
    let row = row.expect("a row of the workload");
    assert!(
        !row.trim_end().ends_with('-'),
        "the autoscaler's word: {row}"
    );
    let explained = rouse(&space, &["explain", "deploy/m"]).await.unwrap();
    assert!(explained.contains("1 -> 0"), "{explained}");

    let woken = rouse(&space, &["wake", "deploy/m"]).await.unwrap();
    assert!(woken.contains("0 to 1 replicas"), "{woken}");
    rouse(&space, &["pause", "deploy/m"]).await;
    let frozen = rouse(&space, &["status"]).await.unwrap();
    assert!(frozen.contains("paused"), "{frozen}");
    rouse(&space, &["pause", "--resume", "deploy/m"]).await;
    space.until("it sleeps again", LONG * 2, asleep).await;

    // Given back although it sleeps, with somebody who waits for it.
    let account = Account::default();
    let (answer, said) = tokio::join!(
        account.send(address, None, get("/work")),
        rouse(&space, &["disable", "deploy/m"]),
    );
    assert_eq!(answer.unwrap().status, 200);
    assert!(said.unwrap().contains("is disabled"));
    // Nothing is left that leads to Rouse.
    let services: Api<Service> = space.api();
    let names = services.list(&ListParams::default()).await.unwrap().items;
    let names: Vec<_> = names.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["m"]);
    let port = services
        .get("m")
        .await
        .unwrap()
        .spec
        .unwrap()
        .ports
        .unwrap();
    assert_eq!(port[0].target_port, Some(IntOrString::Int(8080)));
    let slices: Api<EndpointSlice> = space.api();
    let ours = ListParams::default().labels(kubernetes::names::SLICES_SELECTOR);
    assert_eq!(slices.list(&ours).await.unwrap().items.len(), 0);
    // A plain pod takes over.
    let plain = async || {
        let pods = space.pods("m").await;
        let alone = pods.len() == 1 && is_ready(&pods[0]);
        let sidecar = pods[0].spec.as_ref()?.init_containers.as_ref();
        (alone && sidecar.is_none_or(Vec::is_empty)).then_some(())
    };
    space.until("a plain pod is ready", LONG * 2, plain).await;
    let answer = space
        .until("it answers", LONG, async || {
            fetch(address, get("/work")).await.ok()
        })
        .await;
    assert_eq!(answer.status, 200);
    space.end().await;
}
