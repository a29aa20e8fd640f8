//! Many workloads that sleep: what each of them costs Rouse's programs.
//!
//! The figures are printed and no bar here: what an allocator keeps depends on what went before. They are told in
//! `tests/cluster/README.md`.

use std::{collections::BTreeMap, env, time::Duration};

use integration::client::{Account, get};
use tokio::time::{sleep, timeout};

use crate::{
    Space, processes,
    space::{LONG, Model},
};

/// How many sleep. `ROUSE_E2E_IDLE` says otherwise.
const MANY: usize = 50;
/// The cluster's port claims allow an activator so many workloads with one port each, and other tests leave some behind.
const MOST: usize = 1000;

/// Resident memory of each process of a program of ours, in KiB.
fn resident(program: &str) -> BTreeMap<u32, i64> {
    let ours = processes::all().filter(|one| {
        let name = one.words.first();
        name.is_some_and(|name| name.ends_with(program.as_bytes()))
    });
    ours.filter_map(|one| Some((one.pid, one.resident()?)))
        .collect()
}

/// Prints the memory of the same processes before and after.
fn tell(program: &str, before: &BTreeMap<u32, i64>, more: usize) {
    let after = resident(program);
    for (pid, then) in before {
        let Some(now) = after.get(pid) else { continue };
        let each = (now - then) * 1024 / i64::try_from(more).unwrap();
        println!(
            "{program}: {then} KiB with one workload, {now} KiB with {more} more: {each} bytes each"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_workloads_sleep_and_each_of_them_can_be_woken() {
    let many = env::var("ROUSE_E2E_IDLE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(MANY)
        .clamp(1, MOST);
    let space = Space::new("idle").await;
    // The first one takes what is needed for any.
    let first = space.deploy(&Model::new("m")).await;
    let account = Account::default();
    let answer = timeout(LONG, account.send(first, None, get("/work"))).await;
    assert_eq!(answer.unwrap().unwrap().status, 200);
    space
        .until("it sleeps again", LONG, async || {
            (space.replicas("m").await == (0, 0)).then_some(())
        })
        .await;
    sleep(Duration::from_secs(5)).await;
    let programs = ["rouse-autoscaler", "rouse-activator"];
    let before = programs.map(resident);
    let names: Vec<_> = (0..many).map(|n| format!("m{n}")).collect();
    for name in &names {
        space.create(&Model::new(name)).await;
    }
    for name in &names {
        space.adopted(name).await;
    }
    sleep(Duration::from_secs(10)).await;
    for (program, before) in programs.iter().zip(&before) {
        tell(program, before, many);
    }
    for name in [&names[0], &names[many / 2], &names[many - 1]] {
        let address = space.address(name).await;
        let account = Account::default();
        let answer = timeout(LONG, account.send(address, None, get("/work"))).await;
        assert_eq!(answer.unwrap().unwrap().status, 200, "{name}");
        space.ledger(name, &account.told()).assert_exact();
    }
    space.end().await;
}
