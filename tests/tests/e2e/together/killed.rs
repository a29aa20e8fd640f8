//! A model that is killed by the machine it runs on, with requests inside. Those are lost, and nobody may send them again; those that
//! come before it has been restarted wait at its sidecar.

use std::time::Duration;

use integration::{Fate, client::Account, load};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Space,
    processes::{self, Process},
    space::{LONG, Model, journal},
};

/// Clients that each have one request in flight all the time: so many at most are inside one pod.
const CLIENTS: usize = 12;

/// The process with this argument.
fn process(argument: &str) -> Option<Pid> {
    let is_it = |one: &Process| one.words.iter().any(|word| word == argument.as_bytes());
    let process = processes::all().find(is_it)?;
    Pid::from_raw(process.pid.try_into().ok()?)
}

fn restarts(pod: &Pod) -> Option<i32> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let model = containers.iter().find(|one| one.name == "model")?;
    Some(model.restart_count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_requests_inside_a_killed_model_fail_and_it_is_restarted() {
    let space = Space::new("sigkill").await;
    let model = Model::new("m")
        .replicas(2)
        .annotate("autoscaling.knative.dev/min-scale", "2")
        .flags(&["--service-time=100ms"]);
    let address = space.deploy_warm(&model).await;
    let victim = space.pods("m").await[0].metadata.name.clone().unwrap();
    let argument = format!("--journal=/journals/{}", journal(&space.name, "m", &victim));
    let Some(process) = process(&argument) else {
        println!("left out: the node's processes are not on this machine");
        return space.end().await;
    };
    let account = Account::default();
    space.through_every_pod(&account, address, "m", 2).await;
    let url = format!("http://{address}/work");
    let load = tokio::spawn(async move {
        load::run(&url, CLIENTS, load::closed(Duration::from_secs(15))).await
    });
    sleep(Duration::from_secs(4)).await;
    kill_process(process, Signal::KILL).unwrap();
    let began = Instant::now();
    space
        .until("a restart", LONG, async || {
            let pods = space.pods("m").await;
            let pod = pods
                .iter()
                .find(|pod| pod.metadata.name.as_ref() == Some(&victim))?;
            (restarts(pod)? == 1).then_some(())
        })
        .await;
    println!("restarted after {:?}", began.elapsed());
    let (report, mut told) = timeout(LONG, load).await.unwrap().unwrap();
    told.extend(account.told());
    let ledger = space.ledger("m", &told).checked();
    let inside = &space.journals("m")[&victim];
    println!(
        "{} requests, {} failed",
        report.summary.requests,
        ledger.bad.len()
    );
    for (told, _) in &ledger.bad {
        println!("  {told:?}");
    }
    assert!(!ledger.bad.is_empty(), "it was killed with requests inside");
    // A process that is killed closes its sockets one after the other: on a busy machine a client's next request reaches it, too.
    assert!(
        ledger.bad.len() <= CLIENTS * 2,
        "more than can have been inside"
    );
    for (told, executed) in &ledger.bad {
        assert_eq!(told.fate, Fate::Answered(502), "{told:?}");
        // One that the model had not read yet when it died was inside too, and is not in its journal.
        let id = format!("{} ", told.id);
        let is_inside = inside.lines().any(|line| line.starts_with(&id));
        assert_eq!(
            executed.is_some(),
            is_inside,
            "{told:?} was in the other pod"
        );
    }
    space.settled("m", 2, LONG).await;
    space.end().await;
}
