//! Reconciling with listeners that are real and caches that are filled by hand.

use std::net::{Ipv4Addr, SocketAddr};

use ::kubernetes::watch::Hand;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::{BoxFuture, Config, Scale, SourceError, Sources, WakeError, WakeOutcome};

#[derive(Debug)]
struct NoScale;

impl Scale for NoScale {
    fn wake(&self, _: &TargetId, _: u32) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        Box::pin(async { Ok(WakeOutcome::NotAtZero) })
    }
}

struct Bed {
    activator: Activator,
    caches: Caches,
    workloads: Hand<WorkloadView>,
    pods: Hand<PodView>,
    claims: Hand<Claim>,
    state: State,
    settings: Settings,
    _queue: Queue,
    nudged: NudgeQueue,
}

/// Whose `127.0.0.N` is.
#[derive(Debug)]
struct ByNumber;

impl Sources for ByNumber {
    fn namespace_of(&self, ip: IpAddr) -> BoxFuture<'_, Result<Option<Arc<str>>, SourceError>> {
        Box::pin(async move {
            Ok(match ip.to_string().as_str() {
                "127.0.0.2" => Some("friends".into()),
                "127.0.0.3" => Some("others".into()),
                "127.0.0.4" => Some("n".into()),
                "127.0.0.5" => {
                    let reason = "no answer".to_owned();
                    return Err(SourceError { ip, reason });
                }
                _ => None,
            })
        })
    }
}

impl Bed {
    fn new() -> Self {
        let (workloads, workloads_hand) = Cache::by_hand();
        let (pods, pods_hand) = Cache::by_hand();
        let (claims, claims_hand) = Cache::by_hand();
        let (events, queue) = events();
        let (asked, nudged) = nudges();
        Self {
            activator: Activator::start(Config::default(), Arc::new(NoScale), None).unwrap(),
            caches: Caches {
                workloads,
                pods,
                claims,
                config: Cache::by_hand().0,
                companions: Cache::by_hand().0,
            },
            workloads: workloads_hand,
            pods: pods_hand,
            claims: claims_hand,
            state: State::new((events, asked)),
            settings: Settings {
                namespace: names::NAMESPACE.to_owned(),
                listen: vec![Ipv4Addr::LOCALHOST.into()],
                unschedulable_patience: Duration::from_mins(2),
                lookups: Lookups::new(Arc::new(ByNumber)),
            },
            _queue: queue,
            nudged,
        }
    }

    fn claim(&self, port: u16, target: &str, index: usize) {
        let claim = Claim {
            port,
            target: target.parse().unwrap(),
            index,
            released: None,
        };
        let name = Claim::name_of(port);
        self.claims.set(names::NAMESPACE, &name, Some(claim));
    }

    fn unclaim(&self, port: u16) {
        self.claims
            .set(names::NAMESPACE, &Claim::name_of(port), None);
    }

    fn workload(&self, name: &str, change: impl FnOnce(&mut WorkloadView)) {
        let object = json!({
            "metadata": {"namespace": "n", "name": name, "uid": "u", "labels": {"rouse.dev/enabled": "true"}},
            "spec": {"replicas": 0, "selector": {}, "template": {"spec": {"containers": []}}},
        });
        let mut view = WorkloadView::of(&serde_json::from_value(object).unwrap()).unwrap();
        change(&mut view);
        self.workloads.set("n", name, Some(view));
    }

    fn reconcile(&mut self) {
        self.state
            .reconcile(&self.activator, &self.caches, &self.settings);
    }
}

/// A port that nobody has now.
async fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

async fn asked(port: u16) -> TcpStream {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream
}

/// Somebody at `127.0.0.N`.
async fn connected(from: u8, port: u16) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let here = Ipv4Addr::new(127, 0, 0, from);
    socket.bind(SocketAddr::from((here, 0))).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect(address).await.unwrap()
}

