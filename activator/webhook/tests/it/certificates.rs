//! The certificate as two activators keep it.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use webhook::certificate::{Current, Keeper, Place, State};

use crate::cluster::Cluster;

const SECRET: &str = "/api/v1/namespaces/rouse-system/secrets/rouse-webhook";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rouse";
const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/rouse";
const DAY: i64 = 86_400;
const START: i64 = 20_000 * DAY;

fn keeper(cluster: &Cluster) -> Keeper {
    Keeper::new(
        cluster.client(),
        Place::default(),
        Arc::new(Current::default()),
    )
}

fn with_configurations() -> Cluster {
    let cluster = Cluster::default();
    let webhook = |name: &str| {
        json!({
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "rouse-webhook", "namespace": "rouse-system", "path": "/mutate"}},
        })
    };
    for (path, kind) in [
        (MUTATING, "MutatingWebhookConfiguration"),
        (VALIDATING, "ValidatingWebhookConfiguration"),
    ] {
        cluster.put(
            path,
            &json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "rouse"},
                "webhooks": [webhook("a.rouse.dev"), webhook("b.rouse.dev")],
            }),
        );
    }
    cluster
}

fn state(cluster: &Cluster) -> State {
    let secret: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(cluster.get(SECRET)).unwrap();
    serde_json::from_slice(&secret.data.unwrap()["state.json"].0).unwrap()
}

fn bundles(cluster: &Cluster) -> Vec<Value> {
    [MUTATING, VALIDATING]
        .iter()
        .flat_map(|path| {
            let found = cluster.get(path);
            (0..2).map(move |index| found["webhooks"][index]["clientConfig"]["caBundle"].clone())
        })
        .collect()
}

fn expected(cluster: &Cluster) -> Value {
    json!(k8s_openapi::ByteString(
        state(cluster).bundle().into_bytes()
    ))
}

#[tokio::test]
async fn two_activators_that_start_at_once_agree_on_one_certificate() {
    let cluster = with_configurations();
    let (one, other) = (keeper(&cluster), keeper(&cluster));
    let (first, second) = tokio::join!(one.step(START), other.step(START));
    first.unwrap();
    second.unwrap();
    assert_eq!(cluster.get(SECRET)["metadata"]["resourceVersion"], "1");
    one.step(START).await.unwrap();
    assert!(
        bundles(&cluster)
            .iter()
            .all(|one| *one == expected(&cluster))
    );
    cluster.writes();
    one.step(START + 60).await.unwrap();
    other.step(START + 60).await.unwrap();
    assert_eq!(cluster.writes(), Vec::<String>::new(), "nothing is due");
}

#[tokio::test]
async fn a_renewal_is_made_once_and_both_use_it() {
    let cluster = with_configurations();
    let (one, other) = (keeper(&cluster), keeper(&cluster));
    one.step(START).await.unwrap();
    let before = state(&cluster);
    let at = START + 21 * DAY;
    let (first, second) = tokio::join!(one.step(at), other.step(at));
    first.unwrap();
    second.unwrap();
    let after = state(&cluster);
    assert_eq!(after.authorities, before.authorities);
    assert_eq!(after.serving.unwrap().made, at);
    assert_eq!(cluster.get(SECRET)["metadata"]["resourceVersion"], "2");
}

#[tokio::test]
async fn a_new_authority_is_in_the_bundle_beside_the_old_one() {
    let cluster = with_configurations();
    let keeper = keeper(&cluster);
    let mut now = START;
    while now < START + 260 * DAY {
        keeper.step(now).await.unwrap();
        now += 15 * DAY;
    }
    let state = state(&cluster);
    assert_eq!(state.authorities.len(), 2);
    assert!(
        bundles(&cluster)
            .iter()
            .all(|one| *one == expected(&cluster))
    );
}

#[tokio::test]
async fn whoever_overwrites_a_bundle_is_put_right() {
    let cluster = with_configurations();
    let keeper = keeper(&cluster);
    keeper.step(START).await.unwrap();
    let mut applied = cluster.get(MUTATING);
    applied["webhooks"][1]["clientConfig"]["caBundle"] = json!("b2xk");
    cluster.put(MUTATING, &applied);
    cluster.writes();
    keeper.step(START).await.unwrap();
    assert!(
        bundles(&cluster)
            .iter()
            .all(|one| *one == expected(&cluster))
    );
    assert_eq!(cluster.writes(), [format!("PATCH {MUTATING}")]);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_made_anew() {
    let cluster = with_configurations();
    let keeper = keeper(&cluster);
    // As in manifests that come with an empty one.
    cluster.put(
        SECRET,
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rouse-webhook"}}),
    );
    keeper.step(START).await.unwrap();
    let first = state(&cluster);
    let mut broken = cluster.get(SECRET);
    broken["data"]["state.json"] = json!("e30=");
    cluster.put(SECRET, &broken);
    keeper.step(START).await.unwrap();
    assert_ne!(state(&cluster), first);
    assert!(
        bundles(&cluster)
            .iter()
            .all(|one| *one == expected(&cluster))
    );
}

#[tokio::test]
async fn without_configurations_a_certificate_is_served_all_the_same() {
    let cluster = Cluster::default();
    let current = Arc::new(Current::default());
    let keeper = Keeper::new(cluster.client(), Place::default(), Arc::clone(&current));
    keeper.step(START).await.unwrap();
    assert!(current.is_set());
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_at_every_minute_even_where_nothing_can_be_watched() {
    let cluster = with_configurations();
    let keeper = keeper(&cluster);
    let check = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let fresh = expected(&cluster);
        assert!(bundles(&cluster).iter().all(|one| *one == fresh));
        let mut applied = cluster.get(VALIDATING);
        applied["webhooks"][0]["clientConfig"]["caBundle"] = json!(null);
        cluster.put(VALIDATING, &applied);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(bundles(&cluster).iter().all(|one| *one == fresh));
    };
    tokio::select! {
        () = keeper.run() => unreachable!("it ends with its future"),
        () = check => {}
    }
}
