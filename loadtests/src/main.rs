//! `rouse-load`: measure an HTTP server under load. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtests::cli::main(std::env::args_os())
}
