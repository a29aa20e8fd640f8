//! Every mistake is one line that names its place, the value and what is allowed.

use super::*;

/// What is replaced in the good documents, with what, and the error (without the file's name).
const ROWS: &[(&str, &str, &str)] = &[
    // Syntax.
    (
        "spec:\n  template:",
        "spec:\n template:\n\t x",
        "not usable YAML",
    ),
    ("name: iris", "name: *iris", "not usable YAML"),
    ("name: iris", "name: iris\n  name: twice", "not usable YAML"),
    // What it is.
    (
        "kind: Deployment",
        "",
        "kind is missing: must be the kind of a Kubernetes object",
    ),
    ("kind: Deployment", "kind: 7", "kind is 7: must be a string"),
    (
        "apps/v1",
        "extensions/v1beta1",
        "apiVersion is \"extensions/v1beta1\": must be apps/v1 for kind Deployment",
    ),
    (
        "apiVersion: apps/v1",
        "",
        "apiVersion is missing: must be apps/v1",
    ),
    ("kind: Deployment", "kind: Pod", "has no Deployment"),
    // Names.
    (
        "  name: iris",
        "  label: iris",
        "metadata.name is missing: must be 1 to 253 lower-case letters",
    ),
    (
        "name: iris",
        "name: Iris",
        "metadata.name is \"Iris\": must be 1 to 253 lower-case letters",
    ),
    (
        "name: iris",
        "name: iris\n  namespace: a.b",
        "metadata.namespace is \"a.b\": must be 1 to 63",
    ),
    (
        "name: server",
        "name: a_b",
        "containers[0].name is \"a_b\": must be 1 to 63",
    ),
    // The command.
    (
        "command: [python3, serve.py]",
        "",
        "containers[0].command is missing: must be a list with the program to run",
    ),
    (
        "[python3, serve.py]",
        "[]",
        "containers[0].command is an empty list: must be a list with the program",
    ),
    (
        "[python3, serve.py]",
        "['']",
        "containers[0].command[0] is \"\": must be a program's name",
    ),
    (
        "[python3, serve.py]",
        "python3 serve.py",
        "containers[0].command is \"python3 serve.py\": must be a list",
    ),
    (
        "[python3, serve.py]",
        "[python3, 7]",
        "containers[0].command[1] is 7: must be a string: put it in quotes",
    ),
    (
        "[python3, serve.py]",
        "[\"a\\0b\"]",
        "containers[0].command[0] is \"a\\0b\": must not contain a NUL",
    ),
    (
        "image: ignored",
        "workingDir: /no/such",
        "workingDir is \"/no/such\": must be a folder on this machine",
    ),
    (
        "      containers:",
        "      others:",
        "spec.template.spec.containers is missing: must be a list with at least one",
    ),
    (
        "  template:",
        "  template: x\n  other:",
        "spec.template is \"x\": must be a map",
    ),
    // Env.
    (
        "- name: A",
        "- nam: A",
        "env[0].name is missing: must be a variable's name",
    ),
    (
        "- name: A",
        "- name: A=B",
        "env[0].name is \"A=B\": must be a variable's name",
    ),
    (
        "value: \"1\"",
        "value: 1",
        "env[0].value is 1: must be a string: put it in quotes",
    ),
    (
        "value: \"1\"",
        "value: true",
        "env[0].value is true: must be a string",
    ),
    (
        "value: \"1\"",
        "valueFrom: {fieldRef: {}}",
        "env[0].valueFrom is a map: cannot be read locally: give A a value",
    ),
    (
        "image: ignored",
        "envFrom: [{}]",
        "envFrom is a list: cannot be read locally",
    ),
    // Ports.
    (
        "containerPort: 8080",
        "containerPort: 0",
        "ports[0].containerPort is 0: must be a whole number from 1 to 65535",
    ),
    (
        "containerPort: 8080",
        "containerPort: 65536",
        "ports[0].containerPort is 65536: must be a whole number from 1",
    ),
    (
        "containerPort: 8080",
        "containerPort: http",
        "ports[0].containerPort is \"http\": must be a whole number",
    ),
    (
        "containerPort: 8080",
        "containerPort: 1.5",
        "ports[0].containerPort is 1.5: must be a whole number",
    ),
    (
        "containerPort: 8080",
        "x: y",
        "ports[0].containerPort is missing: must be a whole number from 1 to 65535",
    ),
    (
        "containerPort: 9000",
        "containerPort: 8080",
        "ports[1].containerPort is 8080: must differ",
    ),
    (
        "- containerPort: 9000",
        "- {name: http, containerPort: 9000}",
        "ports[1].name is \"http\": must differ",
    ),
    (
        "- name: http",
        "- name: '8080'",
        "ports[0].name is \"8080\": must be 1 to 15 lower-case letters",
    ),
    (
        "- name: http",
        "- protocol: HTTP",
        "ports[0].protocol is \"HTTP\": must be TCP, UDP or SCTP",
    ),
    // The probe.
    (
        "port: http\n",
        "port: htp\n",
        "httpGet.port is \"htp\": must be the number or name of a port of the container",
    ),
    (
        "port: http\n",
        "x: y\n",
        "httpGet.port is missing: must be the number or name",
    ),
    (
        "path: /ready",
        "scheme: HTTPS",
        "httpGet.scheme is \"HTTPS\": must be HTTP",
    ),
    (
        "path: /ready",
        "path: /a b",
        "httpGet.path is \"/a b\": must be a URL's path",
    ),
    (
        "name: X-A",
        "name: 'X A'",
        "httpHeaders[0].name is \"X A\": must be an HTTP header's name",
    ),
    (
        "value: b",
        "value: \"b\\nc\"",
        "httpHeaders[0].value is \"b\\nc\": must be an HTTP header's value",
    ),
    (
        "timeoutSeconds: 2",
        "timeoutSeconds: 0",
        "timeoutSeconds is 0: must be a whole number from 1 to 2147483647",
    ),
    (
        "timeoutSeconds: 2",
        "periodSeconds: -1",
        "periodSeconds is -1: must be a whole number from 1",
    ),
    (
        "timeoutSeconds: 2",
        "tcpSocket: {port: 1}",
        "readinessProbe is a map: must have only one of httpGet, tcpSocket and grpc",
    ),
    (
        "httpGet:",
        "other:",
        "readinessProbe is a map: must have httpGet, tcpSocket or grpc",
    ),
    // The rest of the Deployment.
    (
        "target: \"4\"",
        "target: 4",
        "metadata.annotations[\"autoscaling.knative.dev/target\"] is 4: must be a string",
    ),
    (
        "  template:",
        "  replicas: -1\n  template:",
        "spec.replicas is -1: must be a whole number from 0",
    ),
    (
        "  template:",
        "  replicas: two\n  template:",
        "spec.replicas is \"two\": must be a whole number from 0",
    ),
    (
        "      containers:",
        "      terminationGracePeriodSeconds: x\n      containers:",
        "terminationGracePeriodSeconds is \"x\": must be a whole number from 0",
    ),
    // The Service.
    (
        "targetPort: http",
        "targetPort: web",
        "spec.ports[0].targetPort is \"web\": must be the number or name",
    ),
    (
        "targetPort: http",
        "targetPort: 70000",
        "spec.ports[0].targetPort is 70000: must be a whole number from 1",
    ),
    (
        "port: 80\n",
        "port: 0\n",
        "spec.ports[0].port is 0: must be a whole number from 1 to 65535",
    ),
    (
        "port: 80\n",
        "x: y\n",
        "spec.ports[0].port is missing: must be a whole number from 1 to 65535",
    ),
    (
        "port: 7000\n",
        "port: 80\n",
        "spec.ports[2].port is 80: must differ from the Service's other ports",
    ),
    (
        "name: front",
        "x: y",
        "metadata.name is missing: must be 1 to 63",
    ),
    (
        "  ports:\n    - name: web",
        "  x:\n    - name: web",
        "spec.ports is missing: must be a list with at least one",
    ),
];

