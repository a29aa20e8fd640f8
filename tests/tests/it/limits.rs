//! Limits of what is held, and clients that do not wait for it.

use std::time::Duration;

use integration::{
    Ledger,
    client::{Account, REQUEST_ID, get},
    load,
    scene::LONG,
    wait,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_hold_limit_requests_are_refused_at_once_and_nobody_else_is_affected() {
    const HELD: usize = 10;
    let scene = crate::scene();
    let full = scene
        .gated("full", &["--ready-delay", "200ms"])
        .annotate("rouse.dev/max-held", &HELD.to_string());
    let other = scene
        .model("other", &["--service-time", "2ms"])
        .annotate("min-scale", "1");
    let running = scene.run(&[full, other], &[]);
    running.settled("other", 1, LONG).await;
    let (account, address) = (Account::default(), running.address("full"));

    let crowd = async {
        let mut clients = JoinSet::new();
        for _ in 0..HELD {
            let account = account.clone();
            clients.spawn(async move { account.send(address, None, get("/work")).await });
        }
        wait::until("as many as may be are held", LONG, || {
            running.workload("full").activator.held() == HELD
        })
        .await;
        for _ in 0..20 {
            let began = Instant::now();
            let refused = account.send(address, None, get("/work")).await.unwrap();
            assert_eq!(
                (refused.status.as_u16(), refused.header("retry-after")),
                (503, "1")
            );
            assert!(refused.text().contains("hold-full"), "{}", refused.text());
            assert!(began.elapsed() < Duration::from_millis(500), "{began:?}");
        }
        assert_eq!(running.workload("full").activator.held(), HELD);
        scene.open_gate("full");
        while let Some(answer) = clients.join_next().await {
            assert_eq!(answer.unwrap().unwrap().status, 200);
        }
    };
    let url = running.url("other", "/work");
    let others = load::run(&url, 8, load::open(100.0, Duration::from_secs(3)));
    let ((), (report, told)) = tokio::join!(crowd, others);
    running.stop().await;
    Ledger::compare(&told, &scene.journal("other")).assert_exact();
    assert_eq!(report.summary.requests, 300);

    let ledger = Ledger::compare(&account.told(), &scene.journal("full")).checked();
    assert_eq!((ledger.good, ledger.bad.len()), (HELD, 20));
    assert!(
        ledger.bad.iter().all(|(_, executed)| executed.is_none()),
        "a refused request is not executed: {:#?}",
        ledger.bad
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_never_hears_of_clients_that_hung_up_while_they_were_held() {
    const CLIENTS: usize = 500;
    let scene = crate::scene();
    let running = scene.run(&[scene.gated("m", &["--ready-delay", "200ms"])], &[]);
    let address = running.address("m");
    let held = || running.workload("m").activator.held();
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = TcpStream::connect(address).await.unwrap();
        let text = format!("GET /work HTTP/1.1\r\nhost: m\r\n{REQUEST_ID}: gone-{n}\r\n\r\n");
        client.write_all(text.as_bytes()).await.unwrap();
        clients.push(client);
    }
    wait::until("everybody is held", LONG, || held() == CLIENTS).await;
    drop(clients);
    wait::until("nobody is held any more", LONG, || held() == 0).await;
    scene.open_gate("m");

    // The one that stays is the only one that is served.
    let account = Account::default();
    let answer = timeout(LONG, account.send(address, None, get("/work")))
        .await
        .unwrap();
    assert_eq!(answer.unwrap().status, 200);
    running.stop().await;
    Ledger::compare(&account.told(), &scene.journal("m")).assert_exact();
}
