//! The hand-over of slots in many orders: nobody gets one beyond the limit, none is lost to somebody who just gave up, and nobody
//! who stays waits for ever (which shuttle calls a deadlock).

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
};

use schedules::{Patience, explore, point};
use shuttle::{future::block_on, thread};

use super::*;
use crate::bounce::Rule;

/// The pod's slots and how many are at the model.
#[derive(Clone)]
struct Scene {
    slots: Arc<Slots>,
    at_model: Arc<AtomicU32>,
    served: Arc<AtomicU32>,
    bounced: Arc<AtomicU32>,
    limit: u32,
}

impl Scene {
    fn new(limit: u32, depth: usize) -> Self {
        Self {
            slots: Slots::new(Breaker::new(limit, depth, depth)),
            at_model: Arc::default(),
            served: Arc::default(),
            bounced: Arc::default(),
            limit,
        }
    }

    fn be_served(&self, slot: Slot) {
        let before = self.at_model.fetch_add(1, Relaxed);
        assert!(self.limit == 0 || before < self.limit, "a slot too many");
        point();
        self.at_model.fetch_sub(1, Relaxed);
        self.served.fetch_add(1, Relaxed);
        drop(slot);
    }

    /// One request, on a thread of its own.
    fn request(&self, source: Source, patience: Patience) -> thread::JoinHandle<()> {
        self.request_or_bounce(source, patience, None)
    }

    /// The same where activators can be reached.
    fn request_or_bounce(
        &self,
        source: Source,
        patience: Patience,
        elsewhere: Option<Elsewhere>,
    ) -> thread::JoinHandle<()> {
        let scene = self.clone();
        thread::spawn(move || match scene.slots.ask_or_bounce(source, elsewhere) {
            Err(Full(())) => {}
            Ok(Asked::Bounce) => {
                scene.bounced.fetch_add(1, Relaxed);
            }
            Ok(Asked::Slot(slot)) => scene.be_served(slot),
            Ok(Asked::Wait(mut waiting)) => match patience {
                Patience::None => drop(waiting),
                Patience::OneLook => {
                    let look = block_on(async {
                        let mut slot = std::pin::pin!(waiting.slot());
                        poll_fn(|cx| Poll::Ready(slot.as_mut().poll(cx))).await
                    });
                    if let Poll::Ready(slot) = look {
                        scene.be_served(slot);
                    }
                }
                Patience::Endless => scene.be_served(block_on(waiting.slot())),
            },
        })
    }

    fn open(&self) -> thread::JoinHandle<()> {
        let slots = Arc::clone(&self.slots);
        thread::spawn(move || slots.open())
    }

    /// All are gone, and so is every trace of them.
    fn ends(self, all: Vec<thread::JoinHandle<()>>) {
        for one in all {
            one.join().unwrap();
        }
        let state = self.slots.state.lock();
        let breaker = &state.breaker;
        assert_eq!((breaker.in_flight(), breaker.waiting()), (0, 0));
        assert!(state.waiters.is_empty());
    }
}

#[test]
fn a_slot_is_never_lost_to_one_who_gives_up_as_it_comes() {
    explore(|| {
        let scene = Scene::new(1, 8);
        scene.slots.open();
        let all = vec![
            scene.request(Source::Service, Patience::Endless),
            scene.request(Source::Service, Patience::None),
            scene.request(Source::Activator, Patience::OneLook),
            scene.request(Source::Activator, Patience::Endless),
        ];
        scene.ends(all);
    });
}

#[test]
fn everybody_who_came_before_the_model_was_ready_is_served_whoever_opens_and_however_often() {
    explore(|| {
        let scene = Scene::new(2, 8);
        let all = vec![
            scene.request(Source::Activator, Patience::Endless),
            scene.open(),
            scene.request(Source::Service, Patience::OneLook),
            scene.request(Source::Activator, Patience::Endless),
            scene.open(),
            scene.request(Source::Service, Patience::Endless),
        ];
        let served = Arc::clone(&scene.served);
        scene.ends(all);
        assert!(served.load(Relaxed) >= 3, "all who stayed");
    });
}

#[test]
fn whoever_finds_the_queue_full_takes_nothing_with_him() {
    explore(|| {
        let scene = Scene::new(1, 1);
        let all = vec![
            scene.request(Source::Service, Patience::Endless),
            scene.open(),
            scene.request(Source::Service, Patience::Endless),
            scene.request(Source::Service, Patience::OneLook),
            scene.request(Source::Service, Patience::Endless),
        ];
        scene.ends(all);
    });
}

#[test]
fn whoever_is_bounced_takes_nothing_with_him_and_comes_back_through_the_other_queue() {
    let elsewhere = Some(Elsewhere {
        rule: Rule {
            depth: 1,
            soft_limit: None,
        },
        draining: false,
    });
    explore(move || {
        let scene = Scene::new(1, 8);
        scene.slots.open();
        let mut all: Vec<_> = (0..3)
            .map(|_| scene.request_or_bounce(Source::Service, Patience::Endless, elsewhere))
            .collect();
        all.push(scene.request_or_bounce(Source::Activator, Patience::Endless, elsewhere));
        all.push(scene.request_or_bounce(Source::Service, Patience::OneLook, elsewhere));
        let (served, bounced) = (Arc::clone(&scene.served), Arc::clone(&scene.bounced));
        scene.ends(all);
        let (served, bounced) = (served.load(Relaxed), bounced.load(Relaxed));
        // Who looks once and goes is neither.
        let gone = 5 - served - bounced;
        assert!(gone <= 1, "{served} {bounced}");
        // The first of each source is never bounced, and may be the one who goes.
        assert!(served + gone >= 2, "{served} {gone}");
        assert!(served >= 1, "the activator's");
    });
}
