//! Where bounced requests go: an address that always leads to the workload's activators, by name or number.
//!
//! What must stay true: whoever finds it unreachable costs the requests after it nothing, and a request is sent once at most.
//! Which of them are bounced is [`crate::bounce`]'s business.

use std::{fmt, io, net::SocketAddr, pin::pin, str::FromStr, sync::Arc, time::Duration};

use http::{Request, Response};
use parking_lot::Mutex;
use shared::{
    BoxError,
    http::{
        body::Body,
        client::{self, Broken, Client, SendError},
    },
};
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

use self::reach::Reach;

mod reach;

/// Longest time until an activator has taken a connection, and until a name was looked up. In a cluster both take well below a
/// millisecond; a lost SYN is sent again after one second.
pub(crate) const LIMIT: Duration = Duration::from_secs(1);
/// How long an answer of the name service is good for. What stands behind the name, a Service's address, changes with the Service
/// only, and what has moved is noticed by the refusal too.
const FRESH: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried: one of each IP family.
const ADDRESSES: usize = 2;

/// A host and a port, as flags give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    host: Box<str>,
    port: u16,
}

/// A text is no host and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT with a port from 1 to 65535, such as model-rouse.default.svc:80")]
pub struct InvalidHostPort(());

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, InvalidHostPort> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidHostPort(()))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(InvalidHostPort(()))?,
            None if host.contains(':') => return Err(InvalidHostPort(())),
            None => host,
        };
        let is_of_name =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        let port = port.parse().map_err(|_| InvalidHostPort(()))?;
        if host.is_empty() || host.len() > 253 || !host.bytes().all(is_of_name) || port == 0 {
            return Err(InvalidHostPort(()));
        }
        Ok(Self {
            host: host.into(),
            port,
        })
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string().into(),
            port: address.port(),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Nobody can be reached there.
