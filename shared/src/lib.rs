//! What every Rouse program needs: identities, the wire form of statistics, the header names of our own hops,
//! HTTP glue over hyper, telemetry and shutdown.
//!
//! Nothing here knows Kubernetes or scaling. A module enters when two programs use it and leaves when one does.

pub mod admin;
pub mod clock;
pub mod error;
pub mod files;
pub mod headers;
pub mod http;
pub mod load;
pub mod metrics;
pub mod openai;
pub mod record;
pub mod runtime;
pub mod scale;
pub mod share;
pub mod shutdown;
pub mod stat;
pub mod target;
pub mod telemetry;
pub mod trace;

pub use error::{BoxError, Origin};
pub use target::TargetId;
