//! What there is on the cluster, kept in step: small views of objects, never the objects.
//!
//! A watch that breaks is made again with a pause that grows; meanwhile what was known stays. After a restart of the API server
//! or `410 Gone` everything is listed anew and the old view is replaced at once, so that nobody sees a half.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};

/// A watch is made anew after so many seconds, and its connection given up 5 s after that if it stays silent: a connection
/// that died without a word is noticed within 35 s.
pub const WATCH_SECONDS: u32 = 30;

/// Objects of one page of a list. They are whole objects until a view was made of each: 200 Deployments took some 4 MB at a start,
/// most of which an allocator keeps. kube's own pages have 500.
pub const PAGE: u32 = 50;

/// Namespace and name.
pub type Key = (Arc<str>, Arc<str>);

/// The pauses between attempts to watch: 0.2 s, doubling to 4 s, and from the start again once anything was heard. kube's own
/// grow to half a minute and stay there for two minutes after a success, so that an API server that came back, and then says
/// `410 Gone`, would be old news for a minute and more.
#[derive(Debug, Default)]
struct Pauses(u32);

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.0.min(16))).min(LONGEST_PAUSE);
        self.0 += 1;
        // Up to a quarter less, so that those who lost the same server do not all come back in the same instant.
        let less = u32::try_from(shared::clock::micros() % 256).unwrap_or(0);
        Some(pause.saturating_sub(pause / 1024 * less))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// The views of all watched objects of one kind. Dropping it ends the watch.
