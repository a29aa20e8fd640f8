//! Bad input to the real program: status 2, one line that says where, what and what is allowed, and nothing left.

use std::{net::TcpListener, path::PathBuf};

use integration::{Deployment, Scene, process, scene::LONG};

/// A good file to spoil: everything in it would start at once, and leave a mark.
fn good() -> String {
    Deployment::new("m", &["sh", "-c", "touch started; exec sleep 100"])
        .replicas(1)
        .annotate("target", "5")
        .annotate("min-scale", "1")
        .annotate("max-scale", "3")
        .yaml()
}

/// Runs `rouse local` with bad input. `says` must all be in the one line.
async fn refused(scene: &Scene, args: &[&str], says: &[&str]) {
    let program = scene.programs().path("rouse");
    // Its output ends when it and everything it started have ended.
    let args: Vec<_> = ["local"].iter().chain(args).copied().collect();
    let done = process::run(&program, &args, scene.folder(), LONG).await;
    assert_eq!(done.code, Some(2), "{args:?}: {done:#?}");
    assert_eq!(done.stderr.lines().count(), 1, "{args:?}: {done:#?}");
    assert!(done.stderr.starts_with("rouse: "), "{}", done.stderr);
    assert_eq!(done.stdout, "", "{args:?}");
    for part in says {
        assert!(
            done.stderr.contains(part),
            "{part:?} is not in {}",
            done.stderr
        );
    }
    assert!(!scene.folder().join("started").exists(), "{args:?}");
}

#[tokio::test]
async fn a_file_with_a_mistake_is_refused_in_one_line_that_says_where_and_what_is_allowed() {
    let scene = crate::scene();
    let rows: [(&str, &str, &[&str]); 8] = [
        (
            "kind: Deployment",
            "kind: [",
            &["document 1", "line", "not usable YAML"],
        ),
        (
            "command: [",
            "commands: [",
            &[
                "document 1",
                "containers[0].command is missing",
                "must be a list with the program",
            ],
        ),
        (
            "/target: \"5\"",
            "/metric: \"qps\"",
            &[
                "document 1, line",
                "knative.dev/metric\"] is \"qps\"",
                "concurrency or rps",
            ],
        ),
        (
            "/target: \"5\"",
            "/target: \"-1\"",
            &[
                "document 1, line",
                "knative.dev/target\"] is \"-1\"",
                "at least 0.01",
            ],
        ),
        (
            "/target: \"5\"",
            "/target: \"NaN\"",
            &[
                "document 1, line",
                "knative.dev/target\"] is \"NaN\"",
                "a number from 0.01",
            ],
        ),
        (
            "/min-scale: \"1\"",
            "/min-scale: \"4\"",
            &[
                "document 1, line",
                "max-scale\"] is \"3\"",
                "max-scale=3 is less than min-scale=4",
            ],
        ),
        (
            "containerPort: 8080",
            "containerPort: 0",
            &["document 1, line", "containerPort is 0", "from 1 to 65535"],
        ),
        (
            "targetPort: 8080",
            "targetPort: web",
            &["document 2, line", "targetPort is \"web\""],
        ),
    ];
    for (part, with, says) in rows {
        let text = good();
        assert!(text.contains(part), "{part}");
        let file = scene.write("bad.yaml", &text.replacen(part, with, 1));
        let mut says = says.to_vec();
        says.push("bad.yaml: ");
        refused(&scene, &["-f", file.to_str().unwrap()], &says).await;
    }
    let missing = scene.folder().join("missing.yaml");
    refused(
        &scene,
        &["-f", missing.to_str().unwrap()],
        &["missing.yaml: ", "No such file"],
    )
    .await;
}

#[tokio::test]
async fn workloads_that_cannot_be_side_by_side_are_refused() {
    let scene = crate::scene();
    let file = scene.write("twice.yaml", &format!("{0}---\n{0}", good()));
    refused(
        &scene,
        &["-f", file.to_str().unwrap()],
        &["twice.yaml: document 3", "name is \"m\"", "must differ"],
    )
    .await;

    let other = good()
        .replace("name: m\n", "name: other\n")
        .replace("app: m}", "app: other}");
    let file = scene.write("port.yaml", &format!("{}---\n{other}", good()));
    refused(
        &scene,
        &["-f", file.to_str().unwrap()],
        &[
            "port.yaml: document 3",
            "port 8080",
            "default/m",
            "a port of its own",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_the_others_are_given_back() {
    let scene = crate::scene();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let free = process::free_port();
    let file = |first: u16, second: u16| -> PathBuf {
        let one = good().replace("port: 8080,", &format!("port: {first},"));
        let two = good()
            .replace("name: m\n", "name: other\n")
            .replace("app: m}", "app: other}")
            .replace("port: 8080,", &format!("port: {second},"));
        scene.write("ports.yaml", &format!("{one}---\n{two}"))
    };
    let address = format!("127.0.0.1:{taken_port}");
    refused(
        &scene,
        &["-f", file(free.port(), taken_port).to_str().unwrap()],
        &[
            &address,
            "default/other",
            "in use",
            "change the Service's port",
        ],
    )
    .await;
    TcpListener::bind(free).expect("the other port is free again");

    let file = file(free.port(), process::free_port().port());
    refused(
        &scene,
        &["-f", file.to_str().unwrap(), "--admin", &address],
        &[&address, "in use", "--admin"],
    )
    .await;
    TcpListener::bind(free).expect("the Service's port is free again");
}

#[tokio::test]
async fn a_flag_with_a_mistake_is_refused_in_one_line() {
    let scene = crate::scene();
    let file = scene.write("good.yaml", &good());
    let file = file.to_str().unwrap();
    let rows: [(&[&str], &[&str]); 9] = [
        (&["--nope"], &["'--nope'", "--help"]),
        (&["--port", "0"], &["'--port <PORT>'", "1..=65535"]),
        (&["--port", "x"], &["'x'", "--port"]),
        (&["--admin", "here"], &["'here'", "--admin <ADDR:PORT>"]),
        (&["--set", "nothing"], &["\"nothing\"", "KEY=VALUE"]),
        (
            &["--set", "stable-windw=60s"],
            &["--set stable-windw", "one of", "stable-window"],
        ),
        (
            &["--set", "stable-window=1s"],
            &["--set stable-window", "\"1s\"", "6s to 1h"],
        ),
        (
            &["--annotation", "autoscaling.knative.dev/target=-1"],
            &[
                "--annotation autoscaling.knative.dev/target",
                "\"-1\"",
                "0.01",
            ],
        ),
        (&["--annotation", "=1"], &["\"=1\"", "KEY=VALUE"]),
    ];
    for (flags, says) in rows {
        let args: Vec<_> = ["-f", file].iter().chain(flags).copied().collect();
        refused(&scene, &args, says).await;
    }
    refused(&scene, &[], &["--file <FILE>"]).await;
}