#[derive(Debug, thiserror::Error)]
enum Unreachable {
    #[error("it was not reachable a moment ago")]
    Lately,
    #[error("its name was not found within {LIMIT:?}")]
    Slow,
    #[error("its name was not found")]
    Unknown(#[source] io::Error),
    #[error("its name has no address")]
    Nowhere,
    #[error("its name was not found a moment ago")]
    Shared,
}

/// One target.
#[derive(Debug)]
pub(crate) struct Relay {
    target: HostPort,
    client: client::Config,
    reach: Mutex<Reach>,
    known: Mutex<Known>,
    /// Held while the name is looked up; when that was last begun.
    looking: tokio::sync::Mutex<Option<Instant>>,
}

/// What is behind the name.
#[derive(Debug, Default)]
struct Known {
    clients: Vec<Client>,
    until: Option<Instant>,
}

impl Relay {
    pub(crate) fn new(target: HostPort, client: client::Config) -> Self {
        Self {
            target,
            client: client::Config {
                connect: LIMIT,
                ..client
            },
            reach: Mutex::default(),
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it is worth an attempt.
    pub(crate) fn is_open(&self) -> bool {
        self.reach.lock().is_open(Instant::now())
    }

    /// Sends a request there.
    ///
    /// # Errors
    /// See [`Client::send`]. What was not sent may be served elsewhere.
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        if !self.reach.lock().begin(Instant::now()) {
            return Err(not_sent(Unreachable::Lately.into(), request));
        }
        let clients = match self.clients().await {
            Ok(clients) => clients,
            Err(error) => return Err(self.failed(error, request)),
        };
        let (mut request, mut last) = (request, BoxError::from(Unreachable::Nowhere));
        for client in clients {
            match self.send_by(&client, request).await {
                Err(SendError::NotSent {
                    error,
                    request: back,
                }) => {
                    request = *back;
                    last = error;
                }
                sent => return sent,
            }
        }
        Err(self.failed(last, request))
    }

    /// Sends it to one address. What has not come back when connecting must be over has been taken, although its answer may be
    /// long in coming: others may follow.
    async fn send_by(
        &self,
        client: &Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, SendError> {
        let mut sending = pin!(client.send(request));
        let sent = if let Ok(sent) = timeout(LIMIT * 2, &mut sending).await {
            sent
        } else {
            self.reach.lock().reached();
            sending.await
        };
        match &sent {
            Ok(_) => self.reach.lock().answered(Instant::now()),
            // On HTTP/2 it cannot be told whose fault it was: connecting took a conversation then.
            Err(SendError::Sent(error)) if error.is::<Broken>() => {
                tracing::debug!(target = %self.target, %error, "What was reached gave no answer");
                self.reach.lock().broke(Instant::now());
            }
            Err(SendError::Sent(_)) => self.reach.lock().reached(),
            Err(SendError::NotSent { .. }) => {}
        }
        sent
    }

    fn failed(&self, error: BoxError, request: Request<Body>) -> SendError {
        tracing::debug!(target = %self.target, %error, "No activator can be reached");
        self.reach.lock().failed(Instant::now());
        // It may have moved.
        self.known.lock().until = None;
        not_sent(error, request)
    }

    /// Clients of the addresses behind the name. Of several who want to know, one asks.
    async fn clients(&self) -> Result<Vec<Client>, BoxError> {
        let came = Instant::now();
        if let Some(clients) = self.fresh(came) {
            return Ok(clients);
        }
        let mut looking = self.looking.lock().await;
        if let Some(clients) = self.fresh(Instant::now()) {
            return Ok(clients);
        }
        // Whoever waited for that look shares its outcome: one after the other they would wait for ever.
        if looking.is_some_and(|at| at >= came) {
            return Err(Unreachable::Shared.into());
        }
        *looking = Some(Instant::now());
        let name = (&*self.target.host, self.target.port);
        let found = match timeout(LIMIT, lookup_host(name)).await {
            Ok(Ok(found)) => Ok(one_of_each_family(found)),
            Ok(Err(error)) => Err(Unreachable::Unknown(error)),
            Err(_) => Err(Unreachable::Slow),
        };
        let mut known = self.known.lock();
        match found {
            Ok(addresses) if !addresses.is_empty() => self.keep(&mut known, &addresses),
            // An address that was right is better than none.
            _ if !known.clients.is_empty() => {}
            Ok(_) => return Err(Unreachable::Nowhere.into()),
            Err(error) => return Err(error.into()),
        }
        known.until = Some(Instant::now() + FRESH);
        Ok(known.clients.clone())
    }

    fn fresh(&self, now: Instant) -> Option<Vec<Client>> {
        let known = self.known.lock();
        let fresh = known.until.is_some_and(|until| now < until);
        fresh.then(|| known.clients.clone())
    }

    /// Connections to addresses that stay are kept.
    fn keep(&self, known: &mut Known, addresses: &[SocketAddr]) {
        let old = std::mem::take(&mut known.clients);
        known.clients = addresses
            .iter()
            .map(|&address| {
                let kept = old.iter().find(|client| client.address() == address);
                kept.map_or_else(|| Client::new(address, self.client.clone()), Clone::clone)
            })
            .collect();
        for client in old.iter().filter(|old| !addresses.contains(&old.address())) {
            client.close();
        }
    }
}

/// The first of each IP family, in the order in which they were found.
fn one_of_each_family(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut chosen: Vec<SocketAddr> = Vec::new();
    for address in found {
        if chosen.len() < ADDRESSES && !chosen.iter().any(|one| one.is_ipv4() == address.is_ipv4())
        {
            chosen.push(address);
        }
    }
    chosen
}

fn not_sent(error: BoxError, request: Request<Body>) -> SendError {
    SendError::NotSent {
        error,
        request: Box::new(request),
    }
}

/// The targets of a pod's ports, the n-th for the n-th port; none where there is none. Connections to them are made as those to the
/// model, but for its TLS: that is between the sidecar and the model.
pub(crate) fn relays(
    targets: &[Option<HostPort>],
    client: &client::Config,
) -> Vec<Option<Arc<Relay>>> {
    let client = client::Config {
        tls: None,
        ..client.clone()
    };
    let relay = |target: &HostPort| Arc::new(Relay::new(target.clone(), client.clone()));
    targets
        .iter()
        .map(|target| target.as_ref().map(relay))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_or_an_address_and_a_port() {
        for text in [
            "iris-rouse.default.svc:80",
            "127.0.0.1:10000",
            "[::1]:8080",
            "localhost:65535",
        ] {
            let read: HostPort = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "",
            ":80",
            "iris",
            "iris:",
            "iris:0",
            "iris:65536",
            "iris:-1",
            "::1:80",
            "[::1:80",
            "[]:80",
            "a b:80",
            "http://iris:80",
            "iris/x:80",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn of_many_addresses_the_first_of_each_family_is_tried() {
        let all = ["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "[fd00::2]:1"];
        let all = all.map(|a| a.parse().unwrap());
        assert_eq!(one_of_each_family(all.into_iter()), [all[0], all[2]]);
    }

    fn get() -> Request<Body> {
        Request::get("/")
            .header("host", "a")
            .body(Body::empty())
            .unwrap()
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_and_a_port_that_nobody_has_give_the_request_back() {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = HostPort::from(nobody.local_addr().unwrap());
        drop(nobody);
        // A name that is never given away: RFC 6761 section 6.4.
        let unknown: HostPort = "rouse.invalid:80".parse().unwrap();
        for target in [refused, unknown] {
            let relay = Relay::new(target, client::Config::default());
            assert!(relay.is_open());
            for _ in 0..2 {
                let sent = relay.send(get()).await;
                assert!(matches!(sent, Err(SendError::NotSent { .. })), "{sent:?}");
                assert!(!relay.is_open(), "once is enough");
            }
        }
    }
}
