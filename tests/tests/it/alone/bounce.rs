//! Queue-proxies that hand on what they cannot take, and the activator that gives it to whoever can: as programs, each configured
//! by flags.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use integration::{
    Ledger, Scene,
    client::{Account, Connection, get},
    process::Program,
    scene::LONG,
    wait,
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};

use super::{port, start};

/// A pod: its model and its queue-proxy.
struct Pod {
    front: SocketAddr,
    stats: SocketAddr,
    _programs: [Program; 2],
}

impl Pod {
    /// One that serves one request at a time and lets one wait.
    fn start(scene: &Scene, name: &str, admit: &str, activator: &str) -> Self {
        let (model, front, stats) = (port(), port(), port());
        let number = model.rsplit(':').next().unwrap();
        let journal = scene.journal_file("m").display().to_string();
        let programs = [
            start(
                scene,
                "tiny-model",
                &format!("--port {number} --name {name} --journal {journal}"),
            ),
            start(
                scene,
                "rouse-queue-proxy",
                &format!(
                    "--listen {front} --upstream {model} --activator-listen {admit} --stats-listen {stats} --pod-uid {name} \
                     --ready-path /ready --grace 2 --container-concurrency 1 --bounce-to {activator}"
                ),
            ),
        ];
        Self {
            front: front.parse().unwrap(),
            stats: stats.parse().unwrap(),
            _programs: programs,
        }
    }

    /// A number of what it tells the autoscaler.
    async fn stat(&self, field: &str) -> u64 {
        let mut connection = Connection::open(self.stats).await.unwrap();
        let answer = connection.send(get("/stat")).await.unwrap();
        let stat: Value = serde_json::from_slice(&answer.body).unwrap();
        stat[field].as_u64().unwrap()
    }

    async fn ready(&self) {
        timeout(LONG, async {
            loop {
                if let Ok(mut connection) = Connection::open(self.stats).await
                    && let Ok(answer) = connection.send(get("/readyz")).await
                    && answer.status == 200
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the pod is ready");
    }

    async fn until(&self, field: &str, is: u64) {
        timeout(LONG, async {
            while self.stat(field).await != is {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{field} is never {is}"));
    }
}

fn activator(scene: &Scene, listen: &str, pods: &[(&str, &str)]) -> Program {
    let pods: Vec<_> = pods
        .iter()
        .map(|(uid, at)| format!("--pod {uid}={at}"))
        .collect();
    let pods = pods.join(" ");
    let flags = format!("--listen {listen} {pods} --container-concurrency 1 --grace 2");
    start(scene, "rouse-activator", &flags)
}

/// Sends `count` requests at once, each on a connection of its own.
fn burst(account: &Account, to: SocketAddr, count: usize, path: &'static str) -> JoinSet<String> {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let account = account.clone();
        clients.spawn(async move {
            let answer = timeout(LONG, account.send(to, None, get(path)));
            let answer = answer.await.expect("an answer in time").unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.header("x-served-by").to_owned()
        });
    }
    clients
}

/// Waits until the activator gives requests to two pods.
async fn both_known(account: &Account, activator: SocketAddr) {
    wait::until("the activator listens", LONG, || {
        std::net::TcpListener::bind(activator).is_err()
    })
    .await;
    let mut known = BTreeSet::new();
    timeout(LONG, async {
        while known.len() < 2 {
            let answer = account.send(activator, None, get("/work")).await.unwrap();
            known.insert(answer.header("x-served-by").to_owned());
        }
    })
    .await
    .expect("both pods get requests");
}

async fn end(mut program: Program) {
    program.signal(Signal::INT);
    assert!(program.end(LONG).await.success(), "{:#?}", program.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_busy_pod_hands_on_is_served_by_the_one_that_is_idle() {
    let scene = crate::scene();
    let (front, a, b) = (port(), port(), port());
    let (busy, idle) = (
        Pod::start(&scene, "busy", &a, &front),
        Pod::start(&scene, "idle", &b, &front),
    );
    let activator = activator(&scene, &front, &[("busy", &a), ("idle", &b)]);
    tokio::join!(busy.ready(), idle.ready());
    let account = Account::default();
    both_known(&account, front.parse().unwrap()).await;
    let before = [
        busy.stat("started_total").await,
        idle.stat("started_total").await,
    ];
    // One in the slot and one behind it.
    let stay = burst(&account, busy.front, 2, "/work?ms=1500");
    busy.until("load", 2).await;
    for _ in 0..5 {
        let mut one = burst(&account, busy.front, 1, "/work");
        assert_eq!(one.join_next().await.unwrap().unwrap(), "idle");
    }
    assert_eq!(busy.stat("relayed_total").await, 5);
    assert_eq!(busy.stat("started_total").await - before[0], 2);
    assert_eq!(idle.stat("started_total").await - before[1], 5);
    for served_by in stay.join_all().await {
        assert_eq!(served_by, "busy");
    }
    Ledger::compare(&account.told(), &scene.journal("m")).assert_exact();
    end(activator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_at_a_pod_that_is_alone_is_held_and_each_request_is_served_once() {
    const BURST: usize = 60;
    let scene = crate::scene();
    let (front, a) = (port(), port());
    let lone = Pod::start(&scene, "lone", &a, &front);
    let activator = activator(&scene, &front, &[("lone", &a)]);
    lone.ready().await;
    wait::until("the activator listens", LONG, || {
        std::net::TcpListener::bind(front.parse::<SocketAddr>().unwrap()).is_err()
    })
    .await;
    let account = Account::default();
    let answers = burst(&account, lone.front, BURST, "/work?ms=10")
        .join_all()
        .await;
    assert_eq!(answers, vec!["lone"; BURST]);
    Ledger::compare(&account.told(), &scene.journal("m")).assert_exact();
    let relayed = lone.stat("relayed_total").await;
    assert!(relayed >= 20, "{relayed} handed on");
    // Each was started once at the pod, whichever way it came.
    assert_eq!(lone.stat("started_total").await, BURST as u64);
    assert_eq!(lone.stat("open").await, 0);
    // Without the activator the next burst waits here.
    end(activator).await;
    let answers = burst(&account, lone.front, 8, "/work?ms=10")
        .join_all()
        .await;
    assert_eq!(answers, ["lone"; 8]);
    assert_eq!(lone.stat("relayed_total").await, relayed);
    Ledger::compare(&account.told(), &scene.journal("m")).assert_exact();
}
