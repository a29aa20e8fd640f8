//! The sidecar: it admits requests to one model, counts them to the last byte, and knows when the model is ready.
//!
//! Requests come in on two kinds of port: those of the pod's Services, and one for activators, on which admission is
//! explicit (see [`shared::headers::admission`]). The autoscaler reads [`stats`] from a third port. A fourth, for the
//! pod's own life cycle, is never in a Service.
//!
//! What must stay true: a request counts exactly once, as waiting, in flight or relayed, from its arrival to the last byte of
//! its answer (or the end of its tunnel); at most `container-concurrency` are in flight; an admitted request is never
//! sent twice; nothing a client sends is believed to come from us.

pub mod admin;
pub mod args;
pub mod bounce;
pub mod breaker;
pub mod config;
pub mod drain;
mod draining;
pub mod model;
mod pod;
mod proxy;
pub mod readiness;
pub mod relay;
mod rescue;
pub mod slots;
pub mod stats;
mod sync;
mod tickets;
pub mod timeouts;

mod run;

pub use config::Config;
#[doc(hidden)]
pub use rescue::contract;
pub use run::{QueueProxy, StartError, run};
