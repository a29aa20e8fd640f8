//! Header maps on their way to the next hop. What must hold is written where the tests have it too.
#![no_main]

#[path = "../../../shared/tests/it/sanitize.rs"]
mod sanitize;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sanitize::check(bytes));
