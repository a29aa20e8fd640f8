//! Two servers beside each other in one run, slice by slice in turn, so that what the machine does meanwhile happens to both.
//!
//! A block is D A B B A D, where D is what both are measured against, such as the way without a proxy: each arm has its turn twice, early
//! and late, so that a drift of the machine falls on all alike. A and B change places in every second block. Of each block the ratio is
//! taken; what is told is the median of the ratios and the interval for it of the sign test. Between these blocks are as many in which A
//! takes the place of B as well: they say what this run calls a difference where there is none, and without that nothing is claimed.
//!
//! Null blocks are blocks of their own, of the same form, and not the two slices of A that a block has anyway: one slice beside the other
//! is noisier than two beside two, and since the first is always the earlier one a drift would not cancel. So the null test is
//! the same statistic as the one it vouches for.
//!
//! The core is pure: [`plan`] is the order of slices, [`figure`] what is told of them, [`verdict`] what may be said; [`machine`]
//! reads `/proc`, and `run` does it all.

pub(crate) mod args;
pub mod figure;
pub mod machine;
pub mod plan;
pub mod report;
pub(crate) mod run;
pub mod verdict;

pub use report::Ab;
pub use run::{Setup, Stage, run};
