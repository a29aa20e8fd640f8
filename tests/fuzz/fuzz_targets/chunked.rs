//! Chunked bodies, read strictly, beside httparse and hyper. What must hold is written where the tests have it too.
#![no_main]

#[path = "../../../shared/tests/it/scanner.rs"]
mod scanner;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| scanner::check_chunked(bytes));
