//! The scaling algorithm of Rouse: Knative's KPA as data in, data out.
//!
//! Fully deterministic. Nothing here reads a clock, does I/O, logs, or is async; time is a [`Moment`] that the caller
//! passes in, and nothing can fail once the settings are parsed. The shell around it scrapes, watches and patches.
//!
//! From the outside: [`ClusterConfig::parse`] and [`annotations::parse`] turn text into a [`TargetSpec`]; one
//! [`Decider`] per workload takes a [`Sample`] per second and, every [`TICK`], answers what is [`Observed`] with a
//! [`Decision`], which carries its [`Reason`] and its inputs.
//!
//! Rules and constants that are Knative's name the file in knative/serving they come from.

#![warn(missing_docs)]

pub mod annotations;
mod bounds;
mod burst;
mod config;
mod decide;
mod decision;
mod delay;
mod idle;
mod kpa;
mod learned;
mod literal;
mod mode;
mod moment;
mod published;
mod replicas;
mod sampling;
mod series;
#[cfg(feature = "sim")]
pub mod sim;
mod spec;
mod starting;
mod window;

pub use burst::activators_needed;
pub use config::{ClusterConfig, ConfigError, SETTINGS, Setting};
pub use decide::{Decider, Refused, TICK};
pub use decision::{Caution, Decision, Inputs, Limit, Mode, Observed, Reason};
pub use delay::DelayWindow;
pub use idle::{Gate, ZeroGate};
pub use kpa::{Averages, Kpa, Verdict};
pub use learned::{Learned, StartClass, Starting};
pub use mode::PanicClock;
pub use moment::Moment;
pub use published::Published;
pub use replicas::Replicas;
pub use sampling::{Candidate, TooFew, enough, extrapolate, in_order, pods_to_ask, sample_size};
pub use series::{Collection, Recorded, Sample};
pub use spec::{Aggregation, BurstCapacity, Metric, OptIns, Policy, TargetSpec, wake_replicas};
pub use window::{Window, Written};
