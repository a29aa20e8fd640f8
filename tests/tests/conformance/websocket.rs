//! The Autobahn test suite: its fuzzing client, with us between it and an echo server of the Python library `websockets`.
//!
//! A tunnel passes bytes and understands nothing of them, so what could go wrong is their timing, their end, large ones, and
//! the handshake with its extensions. All sections of the suite are run, and of those about speed and compression, which
//! repeat themselves, a choice.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use integration::process::{free_port, run};

use crate::{
    Place,
    expected::{Exception, assert_only},
    place::takes_connections,
};

/// The sections that are always run, in parts that run at once; most of the time a part waits.
const SECTIONS: [&str; 5] = [
    "1.* 2.* 3.* 4.* 10.*",
    "5.* 6.1.* 6.2.* 6.3.* 6.4.*",
    "6.5.* 6.6.* 6.7.* 6.8.* 6.9.* 6.10.* 6.11.* 6.12.* 6.13.* 6.14.*",
    "6.15.* 6.16.* 6.17.* 6.18.* 6.19.* 6.20.* 6.21.* 6.22.* 6.23.*",
    "7.*",
];
/// Of the sections about size and compression: what CI has time for, and how many cases it is with the sections above.
const SOME: ([&str; 2], usize) = (
    [
        "9.1.1 9.2.1 9.3.2 9.5.3 9.7.1",
        "12.1.1 12.3.5 13.1.1 13.3.1",
    ],
    256,
);
/// The same with `--full`: 64 KiB to 16 MiB whole, and 4 MiB in large and small fragments and pieces; texts and bytes alternate.
const MORE: ([&str; 2], usize) = (
    [
        "9.1.1 9.1.4 9.1.6 9.2.1 9.2.4 9.2.6 9.3.2 9.3.5 9.4.3 9.5.3 9.6.6 9.7.1 9.8.6",
        "12.1.1 12.1.5 12.2.10 12.2.12 12.3.12 13.1.1 13.3.5 13.4.3 13.7.12",
    ],
    269,
);
/// What is not judged well, and is the same without us.
const EXCEPTIONS: &[Exception] = &[Exception {
    name: "7.1.5",
    reason: "the echo server answers a close amid a fragmented message with 1002, where the suite wants 1000 or none",
}];
/// For a part. Of one with everything on a busy machine.
const LIMIT: Duration = Duration::from_mins(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_autobahn_suite_finds_nothing_but_the_exceptions() {
    let place = Place::new();
    let server = free_port();
    let python = place.tool("autobahn/venv/bin/python");
    let scripts = Place::root().join("tests/conformance/autobahn");
    let echo = scripts.join("echo.py");
    let _server = place.start_other(&python, &format!("{} {}", echo.display(), server.port()));
    takes_connections(server).await;
    let listeners = place.listen(server).await;
    let script = scripts.join("run.py");
    for (name, address) in listeners.both() {
        let (more, count) = if Place::full() { MORE } else { SOME };
        let parts = SECTIONS.into_iter().chain(more);
        let parts = parts.map(|cases| part(&place, &script, address, cases));
        let results: Vec<_> = futures_util::future::join_all(parts)
            .await
            .into_iter()
            .flatten()
            .collect();
        let bad: BTreeSet<_> = results
            .iter()
            .filter(|result| !result.good)
            .map(|result| result.case.clone())
            .collect();
        for result in results.iter().filter(|result| !result.good) {
            println!("{name}: {}", result.line);
        }
        println!(
            "{name}: {} cases, {} of them not good",
            results.len(),
            bad.len()
        );
        assert_only(name, &bad, EXCEPTIONS);
        assert_eq!(
            results.len(),
            count,
            "the suite has another number of cases"
        );
    }
}

/// How a case went.
struct Verdict {
    case: String,
    good: bool,
    line: String,
}

/// Runs some cases one after the other.
async fn part(
    place: &Place,
    script: &std::path::Path,
    address: SocketAddr,
    cases: &str,
) -> Vec<Verdict> {
    let suite = place.tool("autobahn/suite").display().to_string();
    let url = format!("x=ws://{address}");
    let mut args = vec![script.to_str().unwrap(), &suite, ".", &url, "--"];
    args.extend(cases.split(' '));
    let python = place.tool("autobahn/venv/bin/python");
    let done = run(&python, &args, place.folder(), LIMIT).await;
    let results: Vec<_> = done.stdout.lines().filter_map(verdict).collect();
    assert!(
        done.code == Some(0) && !results.is_empty(),
        "{cases}: {}{}",
        done.stdout,
        done.stderr
    );
    results
}

/// Reads `result SERVER CASE BEHAVIOUR BEHAVIOUR_OF_CLOSING WHY`. What the suite calls not strict or only informs of is allowed
/// by RFC 6455.
fn verdict(line: &str) -> Option<Verdict> {
    let mut words = line.strip_prefix("result ")?.split(' ').skip(1);
    let case = words.next()?.to_owned();
    let good = words
        .take(2)
        .all(|word| matches!(word, "OK" | "NON-STRICT" | "INFORMATIONAL"));
    Some(Verdict {
        case,
        good,
        line: line.to_owned(),
    })
}

#[test]
fn a_case_is_good_only_if_its_closing_is_too() {
    let good = |line| verdict(line).map(|verdict| verdict.good);
    assert_eq!(good("result x 1.1.1 OK OK as expected"), Some(true));
    assert_eq!(good("result x 3.2 NON-STRICT OK"), Some(true));
    assert_eq!(good("result x 1.1.1 OK UNCLEAN"), Some(false));
    assert_eq!(good("Running test case ID 1.1.1"), None);
}
