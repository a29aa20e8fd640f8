//! The `rouse` command as a library: its command line, local mode, and the demo.

pub mod cli;
pub mod cluster;
pub mod demo;
pub mod local;
pub mod venv;
