use super::*;

fn iris() -> StatusRow {
    StatusRow {
        workload: "default/sklearn-iris".to_owned(),
        mode: "panic".to_owned(),
        ready: 3,
        starting: 2,
        wanted: 5,
        in_flight: 40,
        held: 7,
        requests_per_second: 812.4,
        p50: Some(Duration::from_micros(4_260)),
    }
}

#[test]
fn a_wide_terminal_shows_everything() {
    let sleeping = StatusRow {
        workload: "default/tokens".to_owned(),
        mode: "zero".to_owned(),
        ..StatusRow::default()
    };
    let lines = table(&[iris(), sleeping], 120, 24, false);
    assert_eq!(
        lines,
        [
            "WORKLOAD              MODE   READY  STARTING  WANTED  IN FLIGHT  HELD  REQ/S     P50",
            "default/sklearn-iris  panic      3         2       5         40     7    812  4.3 ms",
            "default/tokens        zero       0         0       0          0     0    0.0       -",
        ]
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_ready_stays_longest() {
    for width in 0..130 {
        for line in table(&[iris()], width, 24, false) {
            assert!(chars(&line) <= width, "{width}: {line}");
        }
    }
    assert_eq!(
        table(&[iris()], 30, 24, false),
        [
            "WORKLOAD          READY  HELD",
            "default/sklearn…      3     7"
        ]
    );
}

#[test]
fn a_low_terminal_gets_the_first_rows() {
    let rows = vec![iris(); 10];
    let lines = table(&rows, 100, 4, false);
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3], "... and 8 more");
    assert!(table(&rows, 100, 0, false).is_empty());
}

#[test]
fn lines_are_printed_on_change_only() {
    let old = [iris()];
    let busier = StatusRow {
        in_flight: 41,
        requests_per_second: 1.0,
        p50: None,
        held: 8,
        ..iris()
    };
    assert!(changes(&old, &[busier]).is_empty());
    let grown = StatusRow {
        ready: 4,
        starting: 1,
        ..iris()
    };
    assert_eq!(
        changes(&old, &[grown]),
        [
            "default/sklearn-iris: panic, 4 ready, 1 starting, 5 wanted, 40 in flight, 7 held, 812 req/s, p50 4.3 ms"
        ]
    );
    assert_eq!(changes(&[], &old).len(), 1);
    assert!(changes(&old, &[]).is_empty());
}

#[test]
fn numbers_keep_to_few_digits() {
    for (micros, text) in [
        (0, "0.0 ms"),
        (340, "0.3 ms"),
        (9_960, "10 ms"),
        (999_400, "999 ms"),
        (1_234_000, "1.2 s"),
    ] {
        assert_eq!(duration(Some(Duration::from_micros(micros))), text);
    }
    for (value, text) in [
        (0.04, "0.0"),
        (9.96, "10"),
        (1234.5, "1234"),
        (f64::NAN, "-"),
        (f64::INFINITY, "-"),
    ] {
        assert_eq!(rate(value), text);
    }
}
