use std::fs;

use super::*;

mod bad;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: iris
  annotations:
    autoscaling.knative.dev/target: "4"
    autoscaling.knative.dev/max-scale: "3"
spec:
  template:
    metadata:
      labels: {app: iris, tier: model}
      annotations:
        autoscaling.knative.dev/max-scale: "5"
    spec:
      containers:
        - name: server
          image: ignored
          command: [python3, serve.py]
          args: ["--port", "$(PORT)"]
          env:
            - name: A
              value: "1"
            - name: EMPTY
          ports:
            - name: http
              containerPort: 8080
            - containerPort: 9000
          readinessProbe:
            httpGet:
              path: /ready
              port: http
              httpHeaders: [{name: X-A, value: b}]
            timeoutSeconds: 2
"#;

const SERVICE: &str = r"
apiVersion: v1
kind: Service
metadata:
  name: front
spec:
  selector: {app: iris}
  ports:
    - name: web
      port: 80
      targetPort: http
    - port: 9000
    - port: 7000
      targetPort: 7001
";

fn read(text: &str) -> Result<Manifest, ManifestError> {
    load_text(&[(PathBuf::from("f.yaml"), text.to_owned())])
}

#[test]
fn a_deployment_with_everything() {
    let manifest = read(&format!("{DEPLOYMENT}---{SERVICE}")).unwrap();
    assert_eq!(manifest.warnings, Vec::<String>::new());
    let [workload] = manifest.workloads.as_slice() else {
        panic!("{manifest:?}")
    };
    assert_eq!(
        (workload.namespace.as_str(), workload.name.as_str()),
        ("default", "iris")
    );
    assert_eq!(workload.annotations["autoscaling.knative.dev/target"], "4");
    assert_eq!(
        workload.annotations["autoscaling.knative.dev/max-scale"], "5",
        "the template wins"
    );
    assert_eq!(
        (workload.replicas, workload.termination_grace),
        (None, Duration::from_secs(30))
    );
    assert_eq!(workload.source.to_string(), "f.yaml: document 1");

    let container = &workload.container;
    assert_eq!(container.command, ["python3", "serve.py"]);
    assert_eq!(container.args, ["--port", "$(PORT)"]);
    let env: Vec<_> = container
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(env, [("A", "1"), ("EMPTY", "")]);
    let ports: Vec<_> = container.ports.iter().map(|port| port.port).collect();
    assert_eq!(
        ports,
        [8080, 9000, 7001],
        "what a Service names by number is added"
    );
    assert_eq!(container.working_dir, PathBuf::from("."));
    let probe = container.readiness_probe.as_ref().unwrap();
    let expected = ProbeAction::HttpGet {
        path: "/ready".to_owned(),
        port: 8080,
        headers: vec![("X-A".to_owned(), "b".to_owned())],
    };
    assert_eq!(probe.action, expected);
    assert_eq!(
        (probe.initial_delay, probe.period),
        (Duration::ZERO, Duration::from_secs(10))
    );
    assert_eq!(
        (
            probe.timeout,
            probe.failure_threshold,
            probe.success_threshold
        ),
        (Duration::from_secs(2), 3, 1)
    );

    let services: Vec<_> = workload
        .service_ports
        .iter()
        .map(|port| (port.port, port.target))
        .collect();
    assert_eq!(services, [(80, 8080), (9000, 9000), (7000, 7001)]);
    assert_eq!(workload.service_ports[0].name.as_deref(), Some("web"));
}

#[test]
fn the_least_that_is_needed() {
    let manifest = read(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: m, namespace: ns}, spec: {replicas: 2, template: {spec: \
         {terminationGracePeriodSeconds: 0, containers: [{name: c, command: [run]}]}}}}",
    )
    .unwrap();
    let workload = &manifest.workloads[0];
    assert_eq!(
        (workload.namespace.as_str(), workload.replicas),
        ("ns", Some(2))
    );
    assert_eq!(workload.termination_grace, Duration::ZERO);
    assert_eq!(
        workload.container.ports,
        [ContainerPort {
            port: DEFAULT_PORT,
            name: None
        }]
    );
    assert!(workload.container.readiness_probe.is_none() && workload.service_ports.is_empty());
}