#[test]
fn one_line_for_each_mistake() {
    let good = format!("{DEPLOYMENT}---{SERVICE}");
    for (part, with, expected) in ROWS {
        assert!(good.contains(part), "{part:?} is not in the documents");
        let line = read(&good.replacen(part, with, 1)).unwrap_err().to_string();
        assert!(
            line.contains(expected),
            "{with:?}\n got: {line}\nwant: {expected}"
        );
        assert!(line.starts_with("f.yaml: "), "{line}");
        assert!(!line.contains('\n'), "{line:?}");
        if !expected.starts_with("has no") {
            assert!(
                line.contains(": document ") && line.contains(", line "),
                "{line}"
            );
        }
    }
}

#[test]
fn the_whole_line() {
    let line = read(&DEPLOYMENT.replace("containerPort: 9000", "containerPort: 90000"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        line,
        "f.yaml: document 1, line 28, column 30: spec.template.spec.containers[0].ports[1].containerPort is 90000: must be a \
         whole number from 1 to 65535"
    );
    let line = read("a: [1, 2\nb: 3\n").unwrap_err().to_string();
    assert!(
        line.starts_with("f.yaml: document 1, line 2, column 2: not usable YAML: "),
        "{line}"
    );
    assert_eq!(line.matches("line").count(), 1, "{line}");
}

#[test]
fn two_workloads_of_one_name() {
    let text = format!("{DEPLOYMENT}---{DEPLOYMENT}");
    assert!(
        read(&text)
            .unwrap_err()
            .to_string()
            .starts_with("f.yaml: document 2, line ")
    );
    let files = [("a.yaml", DEPLOYMENT), ("b.yaml", DEPLOYMENT)];
    let files = files.map(|(file, text)| (PathBuf::from(file), text.to_owned()));
    let line = load_text(&files).unwrap_err().to_string();
    assert!(line.starts_with("b.yaml: document 1, "), "{line}");
    assert!(
        line.ends_with("must differ from the Deployment in a.yaml: document 1 (namespace default)"),
        "{line}"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let big = "#".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1);
    let files: [(&str, Option<&[u8]>, &str); 7] = [
        (
            "missing.yaml",
            None,
            "cannot be read: No such file or directory",
        ),
        ("empty.yaml", Some(b""), "is empty: must hold a Deployment"),
        (
            "comments.yaml",
            Some(b"# nothing\n---\n# here\n"),
            "is empty: must hold a Deployment",
        ),
        (
            "latin1.yaml",
            Some(b"name: caf\xe9\n"),
            "is not text: must be UTF-8, but byte 9 is not",
        ),
        (
            "big.yaml",
            Some(big.as_bytes()),
            "is too large: must be 1 MiB at most",
        ),
        (
            "list.yaml",
            Some(b"- a\n"),
            "document 1, line 1, column 1: the document is a list: must be a map",
        ),
        (
            "text.yaml",
            Some(b"hello"),
            "document 1, line 1, column 1: the document is \"hello\": must be a map",
        ),
    ];
    for (name, content, expected) in files {
        let file = folder.path().join(name);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let line = load(std::slice::from_ref(&file)).unwrap_err().to_string();
        assert!(
            line.starts_with(&format!("{}: {expected}", file.display())),
            "{line}"
        );
    }
    assert!(
        load(&[folder.path().to_path_buf()])
            .unwrap_err()
            .to_string()
            .contains("cannot be read: Is a directory")
    );
    assert!(load(&[]).is_err());
}
