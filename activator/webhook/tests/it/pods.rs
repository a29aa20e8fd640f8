//! Pods one by one: what is injected, what is left alone, what is refused.

use serde_json::{Value, json};

use crate::support::{Known, OTHER_UID, UID, ask, inject, pod, request, spec, try_ask, variable};

fn denied(pod: &Value) -> String {
    ask(&request("pods", "CREATE", pod))
        .denied
        .unwrap_or_else(|| panic!("was let in: {pod}"))
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod(&spec());
    change(&mut pod);
    pod
}

fn annotated(key: &str, value: &str) -> Value {
    with(|pod| pod["metadata"]["annotations"][key] = json!(value))
}

#[test]
fn the_sidecar_is_the_first_init_container_and_restarts_always() {
    let (injected, warnings) = inject(&with(|pod| {
        pod["spec"]["initContainers"] = json!([{"name": "fetch"}]);
    }));
    assert_eq!(warnings, Vec::<String>::new());
    let init = &injected["spec"]["initContainers"];
    assert_eq!(init[0]["name"], "queue-proxy");
    assert_eq!(init[0]["restartPolicy"], "Always");
    assert_eq!(
        init[0].get("startupProbe"),
        None,
        "it would hold up the model"
    );
    assert_eq!(init[1]["name"], "fetch");
    assert_eq!(init[0]["ports"][0]["name"], "rouse-0");
    assert_eq!(init[0]["ports"][0]["containerPort"], 8012);
    let annotations = &injected["metadata"]["annotations"];
    assert_eq!(annotations["rouse.dev/upstream-ports"], "8080");
    assert_eq!(annotations["rouse.dev/workload"], "iris");
}

#[test]
fn passes_pod_security_restricted() {
    let (injected, _) = inject(&pod(&spec()));
    assert_eq!(
        injected["spec"]["initContainers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": 65532,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
}

#[test]
fn who_is_not_opted_in_is_let_through_untouched() {
    let mut cases = vec![
        with(|pod| pod["metadata"]["labels"]["rouse.dev/enabled"] = json!("false")),
        with(|pod| pod["metadata"]["labels"] = json!(null)),
    ];
    // Even with what would be refused otherwise.
    cases[0]["spec"]["hostNetwork"] = json!(true);
    for case in cases {
        let answer = ask(&request("pods", "CREATE", &case));
        assert_eq!((answer.denied, answer.patch), (None, None));
    }
    let ours = {
        let mut review = request("pods", "CREATE", &pod(&spec()));
        review["request"]["namespace"] = json!("rouse-system");
        ask(&review)
    };
    assert_eq!(ours.patch, None, "our own namespace");
    let updated = ask(&request("pods", "UPDATE", &pod(&spec())));
    assert_eq!(updated.patch, None, "containers cannot be added then");
}

#[test]
fn a_pod_of_nobody_is_left_alone_with_a_warning() {
    let owner = |owner: Value| with(|pod| pod["metadata"]["ownerReferences"] = owner);
    for case in [
        owner(json!(null)),
        owner(
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "iris", "uid": "1", "controller": true}]),
        ),
        owner(
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "iris", "uid": "1", "controller": true}]),
        ),
        owner(
            json!([{"apiVersion": "x.dev/v1", "kind": "StatefulSet", "name": "iris", "uid": "1", "controller": true}]),
        ),
    ] {
        let answer = ask(&request("pods", "CREATE", &case));
        assert_eq!((answer.denied, answer.patch), (None, None));
        assert!(
            answer.warnings[0].contains("belongs to no Deployment"),
            "{:?}",
            answer.warnings
        );
    }
}

#[test]
fn the_workload_is_the_owner_without_the_templates_hash() {
    let (injected, _) = inject(&with(|pod| {
        pod["metadata"]["labels"]["pod-template-hash"] = json!("ab");
        pod["metadata"]["ownerReferences"][0]["name"] = json!("a-ab-ab");
    }));
    assert_eq!(
        injected["metadata"]["annotations"]["rouse.dev/workload"],
        "a-ab"
    );
    assert_eq!(variable(&injected, "ROUSE_TARGET").unwrap(), "models/a-ab");
}

