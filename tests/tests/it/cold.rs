//! Cold starts.

use http::Method;
use integration::{
    Ledger,
    client::{Account, get},
    load,
    scene::LONG,
    wait,
};
use loadtests::{
    Config,
    config::{Limit, Load},
};
use tokio::task::JoinSet;

/// Clients that wait for one cold start.
const CLIENTS: usize = 50;

/// All clients ask at once while there is no replica.
async fn crowd_at_zero(container_concurrency: &str) {
    let scene = crate::scene();
    let model = scene
        .model("m", &["--start-delay", "200ms", "--service-time", "5ms"])
        .annotate("rouse.dev/container-concurrency", container_concurrency);
    let running = scene.run(&[model], &[]);
    let (account, address) = (Account::default(), running.address("m"));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let account = account.clone();
        clients.spawn(async move { account.send(address, None, get("/work")).await });
    }
    wait::until("everybody is held", LONG, || {
        running.workload("m").activator.held() == CLIENTS
    })
    .await;
    let mut served_by = std::collections::BTreeSet::new();
    while let Some(answer) = clients.join_next().await {
        let answer = answer.unwrap().unwrap();
        served_by.insert(answer.header("x-served-by").to_owned());
    }
    assert_eq!(running.local.wakes().len(), 1, "one start was enough");
    assert_eq!(running.snapshot("m").wanted, 1);
    assert_eq!(served_by.len(), 1, "by one replica: {served_by:?}");
    running.stop().await;
    let told = account.told();
    assert_eq!(told.len(), CLIENTS);
    Ledger::compare(&told, &scene.journal("m")).assert_exact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_waiting_at_zero_cause_one_start_and_all_are_answered() {
    crowd_at_zero("0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_waiting_at_zero_are_answered_one_after_the_other_if_the_model_takes_one() {
    crowd_at_zero("1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_zero_is_served_over_http2_too() {
    let scene = crate::scene();
    let models = ["get", "post"].map(|name| scene.model(name, &["--start-delay", "200ms"]));
    let running = scene.run(&models, &[]);
    // Bodies over 64 KiB cannot be sent again, nor can HTTP/2 wait for a 100 Continue: they need a reserved slot.
    for (name, body) in [("get", 0), ("post", 100_000)] {
        let mut config = Config::new(&running.url(name, "/work")).unwrap();
        config.http2 = true;
        config.connections = CLIENTS;
        config.load = Load::Closed(Limit::Requests(2 * CLIENTS as u64));
        if body > 0 {
            config.method = Method::POST;
            config.body = vec![7; body].into();
        }
        let (_, told) = load::run_config(config).await;
        assert_eq!(told.len(), 2 * CLIENTS);
        Ledger::compare(&told, &scene.journal(name)).assert_exact();
    }
    assert_eq!(running.local.wakes().len(), 2, "one start each");
    running.stop().await;
}
