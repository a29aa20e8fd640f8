//! What pods and activators say of themselves. What must hold is written where the tests have it too.
#![no_main]

#[path = "../../../shared/tests/it/statistics.rs"]
mod statistics;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statistics::check(bytes));