#[test]
fn request_ports_come_from_the_annotation_then_from_names_then_the_first() {
    let ports = json!([
        {"name": "metrics", "containerPort": 9090},
        {"name": "quic", "containerPort": 8443, "protocol": "UDP"},
        {"name": "grpc-predict", "containerPort": 9000},
        {"name": "http1", "containerPort": 8080},
    ]);
    let of = |annotation: Option<&str>, ports: &Value| {
        let (injected, _) = inject(&with(|pod| {
            pod["spec"]["containers"][0]["ports"] = ports.clone();
            if let Some(value) = annotation {
                pod["metadata"]["annotations"]["rouse.dev/ports"] = json!(value);
            }
        }));
        injected["metadata"]["annotations"]["rouse.dev/upstream-ports"].clone()
    };
    assert_eq!(of(None, &ports), "9000,8080");
    assert_eq!(of(Some("http1, 7000"), &ports), "8080,7000");
    assert_eq!(
        of(
            None,
            &json!([{"name": "metrics", "containerPort": 9090}, {"containerPort": 1}])
        ),
        "9090"
    );
    assert_eq!(of(Some("7000"), &json!(null)), "7000");
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let ports = |ports: Value| with(|pod| pod["spec"]["containers"][0]["ports"] = ports);
    let many = json!(
        (0..9)
            .map(|i| json!({"name": format!("http-{i}"), "containerPort": 9100 + i}))
            .collect::<Vec<_>>()
    );
    for (case, parts) in [
        (
            ports(json!([])),
            vec!["container model names no TCP port", "rouse.dev/ports"],
        ),
        (
            ports(json!([{"name": "https", "containerPort": 443}])),
            vec!["port https of container model speaks TLS"],
        ),
        (
            ports(json!([{"name": "http", "containerPort": 8012}])),
            vec!["container model uses port 8012", "8012, 8022, 8030, 9091"],
        ),
        (
            ports(json!([{"name": "http", "containerPort": 80}, {"containerPort": 9091}])),
            vec!["uses port 9091"],
        ),
        (
            ports(json!([{"name": "rouse-0", "containerPort": 80}])),
            vec!["a port named rouse-0", "rename"],
        ),
        (ports(many), vec!["9 request ports", "at most 8"]),
        (
            annotated("rouse.dev/ports", "grpc"),
            vec!["\"grpc\" is neither", "of container model"],
        ),
        (
            annotated("rouse.dev/ports", "8030"),
            vec!["has port 8030", "sidecar needs"],
        ),
        (
            annotated("rouse.dev/ports", "8080;1"),
            vec!["rouse.dev/ports: \"8080;1\""],
        ),
        (
            annotated("rouse.dev/container-concurrency", "many"),
            vec!["rouse.dev/container-concurrency: \"many\""],
        ),
        (
            annotated("rouse.dev/drain-grace", "never"),
            vec!["1s to 24h"],
        ),
        (
            with(|pod| pod["spec"]["hostNetwork"] = json!(true)),
            vec!["hostNetwork: true", "remove it"],
        ),
        (
            with(|pod| pod["spec"]["os"] = json!({"name": "windows"})),
            vec!["linux"],
        ),
        (
            with(|pod| pod["spec"]["containers"] = json!([])),
            vec!["no container"],
        ),
        (
            with(|pod| pod["spec"]["containers"][0]["name"] = json!("queue-proxy")),
            vec!["named queue-proxy", "rename"],
        ),
        (
            with(
                |pod| pod["spec"]["initContainers"] = json!([{"name": "other", "restartPolicy": "Always", "ports": [{"containerPort": 8022}]}]),
            ),
            vec!["container other uses port 8022"],
        ),
    ] {
        let told = denied(&case);
        for part in parts {
            assert!(told.contains(part), "{part:?} is not in {told:?}");
        }
        assert!(!told.contains('\n'), "{told}");
    }
}

