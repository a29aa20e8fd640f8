//! What users are told of their workloads, as Events on the Deployment. Listed in `docs/reference/events.md`.
//!
//! Telling costs the data path nothing: what cannot be told at once is put in a bounded queue, and left out if that is full.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use shared::TargetId;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::Caches;

/// Events that wait to be told.
const WAITING: usize = 256;
/// Limit on one write.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// The same warning is not told again so soon.
const AGAIN: Duration = Duration::from_mins(10);
/// Of one workload no more are told in this time.
const MANY: (usize, Duration) = (20, Duration::from_mins(5));
/// The longest note that Kubernetes takes (`noteLengthLimit` of `pkg/apis/events/validation`), in bytes.
const LONGEST_NOTE: usize = 1024;

/// Who tells.
const CONTROLLER: &str = "rouse.dev/activator";

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Woken,
    CannotWake,
    CannotStart,
    CannotListen,
}

impl Reason {
    fn word(self) -> &'static str {
        match self {
            Self::Woken => "Woken",
            Self::CannotWake => "CannotWake",
            Self::CannotStart => "CannotStart",
            Self::CannotListen => "CannotListen",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Woken | Self::CannotWake => "Wake",
            Self::CannotStart => "Hold",
            Self::CannotListen => "Listen",
        }
    }

    fn is_warning(self) -> bool {
        self != Self::Woken
    }
}

#[derive(Clone, Debug)]
struct News {
    target: TargetId,
    reason: Reason,
    note: String,
}

/// Where to tell. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<News>);

/// What was told and is not written yet.
#[derive(Debug)]
pub struct Queue(mpsc::Receiver<News>);

/// Both ends.
pub fn events() -> (Events, Queue) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Events(sender), Queue(receiver))
}

impl Events {
    pub(super) fn tell(&self, target: &TargetId, reason: Reason, note: String) {
        let news = News {
            target: target.clone(),
            reason,
            note,
        };
        if self.0.try_send(news).is_err() {
            tracing::debug!(%target, reason = reason.word(), "Too many Events: one is left out");
        }
    }
}

impl Queue {
    /// Writes what is told, for ever. `instance` is who this is among the activators.
    pub async fn write(mut self, client: Client, caches: Arc<Caches>, instance: String) {
        let mut limit = Limit::default();
        while let Some(news) = self.0.recv().await {
            if !limit.allows(&news, Instant::now()) {
                continue;
            }
            let Some(uid) = caches.uid_of(&news.target) else {
                continue;
            };
            let api: Api<Event> = Api::namespaced(client.clone(), news.target.namespace());
            let event = event(&news, &uid, &instance, Timestamp::now());
            let params = PostParams::default();
            let written = timeout(WRITE_LIMIT, api.create(&params, &event)).await;
            if !matches!(written, Ok(Ok(_))) {
                tracing::debug!(target = %news.target, ?written, "Cannot write an Event");
            }
        }
    }
}

/// What was told lately.
#[derive(Debug, Default)]
struct Limit(HashMap<TargetId, VecDeque<(Instant, Reason, String)>>);

impl Limit {
    fn allows(&mut self, news: &News, now: Instant) -> bool {
        self.0.retain(|_, told| {
            while told.front().is_some_and(|(at, ..)| now >= *at + AGAIN) {
                told.pop_front();
            }
            !told.is_empty()
        });
        let told = self.0.entry(news.target.clone()).or_default();
        let (most, within) = MANY;
        let lately = told.iter().filter(|(at, ..)| now < *at + within).count();
        let same =
            |(_, reason, note): &(_, Reason, String)| *reason == news.reason && *note == news.note;
        if lately >= most || news.reason.is_warning() && told.iter().any(same) {
            return false;
        }
        told.push_back((now, news.reason, news.note.clone()));
        true
    }
}

fn event(news: &News, uid: &str, instance: &str, now: Timestamp) -> Event {
    let (namespace, name) = (news.target.namespace(), news.target.name());
    let kind = if news.reason.is_warning() {
        "Warning"
    } else {
        "Normal"
    };
    Event {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            // As Kubernetes' own are named. A name has at most 253 bytes, and the number up to 33.
            name: Some(format!(
                "{}.{:x}",
                shortened(name, 200),
                now.as_nanosecond()
            )),
            ..ObjectMeta::default()
        },
        action: Some(news.reason.action().to_owned()),
        reason: Some(news.reason.word().to_owned()),
        note: Some(shortened(&news.note, LONGEST_NOTE).to_owned()),
        type_: Some(kind.to_owned()),
        event_time: Some(MicroTime(now)),
        regarding: Some(ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some("Deployment".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(shortened(instance, 128).to_owned()),
        ..Event::default()
    }
}

/// As many whole characters as fit.
fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(target: &str, reason: Reason, note: &str) -> News {
        News {
            target: target.parse().unwrap(),
            reason,
            note: note.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_warning_is_told_once_and_no_workload_tells_too_much() {
        let mut limit = Limit::default();
        let mut now = Instant::now();
        let bad = news("n/a", Reason::CannotStart, "x");
        assert!(limit.allows(&bad, now) && !limit.allows(&bad, now));
        assert!(
            limit.allows(&news("n/a", Reason::CannotStart, "y"), now),
            "another note"
        );
        assert!(
            limit.allows(&news("n/b", Reason::CannotStart, "x"), now),
            "another workload"
        );
        now += AGAIN;
        assert!(limit.allows(&bad, now));
        let woken = news("n/a", Reason::Woken, "x");
        let told = (0..100).filter(|_| limit.allows(&woken, now)).count();
        assert_eq!(told, MANY.0 - 1);
        now += MANY.1;
        assert!(limit.allows(&woken, now));
        now += AGAIN;
        assert!(limit.allows(&news("n/c", Reason::Woken, ""), now));
        assert_eq!(limit.0.len(), 1, "what is long ago is forgotten");
    }

    #[test]
    fn an_event_is_what_kubernetes_takes() {
        let long = "ö".repeat(1_000);
        let made = event(
            &news(
                &format!("n/{}", "a".repeat(250)),
                Reason::CannotStart,
                &long,
            ),
            "u-1",
            &long,
            Timestamp::UNIX_EPOCH,
        );
        assert!(made.metadata.name.unwrap().len() < 253);
        assert_eq!(made.note.unwrap().len(), LONGEST_NOTE);
        assert_eq!(made.reporting_instance.unwrap().len(), 128);
        assert_eq!(made.type_.as_deref(), Some("Warning"));
        assert_eq!(made.regarding.unwrap().uid.as_deref(), Some("u-1"));
        assert!(!Reason::Woken.is_warning());
    }

    #[tokio::test]
    async fn who_tells_never_waits() {
        let (events, _queue) = events();
        for _ in 0..2 * WAITING {
            events.tell(&"n/a".parse().unwrap(), Reason::Woken, String::new());
        }
    }
}
