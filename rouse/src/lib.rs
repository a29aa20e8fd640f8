//! The `rouse` command as a library: its command line, local mode, the demo, the simulator, and the replay of vectors.

pub mod cli;
pub mod cluster;
pub mod demo;
pub mod local;
mod simulate;
pub mod vectors;
pub mod venv;
