use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::join_all;

use super::*;
use crate::BoxFuture;

/// Answers after a while, and remembers how often and by how many at once it was asked.
#[derive(Debug, Default)]
struct Fake {
    answer: Mutex<Option<Answer>>,
    takes: Duration,
    asked: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Sources for Fake {
    fn namespace_of(&self, _: IpAddr) -> BoxFuture<'_, Answer> {
        Box::pin(async {
            self.asked.fetch_add(1, Relaxed);
            let now = self.now.fetch_add(1, Relaxed) + 1;
            self.most.fetch_max(now, Relaxed);
            sleep(self.takes).await;
            self.now.fetch_sub(1, Relaxed);
            self.answer.lock().clone().unwrap_or(Ok(None))
        })
    }
}

struct Bed {
    fake: Arc<Fake>,
    lookups: Lookups,
}

impl Bed {
    fn new(takes: Duration) -> Self {
        let fake = Arc::new(Fake {
            takes,
            ..Fake::default()
        });
        let lookups = Lookups::new(Arc::clone(&fake) as _);
        Self { fake, lookups }
    }

    fn answers(&self, namespace: Option<&str>) {
        *self.fake.answer.lock() = Some(Ok(namespace.map(Into::into)));
    }

    async fn find(&self, last: u32) -> Option<String> {
        let found = self.lookups.find(ip(last)).await.unwrap();
        found.map(|name| name.to_string())
    }

    fn asked(&self) -> usize {
        self.fake.asked.load(Relaxed)
    }
}

fn ip(last: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0x0a00_0000 + last).into()
}

const QUICK: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn a_thousand_connections_of_one_address_are_one_question_a_second() {
    let bed = Bed::new(QUICK);
    bed.answers(Some("a"));
    let found = join_all((0..1_000).map(|_| bed.find(1))).await;
    assert!(found.iter().all(|found| found.as_deref() == Some("a")));
    assert_eq!(bed.asked(), 1);
    // The address goes to another pod: nobody is taken for the former owner for longer than that.
    bed.answers(Some("b"));
    assert_eq!(bed.find(1).await.as_deref(), Some("a"));
    sleep(FRESH).await;
    assert_eq!(bed.find(1).await.as_deref(), Some("b"));
    assert_eq!(bed.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_addresses_are_asked_about_a_few_at_a_time_and_remembered_up_to_a_bound() {
    let bed = Bed::new(Duration::from_micros(500));
    bed.answers(Some("a"));
    let most = u32::try_from(MOST).unwrap();
    let asked = join_all((0..most + 10).map(|last| bed.lookups.find(ip(last)))).await;
    assert_eq!(asked.iter().filter(|answer| answer.is_err()).count(), 10);
    assert_eq!(bed.fake.most.load(Relaxed), AT_ONCE);
    sleep(FRESH).await;
    assert!(bed.find(most + 1).await.is_some(), "what is old gives way");
    assert_eq!(bed.lookups.0.asked.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_sends_before_its_address_is_known_is_waited_for() {
    let bed = Bed::new(QUICK);
    let known_later = async {
        sleep(Duration::from_secs(2)).await;
        bed.answers(Some("a"));
    };
    let (found, ()) = tokio::join!(bed.find(1), known_later);
    assert_eq!(found.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_known_to_be_one_after_a_few_seconds_and_questions() {
    let bed = Bed::new(QUICK);
    let began = Instant::now();
    let found = join_all((0..1_000).map(|_| bed.find(1))).await;
    assert!(found.iter().all(Option::is_none));
    assert!(began.elapsed() <= PATIENCE + QUICK, "{:?}", began.elapsed());
    assert!(bed.asked() <= 5, "{}", bed.asked());
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_an_error_in_time_and_is_not_kept() {
    let bed = Bed::new(Duration::from_mins(1));
    let began = Instant::now();
    let error = bed.lookups.find(ip(1)).await.unwrap_err();
    assert_eq!(began.elapsed(), LIMIT);
    assert!(error.to_string().contains("no answer within 2s"), "{error}");
    *bed.fake.answer.lock() = Some(Err(error));
    let mended = Bed::new(QUICK);
    *mended.fake.answer.lock() = Some(Err(SourceError {
        ip: ip(1),
        reason: "refused".into(),
    }));
    assert!(mended.lookups.find(ip(1)).await.is_err());
    mended.answers(Some("a"));
    sleep(FRESH_NOBODY).await;
    assert_eq!(mended.find(1).await.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_he_is_asked_about_takes_nobodys_turn_away() {
    let bed = Bed::new(Duration::from_millis(100));
    bed.answers(Some("a"));
    for last in 0..100 {
        let left = timeout(Duration::from_millis(1), bed.find(last)).await;
        assert!(left.is_err());
    }
    sleep(LIMIT).await;
    assert_eq!(bed.find(1_000).await.as_deref(), Some("a"));
    assert_eq!(bed.lookups.0.turns.available_permits(), AT_ONCE);
}
