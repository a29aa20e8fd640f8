//! The hand-over of pods to held requests in many orders: no pod gets more than it takes, no place is lost to somebody who just
//! gave up, nobody who stays waits for ever (which shuttle calls a deadlock), and a workload that is removed lets everybody go.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::atomic::{AtomicU32, AtomicUsize},
    task::Poll,
};

use schedules::{Patience, explore, point};
use shuttle::{future::block_on, thread};

use super::*;
use crate::{BoxFuture, WakeError, WakeOutcome, pod::Pod};

/// Nobody asks it.
#[derive(Debug)]
struct Never;

impl Scale for Never {
    fn wake(&self, _: &TargetId, _: u32) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        Box::pin(std::future::pending())
    }
}

/// A workload whose pods take one request each, and how many of them have one.
#[derive(Clone)]
struct Scene {
    workload: Arc<Workload>,
    pods: u32,
    at_pods: Arc<AtomicU32>,
    served: Arc<AtomicUsize>,
}

impl Scene {
    /// None of the pods is ready.
    fn new(pods: u32) -> Self {
        let process = Process::new(Config::default(), Arc::new(Never));
        let mut config = WorkloadConfig::new(TargetId::new("a", "b").unwrap());
        config.container_concurrency = 1;
        let workload = Workload::new(config, process);
        let mut state = workload.state.lock();
        let uids: Vec<Arc<str>> = (0..pods).map(|n| n.to_string().into()).collect();
        let list: Vec<_> = uids.iter().map(|uid| (Arc::clone(uid), false)).collect();
        state.hold.set_pods(&list);
        for uid in uids {
            let address = SocketAddr::from(([127, 0, 0, 1], 9));
            let pod = Pod::new(Arc::clone(&uid), address, Config::default().client);
            state.pods.insert(uid, Known::quiet(pod));
        }
        drop(state);
        Self {
            workload,
            pods,
            at_pods: Arc::default(),
            served: Arc::default(),
        }
    }

    /// The pod becomes ready, on a thread of its own.
    fn is_ready(&self, uid: &'static str) -> thread::JoinHandle<()> {
        let workload = Arc::clone(&self.workload);
        thread::spawn(move || {
            let milestones = crate::pod::Milestones {
                sidecar_started: None,
                port_open: None,
                model_ready: Instant::now(),
            };
            workload.pod_is_ready(uid, milestones);
        })
    }

    /// Somebody has a pod: it serves him, or sends him back so often.
    fn be_served(&self, mut lease: Lease, refusals: u32) -> Result<(), Failure> {
        let before = self.at_pods.fetch_add(1, Relaxed);
        assert!(before < self.pods, "a place too many");
        point();
        self.at_pods.fetch_sub(1, Relaxed);
        if refusals == 0 {
            lease.answered();
            self.served.fetch_add(1, Relaxed);
            return Ok(());
        }
        let mut held = self.workload.hold_again(lease)?;
        let lease = block_on(held.granted())?;
        drop(held);
        self.be_served(lease, refusals - 1)
    }

    /// One request, on a thread of its own.
    fn request(&self, patience: Patience, refusals: u32) -> thread::JoinHandle<()> {
        let scene = self.clone();
        thread::spawn(move || {
            let ended = match scene.workload.enter() {
                Err(failure) => Err(failure),
                Ok(Entered::Leased(lease)) => scene.be_served(lease, refusals),
                Ok(Entered::Held(mut held)) => {
                    let granted = match patience {
                        Patience::None => None,
                        Patience::OneLook => block_on(async {
                            let mut granted = std::pin::pin!(held.granted());
                            poll_fn(|cx| {
                                Poll::Ready(match granted.as_mut().poll(cx) {
                                    Poll::Ready(granted) => Some(granted),
                                    Poll::Pending => None,
                                })
                            })
                            .await
                        }),
                        Patience::Endless => Some(block_on(held.granted())),
                    };
                    drop(held);
                    match granted {
                        None => Ok(()),
                        Some(Ok(lease)) => scene.be_served(lease, refusals),
                        Some(Err(failure)) => Err(failure),
                    }
                }
            };
            assert!(matches!(ended, Ok(()) | Err(Failure::Removed)), "{ended:?}");
        })
    }

    /// All are gone, and so is every trace of them.
    fn ends(self, all: Vec<thread::JoinHandle<()>>) {
        for one in all {
            one.join().unwrap();
        }
        assert_eq!((self.workload.held(), self.workload.leased()), (0, 0));
        assert!(self.workload.state.lock().waiters.is_empty());
        assert_eq!(self.workload.process.held.used(), 0);
    }
}

#[test]
fn a_pod_is_never_lost_to_one_who_gives_up_as_it_is_given() {
    explore(|| {
        let scene = Scene::new(1);
        let all = vec![
            scene.request(Patience::Endless, 0),
            scene.request(Patience::None, 0),
            scene.is_ready("0"),
            scene.request(Patience::OneLook, 0),
            scene.request(Patience::Endless, 0),
        ];
        let served = Arc::clone(&scene.served);
        scene.ends(all);
        assert!(served.load(Relaxed) >= 2, "all who stayed");
    });
}

#[test]
fn whoever_a_pod_sends_back_is_served_in_the_end_and_keeps_nobody_from_it() {
    explore(|| {
        let scene = Scene::new(2);
        let all = vec![
            scene.is_ready("0"),
            scene.request(Patience::Endless, 2),
            scene.request(Patience::OneLook, 1),
            scene.is_ready("1"),
            scene.request(Patience::Endless, 0),
        ];
        let served = Arc::clone(&scene.served);
        scene.ends(all);
        assert!(served.load(Relaxed) >= 2, "all who stayed");
    });
}

#[test]
fn a_workload_that_is_removed_lets_everybody_go() {
    explore(|| {
        let scene = Scene::new(1);
        let workload = Arc::clone(&scene.workload);
        let all = vec![
            scene.request(Patience::Endless, 0),
            scene.request(Patience::Endless, 1),
            scene.is_ready("0"),
            scene.request(Patience::OneLook, 0),
            thread::spawn(move || workload.remove()),
        ];
        scene.ends(all);
    });
}
