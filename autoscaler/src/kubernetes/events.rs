//! Telling users of a workload what was done and what stands in the way: Events of `events.k8s.io/v1`.
//!
//! Only the leader tells. What was told is not told again for a while, and one object gets only so many: Events are for people,
//! and the API server keeps each of them for an hour.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
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
use kubernetes::names;
use shared::clock;
use tokio::sync::mpsc;

use super::gate::Gate;

/// What was told is not told again for so long.
const AGAIN: Duration = Duration::from_mins(10);
/// So many Events about one object within [`PER`].
const MOST: usize = 20;
const PER: Duration = Duration::from_mins(5);
/// Events that wait to be written. More are dropped: they are told to people, nothing depends on them.
const WAITING: usize = 256;
/// Kubernetes' limit on a note.
const NOTE_BYTES: usize = 1024;

/// Why something is told. `docs/reference/events.md` describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    ScaledUp,
    ScaledDown,
    ScaledToZero,
    Adopted,
    NotAdopted,
    GivenBack,
    NotGivenBack,
    InvalidAnnotation,
    InvalidConfig,
    RivalWriter,
    NoPortLeft,
}

impl Reason {
    #[cfg(test)]
    const ALL: [Self; 11] = [
        Self::ScaledUp,
        Self::ScaledDown,
        Self::ScaledToZero,
        Self::Adopted,
        Self::NotAdopted,
        Self::GivenBack,
        Self::NotGivenBack,
        Self::InvalidAnnotation,
        Self::InvalidConfig,
        Self::RivalWriter,
        Self::NoPortLeft,
    ];

    /// The Event's type.
    fn type_(self) -> &'static str {
        match self {
            Self::ScaledUp
            | Self::ScaledDown
            | Self::ScaledToZero
            | Self::Adopted
            | Self::GivenBack => "Normal",
            _ => "Warning",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::ScaledUp | Self::ScaledDown | Self::ScaledToZero => "Scale",
            Self::Adopted | Self::NotAdopted | Self::NoPortLeft => "Adopt",
            Self::GivenBack | Self::NotGivenBack => "GiveBack",
            Self::InvalidAnnotation | Self::InvalidConfig => "ReadSettings",
            Self::RivalWriter => "BackOff",
        }
    }
}

/// What is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Regarding {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
}

impl Regarding {
    pub(crate) fn deployment(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            api_version: "apps/v1",
            kind: "Deployment",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        }
    }

    pub(crate) fn config_map(namespace: &str, name: &str) -> Self {
        Self {
            api_version: "v1",
            kind: "ConfigMap",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: String::new(),
        }
    }
}

/// Takes what is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Events(mpsc::Sender<(Regarding, Reason, String)>);

impl Events {
    /// Starts the writer, in the name of the process `me`.
    pub(crate) fn start(client: Client, gate: Gate, me: String) -> Self {
        let (sender, mut told) = mpsc::channel::<(Regarding, Reason, String)>(WAITING);
        tokio::spawn(async move {
            let mut limiter = Limiter::default();
            while let Some((regarding, reason, note)) = told.recv().await {
                if gate.tenure().is_none()
                    || !limiter.lets(clock::since_epoch(), &regarding, reason, &note)
                {
                    continue;
                }
                let api: Api<Event> = Api::namespaced(client.clone(), &regarding.namespace);
                let event = event(&regarding, reason, &note, &me);
                let params = PostParams::default();
                if let Err(error) = gate.write(api.create(&params, &event)).await {
                    tracing::debug!(%error, ?reason, note, "Event not written");
                }
            }
        });
        Self(sender)
    }

    /// Tells.
    pub(crate) fn tell(&self, regarding: Regarding, reason: Reason, note: impl Into<String>) {
        // Full: people are told enough already.
        let _dropped = self.0.try_send((regarding, reason, note.into()));
    }
}

