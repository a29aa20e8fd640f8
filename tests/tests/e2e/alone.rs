//! Tests that stop or kill what every test relies on, and tests that take times: one after another, with nothing beside them.

mod bursts;
mod deaths;
mod floors;
mod idle;
mod leader;
mod learned;
mod leaving;
mod protocols;
mod study;
