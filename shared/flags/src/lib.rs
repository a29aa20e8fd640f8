//! Flags that the sidecar and the activator have in common, to be flattened into the command line of each.
//!
//! They are not in `shared`, as the autoscaler and the tests of that crate need no command line. The structs have no doc comments:
//! clap would take those of a flattened group for the program's own (clap's derive reference, "Doc comments").

mod recording;
mod tls;

pub use self::{
    recording::{CannotRecord, Recording},
    tls::{Listeners, Upstream},
};
