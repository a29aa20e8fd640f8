//! gRPC's own interoperability cases: the client of grpc-go against its server, with us in between.

use std::{collections::BTreeSet, time::Duration};

use integration::process::{free_port, run};

use crate::{
    Place,
    expected::{Exception, assert_only},
    place::takes_connections,
};

/// Every case that needs neither TLS nor an identity from a cloud.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];
/// What fails and is not a fault of ours.
const EXCEPTIONS: &[Exception] = &[];
/// For one case, which takes a fraction of a second.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_interop_case_of_grpc_go_passes() {
    let place = Place::new();
    let server = free_port();
    let path = place.tool("grpc-interop-server");
    let _server = place.start_other(&path, &format!("-port {}", server.port()));
    takes_connections(server).await;
    let listeners = place.listen(server).await;
    for (name, address) in listeners.both() {
        let mut failed = BTreeSet::new();
        for case in CASES {
            let flags = [
                "-server_host".to_owned(),
                address.ip().to_string(),
                "-server_port".to_owned(),
                address.port().to_string(),
                "-test_case".to_owned(),
                case.to_owned(),
            ];
            let flags = flags.each_ref().map(String::as_str);
            let path = place.tool("grpc-interop-client");
            let done = run(&path, &flags, place.folder(), LIMIT).await;
            if done.code != Some(0) {
                println!("{name}: {case}: {}{}", done.stdout, done.stderr);
                failed.insert(case.to_owned());
            }
        }
        println!("{name}: {} cases, {} failed", CASES.len(), failed.len());
        assert_only(name, &failed, EXCEPTIONS);
    }
}
