//! `rouse`: the command people type. A thin shell: it reads the command line and maps outcomes to exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Local mode starts this program again below each replica; that must be found out before anything else exists.
    if let Some(code) = rouse::local::shim::intercept() {
        return code;
    }
    rouse::cli::main()
}
