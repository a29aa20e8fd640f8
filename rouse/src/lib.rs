//! The `rouse` command as a library: its command line, local mode, the demo, and the replay of vectors.

pub mod cli;
pub mod cluster;
pub mod demo;
pub mod local;
pub mod vectors;
pub mod venv;