/// The next answer to a request that says it is from `127.0.0.2` and one of ours. Empty if it is held, as what is held already
/// must stay.
async fn asks(stream: &mut TcpStream, bed: &Bed) -> String {
    let before = bed.activator.held();
    let request =
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 127.0.0.2\r\nForwarded: for=127.0.0.2\r\n\
        X-Real-IP: 127.0.0.2\r\nrouse-pod-uid: a\r\nrouse-admission: admitted\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut told = String::new();
    while !told.ends_with('\n') && bed.activator.held() == before {
        let mut piece = [0; 4_096];
        if let Ok(read) = timeout(Duration::from_millis(10), stream.read(&mut piece)).await {
            told.push_str(std::str::from_utf8(&piece[..read.unwrap()]).unwrap());
        }
    }
    told
}

/// What is answered until the connection ends or is silent.
async fn answer(mut stream: TcpStream) -> String {
    let mut told = Vec::new();
    let _silent = timeout(Duration::from_millis(300), stream.read_to_end(&mut told)).await;
    String::from_utf8(told).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_serves_the_workload_that_has_claimed_it_and_no_other() {
    let mut bed = Bed::new();
    let port = free().await;
    bed.claim(port, "n/a", 0);
    bed.reconcile();
    let removed = answer(asked(port).await).await;
    assert!(
        removed.contains("rouse: removed"),
        "there is no Deployment: {removed}"
    );

    bed.workload("a", |view| view.paused = true);
    bed.reconcile();
    assert!(answer(asked(port).await).await.contains("rouse: paused"));

    bed.workload("a", |_| {});
    bed.workload("b", |view| view.paused = true);
    bed.reconcile();
    let held = asked(port).await;
    while bed.activator.held() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It changes hands: who was held for the first is not given to the second.
    bed.claim(port, "n/b", 0);
    bed.reconcile();
    while let Some(again) = bed.state.ports.again() {
        // The kernel's backlog is taken before a listener is closed.
        sleep_until(again).await;
        bed.reconcile();
    }
    let other = answer(asked(port).await).await;
    assert!(other.contains("rouse: paused"), "{other}");
    assert!(answer(held).await.contains("rouse: removed"));

    bed.unclaim(port);
    bed.reconcile();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let closed = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    assert!(closed.is_err(), "nobody listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_costs_nobody_else_anything_and_is_had_once_it_is_free() {
    let mut bed = Bed::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, other) = (taken.local_addr().unwrap().port(), free().await);
    for (port, name) in [(port, "a"), (other, "b")] {
        bed.claim(port, &format!("n/{name}"), 0);
        bed.workload(name, |view| view.paused = true);
    }
    bed.reconcile();
    assert!(answer(asked(other).await).await.contains("paused"));
    let again = bed.state.ports.again().unwrap();
    drop(taken);
    sleep_until(again).await;
    bed.reconcile();
    assert!(answer(asked(port).await).await.contains("paused"));
    assert_eq!(bed.state.ports.again(), None);
}

fn allow(view: &mut WorkloadView, namespaces: &str) {
    let key = "rouse.dev/allowed-namespaces".to_owned();
    view.settings.insert(key, namespaces.to_owned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pods_of_allowed_namespaces_are_held_whatever_a_request_says() {
    let mut bed = Bed::new();
    let port = free().await;
    bed.claim(port, "n/a", 0);
    bed.workload("a", |view| allow(view, "friends"));
    bed.reconcile();
    for (from, status) in [(3, "403 "), (5, "503 "), (1, "403 ")] {
        let told = asks(&mut connected(from, port).await, &bed).await;
        let code = if status == "403 " {
            "rouse: namespace-not-allowed: "
        } else {
            "rouse: source-unknown: "
        };
        assert!(told.contains(status) && told.contains(code), "{told}");
        assert!(!told.contains("friends"), "{told}");
        assert_eq!(bed.activator.held(), 0, "127.0.0.{from}");
    }
    let mut held = Vec::new();
    for from in [2, 4] {
        let mut stream = connected(from, port).await;
        assert_eq!(asks(&mut stream, &bed).await, "", "127.0.0.{from}");
        held.push(stream);
    }
    assert_eq!(bed.activator.held(), 2);
    // Nobody is asked about where all are allowed.
    bed.workload("a", |view| allow(view, "*"));
    bed.reconcile();
    assert_eq!(asks(&mut connected(5, port).await, &bed).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_annotation_counts_on_connections_that_are_there_and_a_bad_one_opens_nothing() {
    let mut bed = Bed::new();
    let port = free().await;
    bed.claim(port, "n/a", 0);
    // Whatever else is wrong: with the other settings' defaults everybody would be allowed.
    for bad in ["Friends", "", "*,friends"] {
        bed.workload("a", |view| allow(view, bad));
        bed.reconcile();
        let mut stranger = connected(3, port).await;
        assert!(asks(&mut stranger, &bed).await.contains(" 403 "), "{bad:?}");
    }
    bed.workload("a", |view| {
        allow(view, "friends");
        let key = "autoscaling.knative.dev/target".to_owned();
        view.settings.insert(key, "none".to_owned());
    });
    bed.reconcile();
    let mut stranger = connected(3, port).await;
    assert!(asks(&mut stranger, &bed).await.contains(" 403 "));
    bed.workload("a", |view| allow(view, "friends,others"));
    bed.reconcile();
    let held = asks(&mut stranger, &bed).await;
    assert_eq!(held, "", "on the same connection");
    let mut other = connected(3, port).await;
    bed.workload("a", |view| allow(view, "Others"));
    bed.reconcile();
    assert_eq!(asks(&mut other, &bed).await, "", "the last good one stays");
    let mut third = connected(3, port).await;
    bed.workload("a", |view| allow(view, "friends"));
    bed.reconcile();
    assert!(asks(&mut third, &bed).await.contains(" 403 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_is_refused_its_pods_is_nudged_once_when_somebody_asks() {
    let mut bed = Bed::new();
    let port = free().await;
    bed.claim(port, "n/a", 0);
    bed.workload("a", |view| {
        view.replicas = 1;
        view.failure = Some("FailedCreate: exceeded quota".into());
    });
    bed.reconcile();
    assert_eq!(bed.nudged.take(), None, "nobody asks");
    let mut stream = connected(1, port).await;
    assert_eq!(asks(&mut stream, &bed).await, "");
    bed.reconcile();
    assert_eq!(bed.nudged.take().unwrap().to_string(), "n/a");
    for _ in 0..3 {
        bed.reconcile();
    }
    assert_eq!(bed.nudged.take(), None);
    // The try is in vain.
    let told = async {
        loop {
            bed.reconcile();
            let mut piece = [0; 4_096];
            let read = timeout(Duration::from_millis(50), stream.read(&mut piece)).await;
            if let Ok(read) = read {
                return String::from_utf8_lossy(&piece[..read.unwrap()]).into_owned();
            }
        }
    };
    let told = timeout(Duration::from_secs(10), told).await.unwrap();
    assert!(told.contains("rouse: cannot-start"), "{told}");
    assert!(told.contains("retry-after: 1"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_costs_little_with_many_workloads_and_pods() {
    let mut bed = Bed::new();
    bed.settings.listen.clear();
    for n in 0..200_u16 {
        let name = format!("w{n}");
        bed.workload(&name, |view| view.replicas = 5);
        bed.claim(10_000 + n, &format!("n/{name}"), 0);
        for pod in 0..5 {
            let view = pod_view(&name, pod);
            bed.pods.set("n", &view.name.clone(), Some(view));
        }
    }
    bed.settings.listen = vec![Ipv4Addr::new(127, 7, 7, 7).into()];
    bed.reconcile();
    let began = std::time::Instant::now();
    for _ in 0..10 {
        bed.reconcile();
    }
    let each = began.elapsed() / 10;
    assert!(
        each < Duration::from_millis(50),
        "{each:?} without optimization"
    );
}

fn pod_view(workload: &str, n: u8) -> PodView {
    PodView {
        name: format!("{workload}-{n}").into(),
        uid: format!("{workload}-{n}").into(),
        target: format!("n/{workload}").parse().unwrap(),
        ip: None,
        upstreams: vec![8080],
        template: None,
        ready: false,
        starting: true,
        terminating: false,
        trouble: None,
        created: None,
        scheduled: None,
        started: None,
        began: None,
        prepared: None,
        ready_since: None,
    }
}
