//! Models that do not start.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use integration::{
    Deployment, Ledger, Running,
    client::{Account, Answer, get},
    scene::LONG,
    wait,
};
use tokio::time::{Instant, sleep};

/// "Fast" is far from any timeout: two starts that crash after 100 ms each.
const FAST: Duration = Duration::from_secs(4);
/// The pause after the second crash in a row, and a little.
const BACK_OFF: Duration = Duration::from_secs(13);

/// Asks once; the refusal must come soon and say when to come again.
async fn refusal(running: &Running, account: &Account) -> Answer {
    let began = Instant::now();
    let answer = account
        .send(running.address("m"), None, get("/work"))
        .await
        .unwrap();
    assert!(began.elapsed() < FAST, "after {:?}", began.elapsed());
    assert_eq!(answer.status, 503, "{}", answer.text());
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=11).contains(&seconds), "retry-after: {seconds}");
    answer
}

/// Writes a program in one step, so that nobody sees half of it.
fn script(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_crashes_fails_held_requests_fast_and_serves_once_it_is_mended() {
    let scene = crate::scene();
    let (program, model) = (scene.folder().join("serve"), scene.programs().model());
    let journal = scene.journal_file("m").display().to_string();
    script(
        &program,
        &format!("exec {model} --crash-before-ready 100ms"),
    );
    let deployment = Deployment::new("m", &[program.to_str().unwrap()]).ready_path("/ready");
    let running = scene.run(&[deployment], &[]);
    let account = Account::default();

    let text = refusal(&running, &account).await.text();
    for part in [
        "cannot-start",
        "exited with code 3 before it was ready",
        "fatal: the weights cannot be loaded",
        "tiny-model crashes on purpose, status 3",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let again = Instant::now();
    refusal(&running, &account).await;
    assert!(
        again.elapsed() < Duration::from_millis(500),
        "nothing is started for it"
    );

    script(&program, &format!("exec {model} --journal {journal}"));
    let mended = Instant::now();
    loop {
        let answer = account
            .send(running.address("m"), None, get("/work"))
            .await
            .unwrap();
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(mended.elapsed() < BACK_OFF, "{}", answer.text());
        sleep(Duration::from_millis(200)).await; // a client that comes again
    }
    running.stop().await;
    let ledger = Ledger::compare(&account.told(), &scene.journal("m")).checked();
    assert_eq!(ledger.good, 1);
    assert!(ledger.bad.iter().all(|(_, executed)| executed.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_exist_fails_held_requests_at_once_and_is_named() {
    let scene = crate::scene();
    let running = scene.run(&[Deployment::new("m", &["/no/such/model"])], &[]);
    let text = refusal(&running, &Account::default()).await.text();
    assert!(
        text.contains("cannot-start") && text.contains("\"/no/such/model\" not found"),
        "{text}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_crash_before_a_good_start_costs_nobody_an_answer() {
    let scene = crate::scene();
    let (program, model) = (scene.folder().join("serve"), scene.programs().model());
    let journal = scene.journal_file("m").display().to_string();
    // The first start leaves a mark and crashes; the second finds it.
    script(
        &program,
        &format!(
            "mkdir mark 2>/dev/null && exec {model} --crash-before-ready 50ms\nexec {model} --journal {journal}"
        ),
    );
    let deployment = Deployment::new("m", &[program.to_str().unwrap()]).ready_path("/ready");
    let running = scene.run(&[deployment], &[]);
    let account = Account::default();
    let answer = account.send(running.address("m"), None, get("/work"));
    let answer = tokio::time::timeout(LONG, answer).await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    running.stop().await;
    Ledger::compare(&account.told(), &scene.journal("m")).assert_exact();
}

/// A program of which the first start serves and every other one crashes; each start adds a line to `starts`.
fn first_serves(scene: &integration::Scene, first: &str) -> Deployment {
    let (program, model) = (scene.folder().join("serve"), scene.programs().model());
    script(
        &program,
        &format!(
            "echo x >> starts\nmkdir mark 2>/dev/null && exec {model} {first}\nexec {model} --crash-before-ready 50ms"
        ),
    );
    let deployment = Deployment::new("m", &[program.to_str().unwrap()]).ready_path("/ready");
    deployment
        .replicas(2)
        .annotate("autoscaling.knative.dev/min-scale", "2")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_keeps_crashing_beside_a_good_one_is_not_started_in_a_circle() {
    let scene = crate::scene();
    let running = scene.run(&[first_serves(&scene, "")], &[]);
    let starts = scene.folder().join("starts");
    let count = || {
        std::fs::read_to_string(&starts)
            .unwrap_or_default()
            .lines()
            .count()
    };
    wait::until("the good one and two crashes", LONG, || {
        count() == 3 && running.ready("m").len() == 1
    })
    .await;
    let account = Account::default();
    wait::throughout("the pause", Duration::from_secs(3), || count() == 3).await;
    let answer = account
        .send(running.address("m"), None, get("/work"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "the good one serves: {}", answer.text());
    wait::until("the next attempt", BACK_OFF, || count() > 3).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_held_while_one_replica_loads_although_the_other_keeps_crashing() {
    let scene = crate::scene();
    let running = scene.run(&[first_serves(&scene, "--ready-delay 2s")], &[]);
    let answer = Account::default()
        .send(running.address("m"), None, get("/work"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        running.printed().contains("cannot start"),
        "the other has crashed meanwhile"
    );
    running.stop().await;
}
