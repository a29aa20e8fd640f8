//! What was learned of workloads, kept across restarts: in a few `ConfigMap`s of our own namespace, an entry for each workload.
//!
//! What must stay true: only the leader writes; what cannot be read or written costs knowledge and nothing else, so that neither
//! a start nor a decision ever waits for it; the entry of a workload that is gone goes too. An entry is some 150 bytes, at most
//! a thousand, and a `ConfigMap` holds a MiB: the eight of them are enough for eight thousand workloads at the very least.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use autoscaler_core::Learned;
use dashmap::DashMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Error,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use kubernetes::names;
use serde_json::{Value, json};
use shared::TargetId;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::gate::{Denied, Gate};
use crate::Controller;

/// `ConfigMap`s that entries are spread over, by a hash of whose they are.
const SHARDS: u64 = 8;
/// How often what is new is written: one write for all that is in one of them.
const WRITES: Duration = Duration::from_secs(10);
/// How often entries are looked through for those of workloads that are gone.
const TIDIES: Duration = Duration::from_mins(10);
/// How often reading is tried, and the pause between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// For so long something new is kept while another one leads: who leads has learned the same, unless it is going.
const TAKEOVER: Duration = Duration::from_mins(1);
/// Bytes of a `ConfigMap`'s key at most. A workload whose names are longer is not kept.
const MAX_KEY: usize = 253;
/// Limit on one question or write.
const LIMIT: Duration = Duration::from_secs(5);

