//! The example of another kind: a Node.js server that streams.

use std::{path::Path, process::Command};

use http::header::CONTENT_TYPE;
use integration::{
    client::{Connection, post},
    process::{Program, free_port},
    scene::LONG,
};
use rustix::process::Signal;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_example_wakes_and_streams() {
    if Command::new("node").arg("--version").output().is_err() {
        println!("skipped: node is not installed");
        return;
    }
    let scene = crate::scene();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tokens");
    // The example's port belongs to whoever reads its README; its Service stays behind, so any free port is taken.
    let yaml = std::fs::read_to_string(folder.join("tokens.yaml")).unwrap();
    let deployment = yaml.split("\n---\n").next().unwrap().to_owned();
    let server = folder.canonicalize().unwrap().join("server.js");
    let deployment = deployment.replace("\"server.js\"", &format!("{server:?}"));
    let file = scene.write("tokens.yaml", &deployment);
    let mut program = Program::start(
        &scene.programs().path("rouse"),
        &[
            "local",
            "--port",
            &free_port().port().to_string(),
            "-f",
            file.to_str().unwrap(),
        ],
        scene.folder(),
    );
    let address = program
        .line("the address is printed", |line| {
            line.strip_prefix("tokens: http://")?.parse().ok()
        })
        .await;
    let mut connection = Connection::open(address).await.unwrap();
    let mut request = post(
        "/v1/chat/completions",
        r#"{"model":"tokens","stream":true,"max_tokens":12,"messages":[{"role":"user","content":"hello"}]}"#,
    );
    request
        .headers_mut()
        .insert(CONTENT_TYPE, "application/json".parse().unwrap());
    let answer = timeout(LONG, connection.send(request))
        .await
        .unwrap()
        .unwrap();
    let text = answer.text();
    assert_eq!(answer.status, 200, "{text}");
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert!(text.matches("data: {").count() >= 12, "{text}");
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    program.signal(Signal::TERM);
    assert_eq!(program.end(LONG).await.code(), Some(0));
}
