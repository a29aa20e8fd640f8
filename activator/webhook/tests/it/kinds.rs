//! Workloads, autoscalers and Services.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use webhook::{Adopted, AdoptedPort, Door, Nothing, review};

use crate::support::{Known, ask, inject, pod, request, settings, spec, try_ask};

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris", "labels": {"rouse.dev/enabled": "true"}, "annotations": {}},
        "spec": {
            "replicas": 1,
            "selector": {},
            "template": {"metadata": {"labels": {"rouse.dev/enabled": "true"}, "annotations": {}}, "spec": spec()},
        },
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = deployment();
    change(&mut object);
    object
}

#[test]
fn a_workload_with_bad_annotations_is_refused_with_every_key_value_and_range() {
    let bad = with(|d| {
        d["metadata"]["annotations"] =
            json!({"autoscaling.knative.dev/window": "5s", "autoscaling.knative.dev/target": "0"});
        d["spec"]["template"]["metadata"]["annotations"] =
            json!({"autoscaling.knative.dev/max-scale": "-1", "rouse.dev/paused": "on"});
    });
    for resource in ["deployments", "statefulsets"] {
        let told = ask(&request(resource, "CREATE", &bad)).denied.unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "autoscaling.knative.dev/max-scale: \"-1\": expected 0 <= -1 <= 2147483647",
                "autoscaling.knative.dev/target: \"0\": target 0 should be at least 0.01",
                "autoscaling.knative.dev/window: \"5s\": expected 6s <= 5s <= 1h0m0s",
                "rouse.dev/paused: \"on\": invalid value: on, allowed is true or false",
            ]
        );
    }
}

#[test]
fn a_templates_annotation_wins_over_the_workloads() {
    let good = with(|d| {
        d["metadata"]["annotations"] = json!({"autoscaling.knative.dev/min-scale": "x"});
        d["spec"]["template"]["metadata"]["annotations"] =
            json!({"autoscaling.knative.dev/min-scale": "1"});
    });
    let answer = ask(&request("deployments", "CREATE", &good));
    assert_eq!((answer.denied, answer.warnings), (None, vec![]));
}

#[test]
fn what_its_pods_would_be_refused_for_is_refused_at_once() {
    let bad = with(|d| d["spec"]["template"]["spec"]["hostNetwork"] = json!(true));
    let told = ask(&request("deployments", "CREATE", &bad)).denied.unwrap();
    assert!(told.contains("hostNetwork"), "{told}");
}

#[test]
fn what_was_wrong_before_is_a_warning_for_whoever_does_not_touch_it() {
    let bad = with(|d| d["metadata"]["annotations"] = json!({"rouse.dev/paused": "on"}));
    let mut review = request("deployments", "UPDATE", &bad);
    review["request"]["oldObject"] = bad.clone();
    review["request"]["object"]["spec"]["replicas"] = json!(3);
    let answer = ask(&review);
    assert_eq!(answer.denied, None);
    assert!(
        answer.warnings[0].starts_with("rouse.dev/paused"),
        "{answer:?}"
    );
    review["request"]["object"]["metadata"]["annotations"]["rouse.dev/paused"] = json!("off");
    assert!(ask(&review).denied.is_some(), "it is touched");
    review["request"]["oldObject"]["metadata"]["labels"] = json!({});
    review["request"]["object"] = bad;
    assert!(
        ask(&review).denied.is_some(),
        "opting in is the moment to be told"
    );
}

#[test]
fn labels_that_do_not_fit_together_are_warned_of() {
    let told = |object: &Value| {
        let answer = ask(&request("deployments", "CREATE", object));
        assert_eq!(answer.denied, None);
        answer.warnings
    };
    assert_eq!(told(&deployment()), Vec::<String>::new());
    let no_template = told(&with(|d| {
        d["spec"]["template"]["metadata"]["labels"] = json!({});
    }));
    assert!(
        no_template[0].contains("spec.template lacks label"),
        "{no_template:?}"
    );
    let only_template = told(&with(|d| d["metadata"]["labels"] = json!({})));
    assert!(
        only_template[0].contains("only spec.template"),
        "{only_template:?}"
    );
    let typo = told(&with(|d| {
        d["metadata"]["labels"]["rouse.dev/enabled"] = json!("True");
    }));
    assert!(
        typo[0].contains("the one value that counts is true"),
        "{typo:?}"
    );
    let misplaced = told(&with(|d| {
        d["metadata"]["annotations"]["rouse.dev/ports"] = json!("8080");
    }));
    assert!(
        misplaced[0].contains("set it on spec.template"),
        "{misplaced:?}"
    );
    let unknown = told(&with(|d| {
        d["metadata"]["annotations"]["rouse.dev/prots"] = json!("8080");
    }));
    assert!(unknown[0].contains("no such setting"), "{unknown:?}");
}

#[test]
fn a_template_written_from_an_injected_pod_is_taken() {
    let (injected, _) = inject(&pod(&spec()));
    let object = with(|d| d["spec"]["template"]["spec"] = injected["spec"].clone());
    assert_eq!(ask(&request("deployments", "CREATE", &object)).denied, None);
}

