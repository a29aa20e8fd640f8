//! Our programs as programs, each configured by flags alone: what a cluster does around them is played by the test.

mod bounce;
mod scale;

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use integration::{
    Ledger, Scene,
    client::{Account, get},
    process::{Program, free_port},
    scene::LONG,
    wait,
};
use rustix::process::Signal;
use tokio::time::timeout;

use self::scale::ScaleServer;

/// A port for a flag.
fn port() -> String {
    free_port().to_string()
}

/// Starts one of our programs. `flags` are separated by spaces.
fn start(scene: &Scene, name: &str, flags: &str) -> Program {
    let flags: Vec<_> = flags.split_whitespace().collect();
    Program::start(&scene.programs().path(name), &flags, scene.folder())
}

/// The kubelet's part: a model process while the scale is not zero.
async fn play_kubelet(scene: &Scene, scale: &ScaleServer, model: &str) {
    let port = model.rsplit(':').next().unwrap();
    let journal = scene.journal_file("m").display().to_string();
    let flags = format!("--port {port} --journal {journal} --ready-delay 100ms");
    let mut replicas = scale.watch();
    loop {
        replicas.wait_for(|replicas| *replicas > 0).await.unwrap();
        let mut program = start(scene, "tiny-model", &flags);
        replicas.wait_for(|replicas| *replicas == 0).await.unwrap();
        program.signal(Signal::TERM);
        program.end(LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_programs_wake_a_model_and_let_it_go_through_a_scale_behind_a_url() {
    let scene = crate::scene();
    let scale = ScaleServer::start().await;
    let url = scale.url();
    let (model, sidecar, admit, stat) = (port(), port(), port(), port());
    let (front, holds) = (port(), port());
    let mut programs = [
        start(
            &scene,
            "rouse-queue-proxy",
            &format!(
                "--listen {sidecar} --upstream {model} --activator-listen {admit} --stats-listen {stat} --pod-uid a \
                 --ready-path /ready --grace 2"
            ),
        ),
        start(
            &scene,
            "rouse-activator",
            &format!(
                "--listen {front} --pod a={admit} --stats-listen {holds} --scale-url {url} --grace 2"
            ),
        ),
        start(
            &scene,
            "rouse-autoscaler",
            &format!(
                "--pod a={stat} --activator {holds} --scale-url {url} --annotation autoscaling.knative.dev/window=6s \
                 --set scale-to-zero-grace-period=1s"
            ),
        ),
    ];
    let front: SocketAddr = front.parse().unwrap();
    wait::until("the activator listens", LONG, || {
        TcpListener::bind(front).is_err()
    })
    .await;

    let account = Account::default();
    let story = async {
        let woken = account.send(front, None, get("/work"));
        let woken = timeout(LONG, woken).await.unwrap().unwrap();
        assert_eq!(woken.status, 200, "{}", woken.text());
        assert_eq!(scale.writes(), [(0, 1)], "the activator woke it, once");
        for _ in 0..5 {
            let warm = account.send(front, None, get("/work")).await.unwrap();
            assert_eq!(warm.status, 200, "{}", warm.text());
        }
        wait::until("the autoscaler lets it go", Duration::from_secs(30), || {
            scale.writes() == [(0, 1), (1, 0)]
        })
        .await;
        let again = account.send(front, None, get("/work"));
        let again = timeout(LONG, again).await.unwrap().unwrap();
        assert_eq!(again.status, 200, "{}", again.text());
        assert_eq!(scale.writes(), [(0, 1), (1, 0), (0, 1)]);
    };
    tokio::select! {
        () = story => {}
        () = play_kubelet(&scene, &scale, &model) => unreachable!("it plays for ever"),
    }
    Ledger::compare(&account.told(), &scene.journal("m")).assert_exact();
    for program in &mut programs {
        program.signal(Signal::TERM);
        assert_eq!(
            program.end(LONG).await.code(),
            Some(0),
            "{:#?}",
            program.lines()
        );
    }
}