#[test]
fn how_a_workload_is_scaled_keeps_no_pod_from_starting() {
    let (injected, _) = inject(&annotated("autoscaling.knative.dev/min-scale", "x"));
    assert_eq!(injected["spec"]["initContainers"][0]["name"], "queue-proxy");
}

#[test]
fn the_workloads_own_annotations_count_where_the_templates_are_silent() {
    let mut known = Known::default();
    let mut set =
        |key: &str, value: &str| known.annotations.insert(key.to_owned(), value.to_owned());
    set("rouse.dev/container-concurrency", "7");
    set("rouse.dev/probe-paths", "/never");
    let pod = annotated("rouse.dev/probe-paths", "/healthz,/metrics");
    let answer = try_ask(&request("pods", "CREATE", &pod), &known).unwrap();
    let injected = answer.apply(&pod);
    assert_eq!(
        variable(&injected, "ROUSE_CONTAINER_CONCURRENCY").unwrap(),
        "7"
    );
    assert_eq!(
        variable(&injected, "ROUSE_PROBE_PATH").unwrap(),
        "/healthz,/metrics"
    );
}

#[test]
fn the_sidecar_is_told_of_openais_errors_only_where_they_are_asked_for() {
    for (value, told) in [("true", Some("true")), ("false", None)] {
        let (injected, warnings) = inject(&annotated("rouse.dev/openai-errors", value));
        let given = variable(&injected, "ROUSE_OPENAI_ERRORS");
        assert_eq!((given.as_deref(), warnings), (told, vec![]));
    }
}

#[test]
fn the_sidecar_is_given_the_form_of_its_request_log() {
    // Kubernetes would put the value of a variable in the place of $(NAME).
    let (injected, warnings) = inject(&annotated("rouse.dev/request-log", "{path} $(HOME)"));
    let given = variable(&injected, "ROUSE_REQUEST_LOG");
    assert_eq!(
        (given.as_deref(), warnings),
        (Some("{path} $$(HOME)"), vec![])
    );
    let (injected, _) = inject(&annotated("rouse.dev/ready-path", "/up"));
    assert_eq!(variable(&injected, "ROUSE_REQUEST_LOG"), None);
}

#[test]
fn a_readiness_probe_that_the_sidecar_can_ask_is_handed_over() {
    let with_probe = |probe: Value| {
        let (injected, warnings) = inject(&with(|pod| {
            pod["spec"]["containers"][0]["readinessProbe"] = probe;
            pod["metadata"]["annotations"]["rouse.dev/ready-path"] = json!("/up");
        }));
        let handed: Option<Value> = variable(&injected, "ROUSE_READINESS_PROBE")
            .map(|json| serde_json::from_str(&json.replace("$$", "$")).unwrap());
        let kept = injected["spec"]["containers"][0]
            .get("readinessProbe")
            .cloned();
        assert_eq!(handed.is_some(), kept.is_none());
        assert_eq!(
            variable(&injected, "ROUSE_READY_PATH").is_some(),
            handed.is_none()
        );
        (handed, warnings)
    };
    for (probe, handed) in [
        (
            json!({"httpGet": {"path": "/r", "port": "http", "httpHeaders": [{"name": "A", "value": "$(B)"}]}, "periodSeconds": 3}),
            json!({"httpGet": {"path": "/r", "port": 8080, "httpHeaders": [{"name": "A", "value": "$(B)"}]}, "periodSeconds": 3}),
        ),
        (
            json!({"tcpSocket": {"port": 9000, "host": "localhost"}, "failureThreshold": 2}),
            json!({"tcpSocket": {"port": 9000}, "failureThreshold": 2}),
        ),
        (
            json!({"grpc": {"port": 9000, "service": "s"}}),
            json!({"grpc": {"port": 9000, "service": "s"}}),
        ),
        (
            json!({"httpGet": {"path": "/up", "port": 8443, "scheme": "HTTPS"}}),
            json!({"httpGet": {"path": "/up", "port": 8443, "scheme": "HTTPS"}}),
        ),
    ] {
        assert_eq!(with_probe(probe), (Some(handed), vec![]));
    }
    for (probe, why) in [
        (json!({"exec": {"command": ["true"]}}), "is exec"),
        (
            json!({"httpGet": {"port": 80, "host": "example.com"}}),
            "another host",
        ),
        (json!({"tcpSocket": {"port": "nope"}}), "names port nope"),
    ] {
        let (handed, warnings) = with_probe(probe);
        assert_eq!(handed, None);
        assert!(
            warnings[0].contains(why) && warnings[0].contains("asks /up"),
            "{warnings:?}"
        );
    }
}

