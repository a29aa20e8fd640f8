//! Tests that touch only their own namespace: some of them run at once.

mod broken;
mod cold;
mod iris;
mod opting;
mod scaling;