/// Everything that was kept, by workload. What cannot be read is left out with a warning, after some tries.
pub(crate) async fn read(client: &Client, namespace: &str) -> HashMap<TargetId, Learned> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut all = HashMap::new();
    for shard in 0..SHARDS {
        let name = name(shard);
        let mut tries = 0;
        let data = loop {
            let error = match timeout(LIMIT, maps.get_opt(&name)).await {
                Ok(Ok(map)) => break map.and_then(|map| map.data).unwrap_or_default(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tries += 1;
            if tries >= TRIES {
                tracing::warn!(
                    config_map = name,
                    error,
                    "What was learned of workloads cannot be read"
                );
                break BTreeMap::default();
            }
            sleep(PAUSE).await;
        };
        for (key, value) in data {
            match entry(&key, &value) {
                Ok((target, learned)) => {
                    all.insert(target, learned);
                }
                Err(error) => {
                    tracing::warn!(
                        config_map = name,
                        key,
                        error,
                        "An entry cannot have been learned; it is left out"
                    );
                }
            }
        }
    }
    all
}

/// What is to be written, and since when.
type Pending = BTreeMap<TargetId, (Instant, Learned)>;

/// Writes what is new while we lead, for ever.
pub(crate) async fn keep(
    client: Client,
    namespace: String,
    gate: Gate,
    controllers: Arc<DashMap<TargetId, Controller>>,
) {
    let maps = Api::namespaced(client, &namespace);
    let mut tick = interval(WRITES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since_tidy = Duration::ZERO;
    // What could not be written is tried again, unless there is something newer.
    let mut pending = Pending::new();
    loop {
        tick.tick().await;
        let now = Instant::now();
        for controller in controllers.iter() {
            if let Some(learned) = controller.value().news()
                && key(controller.key()).len() <= MAX_KEY
            {
                pending.insert(controller.key().clone(), (now, learned));
            }
        }
        if gate.tenure().is_none() {
            pending.retain(|_, (since, _)| now.saturating_duration_since(*since) < TAKEOVER);
            continue;
        }
        for (shard, entries) in by_shard(std::mem::take(&mut pending)) {
            let data = entries.iter().filter_map(|(target, (_, learned))| {
                let value = serde_json::to_string(learned).ok()?;
                Some((key(target), Value::String(value)))
            });
            let data = data.collect();
            if !write(&gate, &maps, shard, data).await {
                pending.extend(entries);
            }
        }
        since_tidy += WRITES;
        if since_tidy >= TIDIES {
            since_tidy = Duration::ZERO;
            tidy(&gate, &maps, &controllers).await;
        }
    }
}

/// Removes entries of workloads that are gone.
async fn tidy(gate: &Gate, maps: &Api<ConfigMap>, controllers: &DashMap<TargetId, Controller>) {
    if controllers.is_empty() {
        // Nobody was looked for yet.
        return;
    }
    for shard in 0..SHARDS {
        let Ok(Ok(Some(map))) = timeout(LIMIT, maps.get_opt(&name(shard))).await else {
            continue;
        };
        let is_there = |target: TargetId| controllers.contains_key(&target);
        let gone = gone(map.data.unwrap_or_default().into_keys(), is_there);
        if !gone.is_empty() {
            write(gate, maps, shard, gone).await;
        }
    }
}

/// Entries to take out: of nobody, or of somebody who is gone.
fn gone(
    keys: impl Iterator<Item = String>,
    is_there: impl Fn(TargetId) -> bool,
) -> serde_json::Map<String, Value> {
    keys.filter(|key| !target(key).is_some_and(&is_there))
        .map(|key| (key, Value::Null))
        .collect()
}

/// Merges `data` into a shard, which is made if it is not there. False if that should be tried again.
async fn write(
    gate: &Gate,
    maps: &Api<ConfigMap>,
    shard: u64,
    data: serde_json::Map<String, Value>,
) -> bool {
    let name = name(shard);
    let params = PatchParams {
        field_manager: Some(names::AUTOSCALER_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "data": data }));
    let mut outcome = gate.write(maps.patch(&name, &params, &patch)).await;
    if let Err(Denied::Failed(Error::Api(status))) = &outcome
        && status.code == 404
    {
        let (new, params_of_new) = (empty(&name), PostParams::default());
        let made = gate.write(maps.create(&params_of_new, &new)).await;
        outcome = match made {
            Ok(_) => gate.write(maps.patch(&name, &params, &patch)).await,
            Err(denied) => Err(denied),
        };
    }
    let Err(denied) = outcome else {
        return true;
    };
    match denied {
        // Too large, or not allowed: trying the same again does not help.
        Denied::Failed(Error::Api(status))
            if (400..500).contains(&status.code) && status.code != 409 && status.code != 429 =>
        {
            tracing::warn!(
                config_map = name,
                error = status.message,
                "What was learned of workloads is not kept"
            );
            true
        }
        Denied::Failed(error) => {
            tracing::debug!(config_map = name, %error, "What was learned is kept later");
            false
        }
        Denied::NotLeader | Denied::Timeout => false,
    }
}

fn empty(name: &str) -> ConfigMap {
    let labels = [(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned())];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn by_shard(all: Pending) -> BTreeMap<u64, Pending> {
    let mut shards = BTreeMap::<u64, Pending>::new();
    for (target, learned) in all {
        shards
            .entry(shard(&target))
            .or_default()
            .insert(target, learned);
    }
    shards
}

fn name(shard: u64) -> String {
    format!("{}-{shard}", names::LEARNED)
}

/// Where a workload's entry is. It must be the same in every version: FNV-1a with 64 bits.
fn shard(target: &TargetId) -> u64 {
    let hash = key(target)
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    hash % SHARDS
}

/// A workload as a `ConfigMap`'s key: no name of Kubernetes has an underscore, and keys may.
fn key(target: &TargetId) -> String {
    format!("{}_{}", target.namespace(), target.name())
}

fn target(key: &str) -> Option<TargetId> {
    let (namespace, name) = key.split_once('_')?;
    TargetId::new(namespace, name).ok()
}

/// An entry, or what is wrong with it.
fn entry(key: &str, value: &str) -> Result<(TargetId, Learned), String> {
    let target = target(key).ok_or("no namespace and name")?;
    let learned: Learned = serde_json::from_str(value).map_err(|error| error.to_string())?;
    if learned.is_sound() {
        Ok((target, learned))
    } else {
        Err("numbers out of range".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use autoscaler_core::StartClass;

    use super::*;

    fn id(text: &str) -> TargetId {
        text.parse().unwrap()
    }

    fn learned() -> Learned {
        let mut learned = Learned::default();
        let class = StartClass {
            template: "5d4".into(),
            image_present: true,
        };
        learned.start(&class, Duration::from_secs(40));
        learned
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let value = serde_json::to_string(&learned()).unwrap();
        let target = id("models/iris.v1");
        assert_eq!(key(&target), "models_iris.v1");
        assert_eq!(entry(&key(&target), &value), Ok((target, learned())));
    }

    #[test]
    fn a_full_entry_is_small_enough_for_eight_thousand_workloads() {
        let mut full = Learned::default();
        for number in 0..10u32 {
            let class = StartClass {
                template: format!("6f9d8c7b5-{number}").into(),
                image_present: false,
            };
            for _ in 0..20 {
                full.start(&class, Duration::from_mins(10));
            }
        }
        let value = serde_json::to_string(&full).unwrap();
        let bytes = value.len() + 63 + 1 + 63;
        assert!(bytes < 1_000, "{bytes}: {value}");
    }

    #[test]
    fn what_cannot_have_been_learned_is_told() {
        let good = serde_json::to_string(&learned()).unwrap();
        let bad = good.replace("[40000]", "[]");
        for (key, value, says) in [
            ("iris", good.as_str(), "no namespace and name"),
            ("n_Iris!", &good, "no namespace and name"),
            ("n_iris", "{", "EOF"),
            ("n_iris", &bad, "numbers out of range"),
        ] {
            let error = entry(key, value).unwrap_err();
            assert!(error.contains(says), "{key} {value}: {error}");
        }
        assert_eq!(
            entry("n_iris", "{}").unwrap(),
            (id("n/iris"), Learned::default()),
            "what a later version leaves out is nothing"
        );
    }

    #[test]
    fn entries_stay_where_they_are_and_are_spread() {
        assert_eq!(shard(&id("default/iris")), shard(&id("default/iris")));
        let now = Instant::now();
        let all = (0..800).map(|n| (id(&format!("n/m-{n}")), (now, learned())));
        let shards = by_shard(all.collect());
        assert_eq!(shards.len(), 8);
        assert!(shards.values().all(|entries| entries.len() > 50));
        // These must never change: they are where entries lie on clusters.
        assert_eq!([shard(&id("default/iris")), shard(&id("a/b"))], KNOWN);
    }

    const KNOWN: [u64; 2] = [4, 1];

    #[test]
    fn entries_of_who_is_gone_are_taken_out() {
        let keys = ["n_here", "n_gone", "damaged"].map(str::to_owned);
        let gone = gone(keys.into_iter(), |target| target.name() == "here");
        assert_eq!(gone.keys().collect::<Vec<_>>(), ["damaged", "n_gone"]);
        assert!(gone.values().all(Value::is_null));
    }
}
