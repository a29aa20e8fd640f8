//! Calls of the queue-proxy's breaker. What must hold is written where the tests have it too.
#![no_main]

#[path = "../../../queue-proxy/tests/it/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| operations::check(bytes));
