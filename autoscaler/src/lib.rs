//! The autoscaler: asks pods and activators what they saw, decides, writes the scale.
//!
//! All logic about scaling is in `autoscaler-core`; this crate is its shell: the clock, the sockets, the writes. It only
//! ever pulls: nobody reports to it, so there is nobody to authenticate and nothing to lose.
//!
//! What must stay true: a second of a pod counts once; what could not be asked is not taken for zero; the scale is
//! written with the number it was decided from, so that two writers cannot both succeed; from 0 upwards, while requests
//! are held, the activator is the writer.

pub mod admin;
pub mod alone;
pub mod args;
mod controller;
mod fleet;
mod holds;
pub mod kubernetes;
mod net;
mod scrape;
pub mod seam;
mod starts;

pub use controller::{Controller, Explained, History};
pub use holds::Holds;
pub use seam::{BoxFuture, Life, Pod, Scaler, Target};
