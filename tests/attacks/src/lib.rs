//! HTTP/2 as no proper client speaks it: frames written by hand, and the known attacks that are made of them.
//!
//! Knows nothing of those who are attacked. Tests ask what becomes of the attacker, measurements what becomes of others.

mod attack;
mod client;
pub mod frame;
pub mod malformed;
mod run;

pub use attack::Attack;
pub use client::{Client, Fate};
pub use run::{Outcome, Plan, run};