fn event(regarding: &Regarding, reason: Reason, note: &str, me: &str) -> Event {
    let now = Timestamp::now();
    let mut note = note.to_owned();
    note.truncate(note.floor_char_boundary(NOTE_BYTES));
    let lot = RandomState::new().hash_one(now.as_nanosecond());
    let mut name = regarding.name.clone();
    name.truncate(200);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{lot:016x}")),
            namespace: Some(regarding.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: Some(reason.action().to_owned()),
        reason: Some(format!("{reason:?}")),
        note: Some(note),
        type_: Some(reason.type_().to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(regarding.api_version.to_owned()),
            kind: Some(regarding.kind.to_owned()),
            namespace: Some(regarding.namespace.clone()),
            name: Some(regarding.name.clone()),
            uid: (!regarding.uid.is_empty()).then(|| regarding.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(format!("{}/autoscaler", names::MANAGER)),
        reporting_instance: Some(me.chars().take(128).collect()),
        ..Event::default()
    }
}

/// Namespace, name and kind.
type Object = (String, String, &'static str);

/// What was told lately.
#[derive(Debug, Default)]
struct Limiter {
    objects: HashMap<Object, VecDeque<(Duration, u64)>>,
    hasher: RandomState,
}

impl Limiter {
    fn lets(&mut self, now: Duration, regarding: &Regarding, reason: Reason, note: &str) -> bool {
        self.objects.retain(|_, told| {
            told.retain(|(at, _)| now.saturating_sub(*at) < AGAIN);
            !told.is_empty()
        });
        let key = (
            regarding.namespace.clone(),
            regarding.name.clone(),
            regarding.kind,
        );
        let told = self.objects.entry(key).or_default();
        // A scale goes up and down the same way many times, and each time is news.
        let scaled = reason.action() == "Scale";
        let hash = self.hasher.hash_one((reason, note));
        let same = !scaled && told.iter().any(|(_, known)| *known == hash);
        let lately = told
            .iter()
            .filter(|(at, _)| now.saturating_sub(*at) < PER)
            .count();
        if same || lately >= MOST {
            return false;
        }
        told.push_back((now, hash));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_same_is_told_once_in_a_while_and_an_object_gets_only_so_many() {
        let mut limiter = Limiter::default();
        let iris = Regarding::deployment("n", "iris", "u");
        assert!(limiter.lets(at(0), &iris, Reason::NotAdopted, "x"));
        assert!(!limiter.lets(at(599), &iris, Reason::NotAdopted, "x"));
        assert!(limiter.lets(at(1), &iris, Reason::NotAdopted, "y"));
        assert!(limiter.lets(at(600), &iris, Reason::NotAdopted, "x"));
        let other = Regarding::deployment("n", "other", "u");
        let told = (0..100)
            .filter(|_| limiter.lets(at(700), &other, Reason::ScaledUp, "0 to 1"))
            .count();
        assert_eq!(told, MOST);
        assert!(limiter.lets(at(700), &iris, Reason::ScaledUp, "0 to 1"));
        assert!(limiter.lets(at(1000), &other, Reason::ScaledUp, "0 to 1"));
        limiter.lets(at(9000), &iris, Reason::Adopted, "");
        assert_eq!(limiter.objects.len(), 1, "what is old is forgotten");
    }

    #[test]
    fn every_reason_is_described() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/events.md");
        let page = std::fs::read_to_string(page).unwrap();
        for reason in Reason::ALL {
            assert!(page.contains(&format!("| `{reason:?}` |")), "{reason:?}");
        }
    }

    #[test]
    fn an_event_is_as_kubernetes_takes_it() {
        let iris = Regarding::deployment("n", "iris", "u");
        let event = event(&iris, Reason::ScaledUp, &"ü".repeat(1000), "me");
        assert!(event.note.unwrap().len() <= NOTE_BYTES);
        assert_eq!(event.reason.as_deref(), Some("ScaledUp"));
        assert_eq!(event.type_.as_deref(), Some("Normal"));
        assert!(event.event_time.is_some() && event.action.is_some());
    }
}
