//! Clients that attack an activator over HTTP/2, with and without pods behind it. That the listener cuts them off in general is the
//! queue-proxy's test: both have the same one. Here it is about what is held, and who is woken.

use std::time::Duration;

use attacks::{
    Attack, Client, Fate, Outcome, Plan,
    frame::{self, END_STREAM, POST, block, headers, kind},
    malformed, run,
};
use tokio::runtime::Handle;

use crate::{
    bed::{Bed, Pod, Site, until},
    http1::{ask, get},
};

const ENHANCE_YOUR_CALM: u32 = 11;

fn plan(frames: u64) -> Plan {
    Plan {
        frames,
        pace: None,
        patience: Duration::from_secs(20),
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Attacks one workload, and has a client ask another one until that is over; at least ten times.
async fn attacked(site: &Site, other: &Site, attack: Attack, frames: u64) -> Outcome {
    let attacking = tokio::spawn(run(site.address(), attack, plan(frames)));
    let mut asked = 0;
    while !attacking.is_finished() || asked < 10 {
        assert_eq!(
            ask(other.address(), get("/", "x")).await.status,
            200,
            "{attack:?}"
        );
        asked += 1;
    }
    attacking.await.unwrap().unwrap()
}

/// Nothing is held, and no bytes are.
fn holds_nothing(site: &Site) -> bool {
    let all = format!("{:?}", site.workload);
    site.workload.held() == 0 && all.matches(" held_bytes: 0,").count() == 2
}

/// One of each kind: taken back, reset by us, never complete, and frames that carry nothing.
const ENDED: [(Attack, u64); 6] = [
    (Attack::RapidReset, 200_000),
    (Attack::MadeYouReset, 20_000),
    (Attack::Refused, 20_000),
    (Attack::Continuation, 10_000),
    (Attack::Ping, 200_000),
    (Attack::HeaderBomb, 10),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attacker_of_one_workload_is_cut_off_while_another_is_served() {
    let bed = Bed::new();
    let (site, other) = (bed.site("attacked", |_| {}), bed.site("other", |_| {}));
    let (pod, good) = (Pod::start("p", 0), Pod::start("q", 0));
    site.pods(&[&pod]);
    other.pods(&[&good]);
    site.ready().await;
    other.ready().await;
    assert_eq!(ask(other.address(), get("/", "x")).await.status, 200);
    let before = tasks();
    for (attack, most) in ENDED {
        let outcome = attacked(&site, &other, attack, most).await;
        assert!(outcome.closed, "{attack:?}: {outcome:?}");
        until("nothing of it is left", || {
            holds_nothing(&site) && pod.proxy.open() == 0
        })
        .await;
    }
    until("its tasks are gone", || tasks() < before + 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attacker_of_a_workload_that_sleeps_leaves_nothing_held() {
    let bed = Bed::new();
    let (site, other) = (bed.site("attacked", |_| {}), bed.site("other", |_| {}));
    let good = Pod::start("q", 0);
    other.pods(&[&good]);
    other.ready().await;
    for (attack, most) in ENDED {
        let outcome = attacked(&site, &other, attack, most).await;
        assert!(outcome.closed, "{attack:?}: {outcome:?}");
        until("nothing of it is held", || holds_nothing(&site)).await;
    }
    assert!(bed.scale.count() <= ENDED.len(), "one wake at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_single_bytes_is_held_up_to_its_limit_and_then_ends_its_connection() {
    let bed = Bed::new();
    let (site, other) = (bed.site("attacked", |_| {}), bed.site("other", |_| {}));
    let good = Pod::start("q", 0);
    other.pods(&[&good]);
    other.ready().await;
    let outcome = attacked(&site, &other, Attack::TinyData, 3_000_000).await;
    // What can be sent again is read ahead; then nobody reads, and h2 does not keep any number of frames. What the kernel has taken meanwhile, some
    // megabytes of frames of ten bytes, the attacker counts, too.
    assert!(outcome.closed && outcome.frames < 1_500_000, "{outcome:?}");
    let known = |(reason, _): &(u32, String)| *reason == ENHANCE_YOUR_CALM;
    assert!(outcome.goaway.as_ref().is_none_or(known), "{outcome:?}");
    until("nothing of it is held", || holds_nothing(&site)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_free_their_slots() {
    let bed = Bed::with(|c| c.serve.send = Some(Duration::from_millis(300)));
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let attacking = tokio::spawn(run(site.address(), Attack::ZeroWindow, plan(120)));
    until("they arrive", || pod.model.ids().len() >= 120).await;
    assert_eq!(ask(site.address(), get("/", "x")).await.status, 200);
    until("their slots are free", || pod.proxy.open() == 0).await;
    attacking.abort();
    until("nothing is held", || holds_nothing(&site)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_of_http_2_wake_nobody() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut client = Client::connect(site.address()).await.unwrap();
    let mut stream = 1;
    for (what, block) in malformed::requests() {
        client
            .send(&headers(stream, END_STREAM, &block))
            .await
            .unwrap();
        match client.fate(stream).await {
            Fate::Reset(_) | Fate::Answered(_) => stream += 2,
            Fate::Ended(Some(1 | 9)) => {
                client = Client::connect(site.address()).await.unwrap();
                stream = 1;
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!((bed.scale.count(), site.workload.held()), (0, 0), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_body_that_turns_out_to_be_longer_than_it_was_said_to_be_ends_its_request() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut client = Client::connect(site.address()).await.unwrap();
    let fields = [block(POST), frame::field("content-length", "5")].concat();
    client.send(&headers(1, 0, &fields)).await.unwrap();
    site.holds(1).await;
    let data = frame::frame(kind::DATA, END_STREAM, 1, b"hello!");
    client.send(&data).await.unwrap();
    assert_eq!(client.fate(1).await, Fate::Reset(1));
    until("nothing is held", || holds_nothing(&site)).await;
}