#[test]
fn the_hooks_carry_a_token_that_only_the_pod_knows() {
    let (injected, _) = inject(&pod(&spec()));
    let token = variable(&injected, "ROUSE_LIFECYCLE_TOKEN").unwrap();
    assert_eq!(token, UID.replace('-', ""));
    let path = |container: &Value| container["lifecycle"]["preStop"]["httpGet"].clone();
    assert_eq!(
        path(&injected["spec"]["initContainers"][0]),
        json!({"path": format!("/{token}/drain"), "port": 8022})
    );
    assert_eq!(
        path(&injected["spec"]["containers"][0]),
        json!({"path": format!("/{token}/wait-for-drain"), "port": 8022})
    );
    let mut review = request("pods", "CREATE", &pod(&spec()));
    review["request"]["uid"] = json!("1");
    assert!(
        try_ask(&review, &Known::default()).is_err(),
        "too short to be secret"
    );
}

#[test]
fn a_grace_period_that_is_raised_for_the_drain_does_not_delay_restarts_of_what_hangs() {
    let with_grace = |grace: Value| {
        inject(&with(|pod| {
            pod["spec"]["terminationGracePeriodSeconds"] = grace;
            pod["spec"]["initContainers"] = json!([
                {"name": "helper", "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 1}}},
            ]);
            pod["spec"]["containers"][0]["startupProbe"] = json!({"tcpSocket": {"port": 8080}});
            pod["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 8080}});
            let own = json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 7});
            let other = json!({"name": "other", "livenessProbe": own});
            pod["spec"]["containers"].as_array_mut().unwrap().push(other);
        }))
        .0["spec"]
            .clone()
    };
    let seconds = |probe: &Value| probe["terminationGracePeriodSeconds"].clone();
    for (given, kept) in [(json!(null), json!(30)), (json!(30), json!(30))] {
        let spec = with_grace(given);
        assert_eq!(spec["terminationGracePeriodSeconds"], 315);
        assert_eq!(spec["initContainers"][1]["name"], "helper");
        let model = &spec["containers"][0];
        for probe in [
            &spec["initContainers"][1]["livenessProbe"],
            &model["startupProbe"],
            &model["livenessProbe"],
        ] {
            assert_eq!(seconds(probe), kept, "{probe}");
        }
        let other = &spec["containers"][1]["livenessProbe"];
        assert_eq!(seconds(other), 7, "the user's own stays");
    }
    // What is not raised delays nothing.
    let spec = with_grace(json!(600));
    assert_eq!(
        seconds(&spec["containers"][0]["livenessProbe"]),
        Value::Null
    );
}

