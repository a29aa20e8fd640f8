//! Replicas as real processes. This program plays three parts: the tests, the shim (as Rouse itself does) and a Rouse that
//! is made to die. Runs like any test program: an argument filters the cases by name.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::exit,
    reason = "a test program; clippy.toml's exceptions for tests only see functions marked as such"
)]

mod cases;
mod deaths;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

/// No case takes a tenth of it.
const LIMIT: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    if let Some(code) = rouse::local::shim::intercept() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == deaths::HOST) {
        runtime().block_on(deaths::host(&args[1..]));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in cases::all().into_iter().chain(deaths::all()) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, case) in cases::all().into_iter().chain(deaths::all()) {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            runtime()
                .block_on(async { tokio::time::timeout(LIMIT, case()).await })
                .unwrap();
        }));
        println!(
            "test {name} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        failed += u8::from(result.is_err());
    }
    ExitCode::from(failed)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
