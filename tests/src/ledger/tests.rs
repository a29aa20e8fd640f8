//! Every way in which two accounts can differ is noticed.

use std::time::Duration;

use super::*;

fn told(id: &str, fate: Fate) -> Told {
    Told {
        id: id.to_owned(),
        fate,
    }
}

fn ok(id: &str) -> Told {
    told(id, Fate::Answered(200))
}

#[test]
fn accounts_that_agree_have_no_faults() {
    let journal = "a 7 GET /work 0\nb 8 POST /work 12\n";
    let ledger = Ledger::compare(&[ok("a"), ok("b")], journal);
    assert_eq!(ledger.good, 2);
    ledger.assert_exact();
}

#[test]
fn what_must_never_be_is_a_fault() {
    for (told, journal, fault) in [
        (vec![ok("a")], "", "a was answered 200 but never executed"),
        (
            vec![ok("a")],
            "a 7 GET /work 0\na 8 GET /work 0\n",
            "a was executed 2 times",
        ),
        (
            vec![],
            "a 7 GET /work 0\n",
            "a was executed but has no fate",
        ),
        (
            vec![ok("a"), ok("a")],
            "a 7 GET /work 0\n",
            "a has two fates",
        ),
        (vec![], "a 7 GET\n", "the model wrote \"a 7 GET\""),
        (
            vec![],
            "a 7 GET /work 0 b\n",
            "the model wrote \"a 7 GET /work 0 b\"",
        ),
        (
            vec![told("a", Fate::Answered(503))],
            "a 7 GET /work 0\na 7 GET /work 0\n",
            "a was executed 2 times",
        ),
    ] {
        let ledger = Ledger::compare(&told, journal);
        assert!(
            ledger.faults.iter().any(|found| found.starts_with(fault)),
            "{fault}: {ledger:?}"
        );
    }
}

#[test]
fn failed_requests_are_told_apart_by_whether_they_were_executed() {
    let all = [
        ok("a"),
        told("b", Fate::Answered(502)),
        told("c", Fate::ClosedIdle),
    ];
    let ledger = Ledger::compare(&all, "a 7 GET /work 0\nb 8 GET /work 3\n").checked();
    let bad: Vec<_> = ledger
        .bad
        .iter()
        .map(|(told, execution)| (told.id.as_str(), execution.as_ref().map(|e| e.pid)))
        .collect();
    assert_eq!(bad, [("b", Some(8)), ("c", None)]);
}

#[test]
fn the_load_testers_outcomes_are_read_as_what_they_are() {
    let outcome = |status, error| Outcome {
        id: "a".to_owned(),
        planned: Duration::ZERO,
        sent: None,
        done: Duration::ZERO,
        status,
        error,
        reused: true,
        served_by: None,
        warmup: false,
    };
    for (status, error, fate) in [
        (Some(200), None, Fate::Answered(200)),
        (Some(503), Some(ErrorKind::Status5xx), Fate::Answered(503)),
        (None, Some(ErrorKind::ClosedReused), Fate::ClosedIdle),
        (
            Some(200),
            Some(ErrorKind::Body),
            Fate::Lost("Some(Body)".to_owned()),
        ),
        (
            None,
            Some(ErrorKind::ClosedFresh),
            Fate::Lost("Some(ClosedFresh)".to_owned()),
        ),
    ] {
        assert_eq!(Told::from(&outcome(status, error)).fate, fate);
    }
}
