//! When the autoscaler that leads is killed or frozen.

use std::{process::Command, time::Duration};

use integration::{
    client::{Account, get},
    load,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::time::{Instant, sleep, timeout};

use super::deaths::whole_again;
use crate::{
    Space, audit,
    processes::{self, Process},
    space::{LONG, Model, SYSTEM},
};

/// The stable window of the models here.
const WINDOW: Duration = Duration::from_secs(6);

/// Who leads: the name of its Pod, and which life of it.
async fn leader(space: &Space) -> String {
    let leases: Api<Lease> = Api::namespaced(space.client.clone(), SYSTEM);
    space
        .until("a leader", LONG, async || {
            let lease = leases.get(kubernetes::names::LEASE).await.ok()?;
            lease
                .spec?
                .holder_identity
                .filter(|holder| !holder.is_empty())
        })
        .await
}

fn pod(holder: &str) -> &str {
    kubernetes::leader::pod(holder).unwrap()
}

/// The process of an autoscaler by its Pod's name.
fn process(pod: &str) -> Option<String> {
    let named = format!("POD_NAME={pod}");
    let ours = |one: &Process| {
        let program = one.words.first();
        program.is_some_and(|word| word.starts_with(b"rouse-autoscaler"))
            && one.has_variable(&named)
    };
    Some(processes::all().find(ours)?.pid.to_string())
}

fn signal(pid: &str, name: &str) {
    let status = Command::new("kill").args([name, pid]).status().unwrap();
    assert!(status.success(), "kill {name} {pid}");
}

/// Three replicas under load. Then the leader is disturbed, and there is load for one only.
async fn without_a_leader(space: &Space, name: &str) {
    let model = Model::new("m")
        .annotate("autoscaling.knative.dev/target", "4")
        .annotate("autoscaling.knative.dev/max-scale", "3")
        .flags(&["--service-time=50ms"]);
    let address = space.deploy(&model).await;
    let asleep = space.deploy(&Model::new("z")).await;
    let url = format!("http://{address}/work");
    let few = {
        let url = url.clone();
        tokio::spawn(async move { load::run(&url, 1, load::closed(Duration::from_secs(70))).await })
    };
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let many = tokio::spawn(async move {
        let mut told = Vec::new();
        let mut stopped: tokio::sync::oneshot::Receiver<()> = stopped;
        while stopped.try_recv().is_err() {
            told.extend(
                load::run(&url, 11, load::closed(Duration::from_secs(2)))
                    .await
                    .1,
            );
        }
        told
    });
    space
        .until("three replicas", LONG, async || {
            (space.replicas("m").await == (3, 3)).then_some(())
        })
        .await;
    let old = leader(space).await;
    let pid = process(pod(&old)).expect("its process is on this machine");
    signal(&pid, name);
    let disturbed = Instant::now();
    stop.send(()).unwrap();
    // Meanwhile a workload is woken, and the other one keeps what it has.
    let account = Account::default();
    let answer = timeout(LONG, account.send(asleep, None, get("/work"))).await;
    assert_eq!(answer.unwrap().unwrap().status, 200);
    let mut told = timeout(LONG, many).await.unwrap().unwrap();
    let new = space
        .until("another leader", LONG, async || {
            assert_eq!(space.replicas("m").await.0, 3, "nobody may scale it down");
            let now = leader(space).await;
            (now != old).then_some(now)
        })
        .await;
    let took_over = Instant::now();
    println!("another leads {:?} after {name}", took_over - disturbed);
    while took_over.elapsed() < WINDOW.saturating_sub(Duration::from_millis(500)) {
        assert_eq!(
            space.replicas("m").await.0,
            3,
            "the new leader knows too little yet"
        );
        sleep(Duration::from_millis(100)).await;
    }
    if name == "-STOP" {
        signal(&pid, "-CONT");
    }
    space
        .until("it scales down", LONG, async || {
            (space.replicas("m").await.0 < 3).then_some(())
        })
        .await;
    println!("scaled down {:?} after the takeover", took_over.elapsed());
    told.extend(timeout(LONG * 2, few).await.unwrap().unwrap().1);
    space.ledger("m", &told).assert_exact();
    space.ledger("z", &account.told()).assert_exact();
    // If the same Pod leads again, its first life had ended before.
    if pod(&old) != pod(&new) {
        one_writer_at_a_time(space, pod(&old), pod(&new));
    }
    whole_again(space).await;
}

/// What the old leader wrote lies before everything that the new one wrote.
fn one_writer_at_a_time(space: &Space, old: &str, new: &str) {
    let Some(writes) = audit::writes("rouse-autoscaler") else {
        println!("left out: there is no audit log here");
        return;
    };
    let of = |pod: &str| {
        let writes = writes.iter().filter(move |write| {
            write.pod == pod && write.namespace == space.name && write.resource != "events"
        });
        writes.map(|write| write.at.clone()).collect::<Vec<_>>()
    };
    let (before, after) = (of(old), of(new));
    assert!(!before.is_empty() && !after.is_empty(), "both have written");
    let (last, first) = (before.last().unwrap(), after.first().unwrap());
    println!("the last write of the old leader: {last}, the first of the new one: {first}");
    assert!(last < first, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_frozen_writes_nothing_when_it_comes_back() {
    let space = Space::new("frozen").await;
    without_a_leader(&space, "-STOP").await;
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_followed_by_one_who_waits_for_a_window() {
    let space = Space::new("beheaded").await;
    without_a_leader(&space, "-KILL").await;
    space.end().await;
}
