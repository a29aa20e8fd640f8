//! The `rouse` command as a library: local mode and what the demo needs.

pub mod local;
pub mod venv;