#[test]
fn a_users_own_pre_stop_and_second_container_are_left_alone_with_a_warning() {
    let own = json!({"preStop": {"exec": {"command": ["sleep", "5"]}}});
    let (injected, warnings) = inject(&with(|pod| {
        pod["spec"]["containers"][0]["lifecycle"] = own.clone();
        pod["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "logger"}));
    }));
    assert_eq!(injected["spec"]["containers"][0]["lifecycle"], own);
    assert_eq!(injected["spec"]["containers"][1], json!({"name": "logger"}));
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("logger is left alone"), "{warnings:?}");
    assert!(warnings[1].contains("own preStop"), "{warnings:?}");
}

#[test]
fn the_proxy_of_a_mesh_that_was_put_first_is_not_taken_for_the_model() {
    let (plain, _) = inject(&pod(&spec()));
    let mesh = json!({
        "name": "linkerd-proxy",
        "ports": [{"name": "linkerd-proxy", "containerPort": 4143}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 4191}},
    });
    let (injected, _) = inject(&with(|pod| {
        let containers = pod["spec"]["containers"].as_array_mut().unwrap();
        containers.insert(0, mesh.clone());
    }));
    assert_eq!(injected["spec"]["containers"][0], mesh);
    for part in [
        "/spec/containers",
        "/metadata/annotations/rouse.dev~1upstream-ports",
    ] {
        let of = |pod: &Value| pod.pointer(part).unwrap().clone();
        let ours = match of(&injected) {
            Value::Array(all) => Value::Array(all[1..].to_vec()),
            other => other,
        };
        assert_eq!(ours, of(&plain), "{part}");
    }
}

#[test]
fn a_pod_that_has_its_sidecar_stays_as_it_is() {
    let (injected, _) = inject(&pod(&spec()));
    let mut again = request("pods", "CREATE", &injected);
    again["request"]["uid"] = json!(OTHER_UID);
    let answer = ask(&again);
    assert_eq!((answer.denied, answer.patch), (None, None));
    // A copy of only the container is somebody's mistake, not ours.
    let half =
        with(|pod| pod["spec"]["initContainers"] = injected["spec"]["initContainers"].clone());
    assert!(denied(&half).contains("named queue-proxy"));
}

#[test]
fn a_sidecar_is_told_where_the_activators_are_before_there_is_any_service() {
    let of = |annotations: &[(&str, &str)], name: &str| {
        let (injected, warnings) = inject(&with(|pod| {
            for (key, value) in annotations {
                pod["metadata"]["annotations"][*key] = json!(value);
            }
        }));
        assert_eq!(warnings, Vec::<String>::new());
        variable(&injected, name)
    };
    let there = "iris-rouse-relay.models.svc:8012";
    assert_eq!(of(&[], "ROUSE_BOUNCE_TO").as_deref(), Some(there));
    let two = of(&[("rouse.dev/ports", "8080,9000")], "ROUSE_BOUNCE_TO");
    let both = format!("{there},iris-rouse-relay.models.svc:8013");
    assert_eq!(two, Some(both));
    assert_eq!(
        of(&[("rouse.dev/bounce", "false")], "ROUSE_BOUNCE_TO"),
        None
    );
    let bounced = of(&[("rouse.dev/bounce", "true")], "ROUSE_BOUNCE_TO");
    assert_eq!(bounced.as_deref(), Some(there));

    let soft = |annotations: &[(&str, &str)]| of(annotations, "ROUSE_SOFT_LIMIT").unwrap();
    assert_eq!(soft(&[]), "200");
    assert_eq!(soft(&[("autoscaling.knative.dev/target", "30")]), "60");
    assert_eq!(soft(&[("rouse.dev/soft-limit", "0")]), "0");
    // How it is scaled keeps no pod from being made.
    assert_eq!(soft(&[("autoscaling.knative.dev/target", "many")]), "200");

    let long = "a".repeat(60);
    let (injected, _) = inject(&with(|pod| {
        pod["metadata"]["ownerReferences"][0]["name"] = json!(format!("{long}-7d9c5b8f6d"));
    }));
    assert_eq!(
        variable(&injected, "ROUSE_BOUNCE_TO"),
        None,
        "no name for it"
    );
}
