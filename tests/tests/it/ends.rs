//! How the real program ends, and what it leaves behind: nothing.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use integration::{
    Deployment, Scene,
    client::{fetch, get},
    process::{Program, below, free_port, gone, runs},
    scene::LONG,
    wait,
};
use rustix::process::Signal;
use tokio::time::Instant;

/// The real program with one awake model.
struct Awake {
    program: Program,
    address: SocketAddr,
    /// The model, and the shim above it.
    below: Vec<u32>,
    model: u32,
    _scene: Scene,
}

/// Starts `rouse local` and wakes its model.
async fn awake(deployment: impl FnOnce(&Scene) -> Deployment) -> Awake {
    let scene = crate::scene();
    // Without the Service, whose port may be taken on this machine.
    let yaml = deployment(&scene).yaml();
    let file = scene.write("m.yaml", yaml.split("---\n").next().unwrap());
    let program = Program::start(
        &scene.programs().path("rouse"),
        &[
            "local",
            "--port",
            &free_port().port().to_string(),
            "-f",
            file.to_str().unwrap(),
        ],
        scene.folder(),
    );
    let address: SocketAddr = program
        .line("the address is printed", |line| {
            line.strip_prefix("m: http://")?.parse().ok()
        })
        .await;
    let answer = fetch(address, get("/stats")).await.unwrap();
    let model = answer.header("x-served-by").parse().unwrap();
    let below = below(program.pid());
    assert!(below.len() >= 2 && below.contains(&model), "{below:?}");
    Awake {
        program,
        address,
        below,
        model,
        _scene: scene,
    }
}

impl Awake {
    /// Waits for a good end, after which nothing is left.
    async fn ended_well(mut self, limit: Duration) {
        let status = self.program.end(limit).await;
        assert_eq!(status.code(), Some(0), "{:#?}", self.program.lines());
        // One that was killed in haste may need a moment to be gone.
        gone(&self.below, Duration::from_secs(1)).await;
        TcpListener::bind(self.address).expect("the port is free");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_ctrl_c_end_everything_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let awake = awake(|scene| scene.model("m", &[])).await;
        awake.program.signal(signal);
        awake.ended_well(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_does_not_outlive_a_killed_rouse() {
    let mut awake = awake(|scene| scene.model("m", &[])).await;
    awake.program.signal(Signal::KILL);
    awake.program.end(Duration::from_secs(2)).await;
    gone(&awake.below, Duration::from_secs(2)).await;
    TcpListener::bind(awake.address).expect("the port is free");
}

/// A model that says yes to everything but SIGTERM.
fn stubborn(scene: &Scene) -> Deployment {
    let model = scene.programs().model();
    let script = format!("trap '' TERM; {model} & while :; do wait; done");
    Deployment::new("m", &["sh", "-c", &script]).ready_path("/ready")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_ctrl_c_ends_at_once_what_would_take_its_grace() {
    let awake = awake(stubborn).await;
    awake.program.signal(Signal::INT);
    awake
        .program
        .line("it says that it stops", |line| {
            line.contains("once more").then_some(())
        })
        .await;
    wait::until("the model has heard of it", LONG, || !runs(awake.model)).await;
    let again = Instant::now();
    awake.program.signal(Signal::INT);
    awake.ended_well(Duration::from_secs(3)).await;
    assert!(
        again.elapsed() < Duration::from_secs(2),
        "{:?}",
        again.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_ignores_sigterm_is_killed_after_its_grace() {
    let awake = awake(stubborn).await;
    let began = Instant::now();
    awake.program.signal(Signal::TERM);
    awake.ended_well(Duration::from_secs(12)).await;
    assert!(
        began.elapsed() > Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_ignores_sigterm_is_killed_after_the_deployments_grace_when_scaled_down() {
    let scene = crate::scene();
    let running = scene.run(&[stubborn(&scene).grace(1).replicas(1)], &[]);
    running.settled("m", 1, LONG).await;
    let workload = running.workload("m");
    let pid = running.ready("m")[0].pid.unwrap();
    assert!(running.local.scale(&workload.id, 1, 0));
    gone(&[pid], Duration::from_secs(4)).await;
    running.settled("m", 0, LONG).await;
    running.stop().await;
}

/// A model that takes its time to say goodbye.
fn polite(scene: &Scene) -> Deployment {
    let model = scene.programs().model();
    let script = format!("trap 'sleep 0.3; echo > bye; exit' TERM; {model} & wait");
    Deployment::new("m", &["sh", "-c", &script]).ready_path("/ready")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_drains_when_everything_stops_is_asked_to_go_like_the_others() {
    let scene = crate::scene();
    let running = scene.run(&[polite(&scene).replicas(1)], &[]);
    running.settled("m", 1, LONG).await;
    let replica = running.ready("m").remove(0);
    // Past the activator, so that its own end does not end the drain.
    let open = tokio::spawn(fetch(replica.sidecar, get("/work?ms=60000")));
    wait::until("the request is open", LONG, || replica.proxy.load() > 0).await;
    assert!(running.local.scale(&running.workload("m").id, 1, 0));
    wait::until("it leaves", LONG, || {
        running
            .snapshot("m")
            .replicas
            .iter()
            .all(|view| view.terminating)
    })
    .await;
    running.stop().await;
    assert!(scene.folder().join("bye").exists());
    open.abort();
}
