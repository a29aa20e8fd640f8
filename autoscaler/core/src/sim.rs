//! A simulator: what a policy would have done with a workload, without a cluster.
//!
//! Discrete events in exact order, and all chance from one seed, so that two policies meet the same requests, the same pods
//! and the same mishaps. The policies are the real ones: the [`crate::Decider`] that runs in the autoscaler, once as it is
//! ([`Policy::Rouse`]) and once as Knative's algorithm exactly ([`Policy::Knative`]).
//!
//! What is modelled: requests that arrive in some [`Shape`] and take some time; pods that take some time to start and may
//! fail to; the hold in front of a workload without pods; places in pods and the queue for them; a scrape each second of
//! which some answers may be lost; a decision every [`crate::TICK`]; Kubernetes' choice of the pods that go; draining.
//! What is not: the time of the control plane (milliseconds), clients that give up, and that a busy pod gets slower.

mod arrivals;
mod compare;
mod dice;
mod engine;
mod outcome;
mod pods;
mod scenarios;
mod tally;

pub use arrivals::{MOST as MOST_REQUESTS, Shape, Spacing};
pub use compare::{Comparison, Overall, Summary};
pub use dice::{BadTime, Time};
pub use engine::{Policy, run};
pub use outcome::{Held, Outcome, Point};
pub use scenarios::{Scenario, SlowStarts, standard};
