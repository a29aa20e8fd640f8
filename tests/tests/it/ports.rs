//! Workloads with more than one port.

use futures_util::future::join_all;
use integration::{
    Deployment, Ledger,
    client::{Account, get},
    scene::LONG,
};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_port_of_a_service_reaches_its_own_port_of_the_model() {
    let scene = crate::scene();
    let model = scene.programs().model();
    let journal = |name| scene.journal_file(name).display().to_string();
    // Two servers in one container, told apart by their journals.
    let script = format!(
        "{model} --port $PORT_9090 --journal {} & exec {model} --port $PORT_8080 --journal {}",
        journal("second"),
        journal("first")
    );
    let deployment = Deployment::new("m", &["sh", "-c", &script]).ports(&[8080, 9090]);
    let running = scene.run(&[deployment.ready_path("/ready")], &[]);
    let addresses = running.workload("m").addresses.clone();
    assert_eq!(addresses.len(), 2);
    let accounts = [Account::default(), Account::default()];
    // The cold start comes through the second port.
    for _ in 0..5 {
        for at in [1, 0] {
            let answer = accounts[at].send(addresses[at], None, get("/work"));
            let answer = timeout(LONG, answer).await.unwrap().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    assert_eq!(running.snapshot("m").replicas.len(), 1);
    running.stop().await;
    for (name, account) in ["first", "second"].iter().zip(accounts) {
        Ledger::compare(&account.told(), &scene.journal(name)).assert_exact();
    }
}

/// A model that is slow to listen leaves its port looking free for long. Local modes side by side begin at the same place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_of_local_modes_side_by_side_never_answer_for_each_other() {
    const WORKLOADS: usize = 4;
    let scenes = [crate::scene(), crate::scene()];
    let names: Vec<String> = (0..WORKLOADS).map(|n| format!("m{n}")).collect();
    let runs = scenes.each_ref().map(|scene| {
        let models: Vec<_> = names
            .iter()
            .map(|name| scene.model(name, &["--start-delay", "300ms"]))
            .collect();
        scene.run(&models, &[])
    });
    let asks = runs.iter().flat_map(|running| {
        names.iter().map(async |name| {
            let account = Account::default();
            let answer = account.send(running.address(name), None, get("/work"));
            let answer = timeout(LONG, answer).await.unwrap().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            account
        })
    });
    let accounts = join_all(asks).await;
    join_all(runs.map(integration::Running::stop)).await;
    let places = scenes
        .iter()
        .flat_map(|scene| names.iter().map(move |name| scene.journal(name)));
    for (account, journal) in accounts.iter().zip(places) {
        Ledger::compare(&account.told(), &journal).assert_exact();
    }
}