#[test]
fn services_meet_deployments_of_their_namespace_in_any_file_and_order() {
    let other = DEPLOYMENT.replace("name: iris", "name: iris\n  namespace: other");
    let manifest = load_text(&[
        (PathBuf::from("service.yaml"), SERVICE.to_owned()),
        (
            PathBuf::from("models/iris.yaml"),
            format!("{DEPLOYMENT}---{other}"),
        ),
    ])
    .unwrap();
    let ports: Vec<_> = manifest
        .workloads
        .iter()
        .map(|workload| workload.service_ports.len())
        .collect();
    assert_eq!(ports, [3, 0]);
    assert_eq!(
        manifest.workloads[0].container.working_dir,
        PathBuf::from("models")
    );
    assert_eq!(
        manifest.workloads[1].source.to_string(),
        "models/iris.yaml: document 2"
    );
}

#[test]
fn the_config_map_is_read_and_lists_are_opened() {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: rouse-config}}\ndata:\n  stable-window: 30s\n  _example: |\n    \
         stable-window: 60s\n---{DEPLOYMENT}"
    );
    let manifest = read(&text).unwrap();
    assert_eq!(
        manifest.cluster_config,
        BTreeMap::from([("stable-window".to_owned(), "30s".to_owned())])
    );
    assert_eq!(
        manifest
            .cluster_config_error("stable-window", "must be 6s to 1h")
            .to_string(),
        "f.yaml: document 1, line 5, column 18: data.stable-window is \"30s\": must be 6s to 1h"
    );
    let items = DEPLOYMENT.trim().replace('\n', "\n    ");
    let manifest = read(&format!(
        "apiVersion: v1\nkind: List\nitems:\n  - {items}\n"
    ))
    .unwrap();
    assert_eq!(manifest.workloads[0].name, "iris");
}

#[test]
fn annotations_found_wrong_later_are_reported_at_their_place() {
    let manifest = read(DEPLOYMENT).unwrap();
    let error = |key| {
        manifest.workloads[0]
            .annotation_error(key, "must be good")
            .to_string()
    };
    assert_eq!(
        error("autoscaling.knative.dev/max-scale"),
        "f.yaml: document 1, line 14, column 44: \
         spec.template.metadata.annotations[\"autoscaling.knative.dev/max-scale\"] is \"5\": must be good"
    );
    assert_eq!(
        error("x"),
        "f.yaml: document 1: metadata.annotations[\"x\"] is missing: must be good"
    );
}

#[test]
fn what_cannot_be_honoured_is_warned_about() {
    let extra = "          volumeMounts: [{name: v, mountPath: /v}]\n        - name: sidecar\n      initContainers: [{name: i}]\n";
    let deployment = DEPLOYMENT
        .replace("httpGet:", "exec: {command: [true]}\n            ignored:")
        .replace("name: EMPTY", "name: PORT");
    let text = format!(
        "{deployment}{extra}---\nkind: Ingress\n---{}",
        SERVICE.replace("{app: iris}", "{app: none}")
    );
    let warnings = read(&text.replace("[true]", "['true']")).unwrap().warnings;
    let expected = [
        "container \"sidecar\" is not run",
        "initContainers: not run",
        "volumeMounts: ignored",
        "env[1]: Rouse sets PORT",
        "readinessProbe.exec: not done",
        "document 2: Ingress is ignored",
        "document 3: Service front is ignored",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for part in expected {
        assert!(
            warnings.iter().any(|line| line.contains(part)),
            "{part}: {warnings:#?}"
        );
    }
}

#[test]
fn the_examples_are_read_without_a_warning() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = [
        examples.join("iris/iris.yaml"),
        examples.join("tokens/tokens.yaml"),
    ];
    let manifest = load(&files).unwrap();
    assert_eq!(manifest.warnings, Vec::<String>::new());
    let ports: Vec<_> = manifest
        .workloads
        .iter()
        .map(|workload| workload.service_ports[0].port)
        .collect();
    assert_eq!(ports, [8080, 8000]);
    assert!(
        manifest.workloads.iter().all(|workload| workload
            .container
            .working_dir
            .join("README.md")
            .is_file())
    );
}

#[test]
fn a_grpc_probe_is_read_with_its_service() {
    let text = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: m}
spec:
  selector: {matchLabels: {app: m}}
  template:
    metadata: {labels: {app: m}}
    spec:
      containers:
        - name: model
          command: [serve]
          ports: [{name: grpc, containerPort: 9000}]
          readinessProbe: {grpc: {port: 9000, service: inference}}
";
    let read = read(text).unwrap();
    let probe = read.workloads[0].container.readiness_probe.clone().unwrap();
    assert_eq!(
        probe.action,
        ProbeAction::Grpc {
            port: 9000,
            service: "inference".to_owned()
        }
    );
}
