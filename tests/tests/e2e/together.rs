//! Tests that touch only their own namespace: some of them run at once.

mod access;
mod benchmark;
mod broken;
mod cold;
mod commands;
mod hung;
mod iris;
mod kept;
mod killed;
mod late;
mod misdirected;
mod opting;
mod quota;
mod rights;
mod scaling;
mod settling;
mod spread;
mod starting;
mod strangers;
mod writers;
