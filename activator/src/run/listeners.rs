//! The listeners of one workload, which may come and go, and what happens to the connections of all of them.

use std::net::SocketAddr;

use parking_lot::Mutex;
use shared::http::serve::{Disposition, Server};

/// A workload's listeners.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    servers: Vec<Server>,
    disposition: Option<Disposition>,
}

impl Listeners {
    /// One more. Its connections are treated as those of the others are.
    pub(crate) fn add(&self, server: Server) {
        let mut inner = self.0.lock();
        if let Some(disposition) = inner.disposition {
            server.disposer().set(disposition);
        }
        inner.servers.push(server);
    }

    /// Takes one out.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<Server> {
        let mut inner = self.0.lock();
        let at = inner
            .servers
            .iter()
            .position(|server| server.address() == address)?;
        Some(inner.servers.swap_remove(at))
    }

    /// No new connections; those that are there go on.
    pub(crate) fn stop_accepting(&self) {
        for server in &self.0.lock().servers {
            server.stop_accepting();
        }
    }

    /// Takes all out.
    pub(crate) fn take_all(&self) -> Vec<Server> {
        std::mem::take(&mut self.0.lock().servers)
    }

    /// What happens to connections from now on.
    pub(crate) fn set(&self, disposition: Disposition) {
        let mut inner = self.0.lock();
        inner.disposition = Some(disposition);
        for server in &inner.servers {
            server.disposer().set(disposition);
        }
    }
}