#[test]
fn an_autoscaler_for_a_workload_that_rouse_scales_is_refused() {
    let of = |version: &str, kind: &str, name: &str| {
        json!({
            "metadata": {"name": "hpa"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": name}},
        })
    };
    let known = Known {
        opted_in: vec!["models/iris".parse().unwrap()],
        ..Known::default()
    };
    let denied = |object: &Value| {
        try_ask(
            &request("horizontalpodautoscalers", "CREATE", object),
            &known,
        )
        .unwrap()
        .denied
    };
    let told = denied(&of("apps/v1", "Deployment", "iris")).unwrap();
    assert!(
        told.contains("Deployment models/iris") && told.contains("fight"),
        "{told}"
    );
    for free in [
        of("apps/v1", "Deployment", "other"),
        of("x.dev/v1", "Deployment", "iris"),
        of("v1", "ReplicationController", "iris"),
        json!({"metadata": {"name": "hpa", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": of("apps/v1", "Deployment", "iris")["spec"]}),
        json!({"metadata": {}}),
    ] {
        assert_eq!(denied(&free), None, "{free}");
    }
}

fn adopted() -> Known {
    let port = |port, was, index| AdoptedPort { port, was, index };
    let ports = vec![
        port(80, IntOrString::Int(8080), 0),
        port(81, IntOrString::String("grpc".to_owned()), 1),
        port(82, IntOrString::Int(82), 2),
    ];
    Known {
        adopted: [("models/iris".to_owned(), Adopted { ports })].into(),
        ..Known::default()
    }
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "iris"},
        "spec": {"selector": {"app": "iris"}, "ports": [
            {"name": "udp", "port": 80, "protocol": "UDP", "targetPort": 8080},
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080},
            {"name": "grpc", "port": 81, "targetPort": "grpc"},
            {"name": "plain", "port": 82},
            {"name": "new", "port": 83, "targetPort": 8080},
        ]},
    })
}

#[test]
fn an_old_target_port_that_is_written_back_becomes_ours_again() {
    let answer = try_ask(&request("services", "UPDATE", &service()), &adopted()).unwrap();
    let mut expected = service();
    for (place, name) in [(1, "rouse-0"), (2, "rouse-1"), (3, "rouse-2")] {
        expected["spec"]["ports"][place]["targetPort"] = json!(name);
    }
    let stored = answer.apply(&service());
    assert_eq!(stored, expected);
    let again = try_ask(&request("services", "UPDATE", &stored), &adopted()).unwrap();
    assert_eq!(again.patch, None);
}

#[test]
fn other_writes_to_a_service_are_left_as_they_are() {
    let nobodys = try_ask(
        &request("services", "UPDATE", &service()),
        &Known::default(),
    );
    assert_eq!(nobodys.unwrap().patch, None);
    let mut leader = request("services", "UPDATE", &service());
    leader["request"]["options"] =
        json!({"kind": "PatchOptions", "fieldManager": "rouse-autoscaler"});
    assert_eq!(
        try_ask(&leader, &adopted()).unwrap().patch,
        None,
        "it is opting out"
    );
    let mut decided = service();
    decided["spec"]["ports"] = json!([{"port": 80, "targetPort": 9999}]);
    let answer = try_ask(&request("services", "UPDATE", &decided), &adopted()).unwrap();
    assert_eq!(answer.patch, None, "a new decision");
    let created = try_ask(&request("services", "CREATE", &service()), &adopted()).unwrap();
    assert_eq!(created.patch, None);
}

#[test]
fn what_is_no_review_is_told_so() {
    let told = |door, body: &str| {
        review(door, body.as_bytes(), &settings(), &Nothing)
            .unwrap_err()
            .to_string()
    };
    for (body, part) in [
        ("", "no AdmissionReview: EOF"),
        ("[]", "no AdmissionReview"),
        (
            r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}"#,
            "v1beta1",
        ),
        (r#"{"kind":"Pod","apiVersion":"v1"}"#, "\"Pod\""),
        (
            r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#,
            "has no request",
        ),
    ] {
        let told = told(Door::Mutate, body);
        assert!(told.contains(part), "{body}: {told}");
    }
    let mut no_object = request("pods", "CREATE", &pod(&spec()));
    no_object["request"]["object"] = json!(null);
    assert!(told(Door::Mutate, &no_object.to_string()).contains("no object"));
    let bad_spec = request("pods", "CREATE", &pod(&json!({"containers": 1})));
    assert!(
        told(Door::Mutate, &bad_spec.to_string()).contains("spec of the object cannot be read")
    );
    let pod = request("pods", "CREATE", &pod(&spec()));
    assert!(told(Door::Validate, &pod.to_string()).contains("mutating"));
    let workload = request("deployments", "CREATE", &deployment());
    assert!(told(Door::Mutate, &workload.to_string()).contains("validating"));
}

#[test]
fn deletes_and_parts_of_objects_are_nobodys_business() {
    let mut scale = request(
        "deployments",
        "UPDATE",
        &json!({"metadata": {"name": "iris"}, "spec": {"replicas": 0}}),
    );
    scale["request"]["subResource"] = json!("scale");
    assert_eq!(ask(&scale).denied, None);
    let mut delete = request("deployments", "DELETE", &json!(null));
    delete["request"]["oldObject"] = deployment();
    assert_eq!(ask(&delete).denied, None);
}
