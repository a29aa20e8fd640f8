//! Pages of reports, as the command writes them.

use crate::command::{output, text};
use crate::server::{http, ok};
use std::fs;

#[tokio::test]
async fn a_run_a_merge_and_a_saved_report_become_pages() {
    let url = http(|_| async { ok() }).await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (json, of_run, of_merge, later) = (
        path("r.json"),
        path("1.html"),
        path("2.html"),
        path("3.html"),
    );
    for args in [
        &["-n", "20", "--json", &json, "--html", &of_run, &url][..],
        &["merge", &json, &json, "--html", &of_merge],
        &["html", &json, &later],
    ] {
        let output = output(args).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let page = |path: &str| fs::read_to_string(path).unwrap();
    assert_eq!(page(&of_run), page(&later), "the same report");
    assert!(page(&of_merge).contains("merged from 2 runs"));
    for path in [of_run, of_merge] {
        assert!(page(&path).contains(&url) && page(&path).ends_with("</html>\n"));
    }
    let printed = output(&["html", &json, "-"]).await;
    assert_eq!(text(&printed.stdout), page(&later));
    // The page and nothing else.
    let printed = output(&["merge", &json, "--html", "-"]).await;
    let printed = text(&printed.stdout);
    assert!(printed.starts_with("<!doctype html>") && printed.ends_with("</html>\n"));
}

#[tokio::test]
async fn what_is_no_report_or_cannot_be_written_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none.json");
    fs::write(&none, "{}").unwrap();
    let none = none.to_str().unwrap();
    let url = "http://127.0.0.1:1/";
    for (args, words) in [
        (
            &["html", none, "-"][..],
            ["REPORT", "a report as --json writes it"],
        ),
        (
            &["html", "/nonexistent", "-"],
            ["REPORT", "a readable file"],
        ),
        (
            &["-n", "1", "--html", "/nonexistent/page", url],
            ["--html", "a file that can be written"],
        ),
    ] {
        let output = output(args).await;
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        assert!(
            words.iter().all(|word| stderr.contains(word)),
            "{args:?}: {stderr}"
        );
    }
}
