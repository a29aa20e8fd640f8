//! What holds for every pod.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{OTHER_UID, ask, pod, request};

fn port() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just(None),
        "(http|grpc|h2c|metrics|https)(-[a-z])?".prop_map(Some),
    ];
    let protocol = prop_oneof![Just("TCP"), Just("TCP"), Just("UDP")];
    (1_u16..10_000, name, protocol).prop_map(|(number, name, protocol)| {
        let mut port = json!({"containerPort": number, "protocol": protocol});
        if let Some(name) = name {
            port["name"] = json!(name);
        }
        port
    })
}

fn readiness() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        (1_u16..10_000).prop_map(|p| Some(
            json!({"httpGet": {"path": "/ready", "port": p}, "periodSeconds": 3})
        )),
        Just(Some(json!({"tcpSocket": {"port": "http"}}))),
        Just(Some(json!({"exec": {"command": ["true"]}}))),
    ]
}

fn lifecycle() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(json!({}))),
        Just(Some(json!({"postStart": {"exec": {"command": ["a"]}}}))),
        Just(Some(
            json!({"preStop": {"sleep": {"seconds": 3}}, "stopSignal": "SIGINT"})
        )),
    ]
}

fn container() -> impl Strategy<Value = Value> {
    (
        "[a-z]{1,8}",
        prop::collection::vec(port(), 0..4),
        readiness(),
        lifecycle(),
        any::<bool>(),
    )
        .prop_map(|(name, ports, readiness, lifecycle, new_field)| {
            let mut container =
                json!({"name": name, "image": "m", "env": [{"name": "A", "value": "$(B)"}]});
            let mut set = |key: &str, value: Option<Value>| {
                if let Some(value) = value {
                    container[key] = value;
                }
            };
            set("ports", (!ports.is_empty()).then(|| json!(ports)));
            set("readinessProbe", readiness);
            set("lifecycle", lifecycle);
            set("livenessProbe", Some(json!({"exec": {"command": ["b"]}})));
            set("fieldOfTheFuture", new_field.then(|| json!({"a": 1})));
            container
        })
}

fn any_pod() -> impl Strategy<Value = Value> {
    (
        prop::collection::vec(container(), 1..4),
        prop::option::of(prop::collection::vec(container(), 0..3)),
        prop::option::of(0_i64..1_000),
        prop::option::of(prop_oneof![
            Just("8080"),
            Just("http"),
            Just("1,2,3"),
            Just("x!")
        ]),
    )
        .prop_map(|(containers, init, grace, ports)| {
            let mut spec = json!({"containers": containers, "anotherField": [1, 2]});
            if let Some(init) = init {
                spec["initContainers"] = json!(init);
            }
            if let Some(grace) = grace {
                spec["terminationGracePeriodSeconds"] = json!(grace);
            }
            let mut pod = pod(&spec);
            if let Some(ports) = ports {
                pod["metadata"]["annotations"]["rouse.dev/ports"] = json!(ports);
            } else {
                pod["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("annotations");
            }
            pod
        })
}

/// A pod without what injection may change.
fn rest(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.remove("terminationGracePeriodSeconds");
    let main = spec["containers"][0].as_object_mut().unwrap();
    main.remove("readinessProbe");
    if let Some(lifecycle) = main.get_mut("lifecycle") {
        lifecycle.as_object_mut().unwrap().remove("preStop");
    }
    // No hooks and an empty set of hooks are one.
    if main.get("lifecycle") == Some(&json!({})) {
        main.remove("lifecycle");
    }
    let init = spec.entry("initContainers").or_insert_with(|| json!([]));
    init.as_array_mut()
        .unwrap()
        .retain(|container| container["name"] != "queue-proxy");
    for kind in ["initContainers", "containers"] {
        for container in spec[kind].as_array_mut().unwrap() {
            if let Some(probe) = container.get_mut("livenessProbe") {
                probe
                    .as_object_mut()
                    .unwrap()
                    .remove("terminationGracePeriodSeconds");
            }
        }
    }
    let annotations = pod["metadata"]
        .as_object_mut()
        .unwrap()
        .entry("annotations");
    let annotations = annotations
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .unwrap();
    annotations.remove("rouse.dev/upstream-ports");
    annotations.remove("rouse.dev/workload");
    pod
}

proptest! {
    #[test]
    fn injecting_again_changes_nothing_and_the_first_time_only_what_is_ours(pod in any_pod()) {
        let answer = ask(&request("pods", "CREATE", &pod));
        if let Some(reason) = answer.denied {
            prop_assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}");
            return Ok(());
        }
        let injected = answer.apply(&pod);
        prop_assert_eq!(rest(&injected), rest(&pod));
        let before = &pod["spec"]["containers"][0];
        let after = &injected["spec"]["containers"][0];
        if let Some(own) = before.get("lifecycle").and_then(|l| l.get("preStop")) {
            prop_assert_eq!(&after["lifecycle"]["preStop"], own);
        }
        let grace = |pod: &Value| pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
        prop_assert!(grace(&injected) >= grace(&pod), "it is never shortened");
        let restart = |pod: &Value| {
            let probe = &pod["spec"]["containers"][0]["livenessProbe"];
            probe["terminationGracePeriodSeconds"].as_i64().unwrap_or_else(|| grace(pod))
        };
        prop_assert_eq!(restart(&injected), restart(&pod).max(i64::from(grace(&injected) > grace(&pod))));

        let mut again = request("pods", "CREATE", &injected);
        again["request"]["uid"] = json!(OTHER_UID);
        let answer = ask(&again);
        prop_assert!(answer.denied.is_none());
        prop_assert!(answer.patch.is_none());
    }

    #[test]
    fn whatever_is_asked_is_answered_or_refused(text in any::<String>(), resource in "pods|services|deployments") {
        let object = json!({"metadata": {"name": text.clone(), "annotations": {"rouse.dev/ports": text}}, "spec": {}});
        let _answer = crate::support::try_ask(&request(&resource, "CREATE", &object), &crate::support::Known::default());
    }
}
