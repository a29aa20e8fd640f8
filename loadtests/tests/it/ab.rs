//! Two servers in one run.

use crate::command::{begin, interrupted_after, output, signal, text};
use crate::schema::check;
use crate::server::{http, ok};
use rustix::process::Signal;
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../ab.schema.json")).unwrap()
}

/// What is on standard output, if it is as the schema says.
fn result(ended: &Output) -> Value {
    let (said, wrong) = (text(&ended.stdout), text(&ended.stderr));
    let json: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{wrong}"));
    check(&schema(), &schema(), &json, "");
    json
}

fn row<'a>(result: &'a Value, of: &str, to: &str, figure: &str) -> &'a Value {
    let ratios = result["ratios"].as_array().unwrap();
    let ratios = ratios
        .iter()
        .find(|r| r["of"] == of && r["to"] == to)
        .unwrap();
    let rows = ratios["rows"].as_array().unwrap();
    rows.iter().find(|row| row["figure"] == figure).unwrap()
}

async fn taking(millis: u64) -> String {
    http(move |_| async move {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        ok()
    })
    .await
}

/// A server that takes at least twenty times as long as another one. Neither keeps a core busy, as other tests need these.
async fn servers() -> (String, String) {
    (taking(1).await, taking(20).await)
}

/// Short blocks, of either order.
const SHORT: [&str; 10] = [
    "--connections",
    "1",
    "--blocks",
    "2",
    "--null-blocks",
    "1",
    "--slice",
    "500ms",
    "--discard",
    "20ms",
];