#[derive(Debug)]
pub struct Cache<V> {
    inner: Arc<Inner<V>>,
    changes: watch::Receiver<Version>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner<V> {
    views: RwLock<BTreeMap<Key, Arc<V>>>,
    changed: watch::Sender<Version>,
}

/// How often anything has changed. 0: the first list is not complete yet.
type Version = u64;

impl<V: PartialEq + Send + Sync + 'static> Cache<V> {
    /// Starts to watch what `api` and `config` select. `view` makes the view of an object, or leaves it out.
    pub fn watch<K>(
        api: Api<K>,
        config: watcher::Config,
        view: impl FnMut(K) -> Option<V> + Send + 'static,
    ) -> Self
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        let stream =
            watcher(api, config.timeout(WATCH_SECONDS).page_size(PAGE)).backoff(Pauses::default());
        Self::follow(kind, stream, view)
    }

    fn follow<K: Resource + Send + 'static>(
        kind: String,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
        mut view: impl FnMut(K) -> Option<V> + Send + 'static,
    ) -> Self {
        let (versions, changes) = watch::channel(0);
        let inner = Arc::new(Inner {
            views: RwLock::new(BTreeMap::new()),
            changed: versions,
        });
        let kept = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            let mut listed = BTreeMap::new();
            let mut namespace: Arc<str> = "".into();
            let mut key = move |object: &K| key(object, &mut namespace);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(Event::Init) => listed.clear(),
                    Ok(Event::InitApply(object)) => {
                        let key = key(&object);
                        if let Some(view) = view(object) {
                            listed.insert(key, Arc::new(view));
                        }
                    }
                    Ok(Event::InitDone) => kept.replace(std::mem::take(&mut listed)),
                    Ok(Event::Apply(object)) => {
                        let key = key(&object);
                        kept.set(key, view(object));
                    }
                    Ok(Event::Delete(object)) => kept.set(key(&object), None),
                    Err(error) => {
                        tracing::warn!(kind, %error, "Cannot watch; what was known stays");
                    }
                }
            }
        });
        Self {
            inner,
            changes,
            task,
        }
    }

    /// One that is filled by hand, for tests.
    #[doc(hidden)]
    pub fn by_hand() -> (Self, Hand<V>) {
        let (versions, changes) = watch::channel(0);
        let inner = Arc::new(Inner {
            views: RwLock::new(BTreeMap::new()),
            changed: versions,
        });
        let hand = Hand(Arc::clone(&inner));
        let cache = Self {
            inner,
            changes,
            task: tokio::spawn(std::future::pending()),
        };
        (cache, hand)
    }

    /// Waits until the first list is complete.
    pub async fn complete(&self) {
        let mut changes = self.changes.clone();
        // An error means that the watch has ended, which only dropping this does.
        let _gone = changes.wait_for(|version| *version > 0).await;
    }

    /// Whether the first list is complete: before that, what is not here may well exist.
    pub fn is_complete(&self) -> bool {
        *self.changes.borrow() > 0
    }

    /// Told of every change. Changes that come close together may be told of once.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// The view of one object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        let key: Key = (namespace.into(), name.into());
        self.inner.views.read().get(&key).cloned()
    }

    /// All views, in the order of their keys.
    pub fn all(&self) -> Vec<(Key, Arc<V>)> {
        let views = self.inner.views.read();
        views
            .iter()
            .map(|(key, view)| (key.clone(), Arc::clone(view)))
            .collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.views.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Fills a cache of [`Cache::by_hand`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Hand<V>(Arc<Inner<V>>);

impl<V: PartialEq> Hand<V> {
    /// The first list is complete.
    pub fn complete(&self) {
        self.0.changed.send_modify(|version| *version += 1);
    }

    /// There is such an object now, or none any more.
    pub fn set(&self, namespace: &str, name: &str, view: Option<V>) {
        self.0.set((namespace.into(), name.into()), view);
    }
}

impl<V> Drop for Cache<V> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<V: PartialEq> Inner<V> {
    fn replace(&self, all: BTreeMap<Key, Arc<V>>) {
        *self.views.write() = all;
        self.changed.send_modify(|version| *version += 1);
    }

    fn set(&self, key: Key, view: Option<V>) {
        let mut views = self.views.write();
        let changed = match view {
            // Most updates of a pod or slice touch nothing that a view shows.
            Some(view) if views.get(&key).is_some_and(|known| **known == view) => false,
            Some(view) => {
                views.insert(key, Arc::new(view));
                true
            }
            None => views.remove(&key).is_some(),
        };
        drop(views);
        if changed {
            self.changed.send_modify(|version| *version += 1);
        }
    }
}

/// Most objects that come one after another are in the same namespace, and share its name.
fn key<K: Resource>(object: &K, last: &mut Arc<str>) -> Key {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    if **last != *namespace {
        *last = namespace.into();
    }
    (Arc::clone(last), object.name_any().into())
}

/// Waits for the next change of any of several caches, then a moment for those that come with it.
pub async fn any_change(changes: &mut [watch::Receiver<u64>], moment: Duration) {
    let waits = changes
        .iter_mut()
        .map(|one| Box::pin(async move { one.changed().await.is_ok() }));
    let (alive, ..) = futures_util::future::select_all(waits).await;
    if !alive {
        // Its cache is gone, and whoever waits here will be soon: not a reason to spin.
        std::future::pending::<()>().await;
    }
    if !moment.is_zero() {
        tokio::time::sleep(moment).await;
    }
    for one in changes {
        one.mark_unchanged();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    fn object(name: &str, value: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("n".into()),
                name: Some(name.into()),
                ..ObjectMeta::default()
            },
            data: Some([("v".to_owned(), value.to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    struct Fed {
        cache: Cache<String>,
        events: mpsc::UnboundedSender<Result<Event<ConfigMap>, watcher::Error>>,
    }

    impl Fed {
        fn new() -> Self {
            let (events, receiver) = mpsc::unbounded_channel();
            let stream = stream::unfold(receiver, |mut receiver| async move {
                Some((receiver.recv().await?, receiver))
            });
            let view = |object: ConfigMap| object.data?.remove("v").filter(|v| v != "skip");
            let cache = Cache::follow("ConfigMap".to_owned(), stream, view);
            Self { cache, events }
        }

        async fn feed(&self, events: impl IntoIterator<Item = Event<ConfigMap>>) {
            for event in events {
                self.events.send(Ok(event)).unwrap();
            }
            // Paused time moves only when all else has come to rest.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        fn seen(&self) -> Vec<String> {
            let all = self.cache.all();
            all.iter()
                .map(|((_, name), value)| format!("{name}={value}"))
                .collect()
        }
    }

    #[test]
    fn pauses_stay_short_and_begin_anew_after_a_success() {
        let mut pauses = Pauses::default();
        let all: Vec<_> = pauses.by_ref().take(40).collect();
        assert!(
            all[0] <= FIRST_PAUSE && all[0] >= FIRST_PAUSE * 3 / 4,
            "{all:?}"
        );
        assert!(
            all[20..]
                .iter()
                .all(|pause| (3..=4).contains(&pause.as_secs())),
            "{all:?}"
        );
        pauses.reset();
        assert!(pauses.next().unwrap() <= FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_list_replaces_the_old_at_once_and_not_before_it_is_complete() {
        let fed = Fed::new();
        fed.feed([Event::Init, Event::InitApply(object("a", "1"))])
            .await;
        assert!(!fed.cache.is_complete() && fed.seen().is_empty());
        fed.feed([Event::InitDone, Event::Apply(object("b", "2"))])
            .await;
        assert!(fed.cache.is_complete());
        assert_eq!(fed.seen(), ["a=1", "b=2"]);
        fed.events
            .send(Err(watcher::Error::NoResourceVersion))
            .unwrap();
        fed.feed([Event::Init, Event::InitApply(object("b", "3"))])
            .await;
        assert_eq!(fed.seen(), ["a=1", "b=2"], "the old view stays meanwhile");
        fed.feed([Event::InitDone]).await;
        assert_eq!(fed.seen(), ["b=3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_a_view_shows_is_a_change() {
        let fed = Fed::new();
        fed.feed([Event::Init, Event::InitDone, Event::Apply(object("a", "1"))])
            .await;
        let mut changes = [fed.cache.changes()];
        changes[0].mark_unchanged();
        let quiet = Duration::from_secs(1);
        fed.feed([
            Event::Apply(object("a", "1")),
            Event::Apply(object("x", "skip")),
        ])
        .await;
        assert!(
            timeout(quiet, any_change(&mut changes, Duration::ZERO))
                .await
                .is_err()
        );
        fed.feed([Event::Apply(object("a", "2"))]).await;
        assert!(
            timeout(quiet, any_change(&mut changes, Duration::ZERO))
                .await
                .is_ok()
        );
        fed.feed([Event::Delete(object("a", "2"))]).await;
        assert!(
            timeout(quiet, any_change(&mut changes, Duration::ZERO))
                .await
                .is_ok()
        );
        assert!(fed.cache.is_empty());
    }

    #[tokio::test]
    async fn one_that_is_filled_by_hand_has_what_it_was_given() {
        let (cache, hand) = Cache::by_hand();
        assert!(!cache.is_complete());
        hand.complete();
        hand.set("n", "a", Some("1"));
        assert!(cache.is_complete());
        assert_eq!(cache.get("n", "a").as_deref(), Some(&"1"));
        hand.set("n", "a", None);
        assert!(cache.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_view_is_made_of_any_more_is_gone() {
        let fed = Fed::new();
        fed.feed([Event::Init, Event::InitDone, Event::Apply(object("a", "1"))])
            .await;
        fed.feed([Event::Apply(object("a", "skip"))]).await;
        assert!(fed.seen().is_empty());
    }
}
