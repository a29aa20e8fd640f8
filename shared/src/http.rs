//! HTTP glue over hyper that both proxies share.

pub mod body;
pub mod client;
pub mod guard;
pub mod h1;
pub mod probe;
mod read_size;
pub mod sanitize;
pub mod serve;
pub mod tls;
pub mod tunnel;
mod wire;