/// A process that does nothing and ends when it is told to.
fn sleeper() -> std::process::Child {
    Command::new("sleep")
        .arg("600")
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slower_one_is_found_to_be_slower_and_nothing_is_claimed_without_a_null_test() {
    let (quick, slow) = servers().await;
    let me = std::process::id().to_string();
    let args = [
        &[
            "ab", "--a", &quick, "--b", &slow, "--direct", &quick, "--json", "-",
        ][..],
        &[
            "--pid-a",
            &me,
            "--pid-b",
            &me,
            "--pid-direct",
            &me,
            "--limit",
            "p50<1000",
        ],
        &SHORT,
    ]
    .concat();
    let ended = output(&args).await;
    assert_eq!(
        ended.status.code(),
        Some(1),
        "one null block shows nothing: {}",
        text(&ended.stderr)
    );
    let result = result(&ended);
    assert_eq!(result["blocks"].as_array().unwrap().len(), 3);
    let orders: Vec<_> = result["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["order"].to_string())
        .collect();
    assert_eq!(orders[0], r#"["direct","a","b","b","a","direct"]"#);
    assert!(
        orders.contains(&r#"["direct","b","a","a","b","direct"]"#.to_owned()),
        "{orders:?}"
    );
    assert!(
        orders.contains(&r#"["direct","a","again","again","a","direct"]"#.to_owned()),
        "{orders:?}"
    );
    for block in result["blocks"].as_array().unwrap() {
        let [a, b] = ["a", "b"].map(|arm| &block["arms"][arm]);
        assert!(
            a["requests"].as_u64() > Some(0) && a["cpu"].as_f64() > Some(0.0),
            "{block}"
        );
        if b.is_object() {
            assert!(b["p50"].as_f64() > a["p50"].as_f64(), "{block}");
            assert!(
                b["throughput"].as_f64() < a["throughput"].as_f64(),
                "{block}"
            );
        }
    }
    // A busy machine may have blocks rejected, and then there are ratios without an interval.
    let counts = &result["compared"];
    assert_eq!(
        counts["accepted"].as_u64().unwrap() + counts["rejected"].as_u64().unwrap(),
        2
    );
    if counts["accepted"].as_u64() > Some(0) {
        assert!(
            row(&result, "b", "a", "p50")["ratio"].as_f64() > Some(1.0),
            "{result}"
        );
        assert!(
            row(&result, "b", "direct", "throughput")["ratio"].as_f64() < Some(1.0),
            "{result}"
        );
    }
    assert_eq!(result["no_claims"], true);
    assert!(
        result["verdicts"]
            .as_array()
            .unwrap()
            .iter()
            .all(|verdict| verdict["outcome"] == "no_claim")
    );
    assert_eq!(
        (&result["limits"][0]["met"], &result["verdict"]),
        (
            &Value::from(false),
            &Value::from("no claim can be made from this run")
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_meets_the_same_arrivals_and_the_table_says_what_counts() {
    let (quick, slow) = servers().await;
    let args = [
        &[
            "ab",
            "--a",
            &quick,
            "--b",
            &slow,
            "--rate",
            "40",
            "--arrivals",
            "poisson",
        ][..],
        &[
            "--connections",
            "8",
            "--blocks",
            "2",
            "--null-blocks",
            "0",
            "--slice",
            "500ms",
            "--discard",
            "0",
        ],
        &["--wait-ready", "1m"],
    ]
    .concat();
    let ended = output(&args).await;
    let (table, wrong) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{wrong}");
    for words in [
        "ready after",
        "open loop at 40/s",
        "slices of 500.00 ms after 0",
        "0 blocks of a against itself",
        "no block of a against itself counts",
        "no claim can be made from this run",
        "was not checked",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let ended = output(&[&args[..], &["--json", "-"]].concat()).await;
    let result = result(&ended);
    for block in result["blocks"].as_array().unwrap() {
        assert_eq!(
            block["arms"]["a"]["requests"], block["arms"]["b"]["requests"],
            "{block}"
        );
        assert!(block["arms"]["a"]["requests"].as_u64() > Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_is_told_and_ends_nothing() {
    let slow = taking(20).await;
    let mut other = sleeper();
    let (pid, me) = (other.id().to_string(), std::process::id().to_string());
    let (tell, mut came) = mpsc::channel(1);
    let watched = http(move |_| {
        let _full = tell.try_send(());
        async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ok()
        }
    })
    .await;
    let args = [
        &[
            "ab", "--a", &watched, "--b", &slow, "--json", "-", "--pid-a", &me, "--pid-b", &pid,
        ][..],
        &[
            "--connections",
            "1",
            "--blocks",
            "2",
            "--null-blocks",
            "0",
            "--slice",
            "500ms",
            "--discard",
            "0",
        ],
    ]
    .concat();
    let child = begin(&args);
    came.recv().await.unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    let ended = spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap();
    let result = result(&ended);
    assert_eq!(ended.status.code(), Some(0), "{result}");
    assert_eq!(result["blocks"].as_array().unwrap().len(), 2);
    let told = &result["ended"][0];
    assert_eq!(
        (told["pid"].as_u64(), &told["arm"]),
        (Some(u64::from(other.id())), &Value::from("b"))
    );
    assert_eq!(
        row(&result, "b", "a", "cpu")["blocks"],
        0,
        "half of its time is not its time"
    );
    assert!(result["blocks"][1]["arms"]["a"]["cpu"].as_f64() > Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_leaves_the_whole_blocks() {
    let count = Arc::new(AtomicUsize::new(0));
    let (tell, third) = mpsc::channel(1);
    let counted = Arc::clone(&count);
    // A connection of its own for each slice: B's fifth is in the third block.
    let b = crate::server::raw(move |mut stream| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        let tell = tell.clone();
        async move {
            if number >= 4 {
                let _full = tell.try_send(());
            }
            while crate::server::read_head(&mut stream).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
                crate::server::write(&mut stream, crate::server::OK).await;
            }
        }
    })
    .await;
    let (quick, _) = servers().await;
    let args = [
        &["ab", "--a", &quick, "--b", &b, "--json", "-"][..],
        &[
            "--connections",
            "1",
            "--blocks",
            "100",
            "--null-blocks",
            "0",
            "--slice",
            "500ms",
            "--discard",
            "0",
        ],
    ]
    .concat();
    let ended = interrupted_after(&args, third).await;
    let result = result(&ended);
    assert_eq!(ended.status.code(), Some(130), "{result}");
    assert_eq!(result["interrupted"], true);
    // Two, or one if a connection was so slow to come that a slice needed another one.
    let blocks = result["blocks"].as_array().unwrap();
    assert!((1..=2).contains(&blocks.len()), "{result}");
    for block in blocks {
        assert!(block["arms"]["b"]["requests"].as_u64() > Some(0), "{block}");
    }
}

#[tokio::test]
async fn nonsense_is_one_line_and_exit_two() {
    let url = "http://127.0.0.1:9/";
    let both = ["ab", "--a", url, "--b", url];
    let mut gone = sleeper();
    signal(&gone, Signal::KILL);
    gone.wait().unwrap();
    let gone = gone.id().to_string();
    for (args, words) in [
        (
            &["--pid-b", &gone][..],
            ["--pid-b", gone.as_str(), "a process that runs"],
        ),
        (&["--pid-other", "1,x"], ["--pid-other", "x", "invalid"]),
        (&["--slice", "1ms"], ["--slice", "1ms", "500ms to 1h"]),
        (&["--blocks", "0"], ["--blocks", "0", "1..=1000"]),
        (
            &["--duration", "3s"],
            ["--duration", "not with ab", "--slice"],
        ),
        (&["--stages", "3s@5"], ["--stages", "not with ab", "--rate"]),
        (&["--limit", "p98<1"], ["--limit", "p98<1", "such as"]),
        (
            &["--direct", "nonsense"],
            ["--direct", "nonsense", "an absolute http or https URL"],
        ),
        (
            &["--json", "/nonexistent/a"],
            ["--json", "/nonexistent/a", "written"],
        ),
    ] {
        let ended = output(&[&both[..], args].concat()).await;
        let wrong = text(&ended.stderr);
        assert_eq!(
            (ended.status.code(), text(&ended.stdout).as_str()),
            (Some(2), ""),
            "{args:?}: {wrong}"
        );
        assert_eq!(wrong.trim_end().lines().count(), 1, "{args:?}: {wrong}");
        for word in words {
            assert!(wrong.contains(word), "{args:?} lacks {word}: {wrong}");
        }
    }
}
