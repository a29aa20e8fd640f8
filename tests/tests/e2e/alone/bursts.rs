//! Many workloads from zero at once.

use std::time::Duration;

use integration::client::{Account, get};
use tokio::{task::JoinSet, time::Instant};

use crate::{Space, space::Model};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_workloads_woken_in_the_same_instant_all_answer() {
    let space = Space::new("many").await;
    let mut clients = JoinSet::new();
    let names: Vec<_> = (0..10).map(|n| format!("m{n}")).collect();
    let mut addresses = Vec::new();
    for name in &names {
        space.create(&Model::new(name)).await;
    }
    for name in &names {
        space.adopted(name).await;
        addresses.push(space.address(name).await);
    }
    let began = Instant::now();
    for address in addresses {
        let account = Account::default();
        clients.spawn(async move {
            let answer = account.send(address, None, get("/work")).await.unwrap();
            (answer.status, began.elapsed())
        });
    }
    let mut last = Duration::ZERO;
    for (status, took) in clients.join_all().await {
        assert_eq!(status, 200);
        last = last.max(took);
    }
    println!("ten workloads from zero: last answer after {last:?}");
    space.end().await;
}
