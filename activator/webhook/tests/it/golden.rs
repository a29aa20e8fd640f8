//! Three model servers as they are deployed, and what becomes of their pods, word for word.
//!
//! `ROUSE_BLESS=1 cargo test -p webhook golden` writes the outcomes anew, to be read before they are committed.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::inject;

fn check(name: &str, warnings: &[&str]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let given = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let given: Value = serde_json::from_str(&given).unwrap();
    let (injected, told) = inject(&given);
    assert_eq!(told, warnings);
    let path = folder.join(format!("{name}.injected.json"));
    if std::env::var_os("ROUSE_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&injected).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(injected, expected, "{name}");
}

#[test]
fn iris_on_kserves_python_server() {
    check("iris", &[]);
}

#[test]
fn triton_with_three_ports_of_which_two_take_requests() {
    check("triton", &[]);
}

#[test]
fn vllm_in_a_stateful_set_with_a_grace_period_of_its_own() {
    check("vllm", &[]);
}
