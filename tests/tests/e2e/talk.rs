//! What is open for long and exchanges messages: a WebSocket, a stream of events, a gRPC call. Each message has its number, so
//! that none can be lost, doubled or put in another's place without being seen.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use integration::{
    Fate,
    client::{Account, Connection, REQUEST_ID, get},
    grpc::{Call, Channel},
};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::space::LONG;

/// Between two messages.
const GAP: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    WebSocket,
    Sse,
    Grpc,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::WebSocket, Self::Sse, Self::Grpc];
}

/// Something that is open.
pub(crate) struct Talk {
    /// The pod that serves it.
    pub(crate) served_by: String,
    /// How long it was held, or queued.
    pub(crate) timing: String,
    task: JoinHandle<usize>,
}

impl Talk {
    /// Opens one and exchanges its first message. Others follow until `end`; then it is closed as its protocol wants it.
    pub(crate) async fn open(
        protocol: Protocol,
        address: SocketAddr,
        account: &Account,
        end: Instant,
    ) -> Self {
        let id = account.name();
        let opening = Line::open(protocol, address, &id, end);
        let (mut line, head) = timeout(LONG, opening).await.expect("its head in time");
        line.exchange(0).await;
        let header = |name| head.get(name).map_or("", |value| value.to_str().unwrap());
        let account = account.clone();
        Self {
            served_by: header("x-served-by").to_owned(),
            timing: header("rouse-timing").to_owned(),
            task: tokio::spawn(async move {
                let mut count = 1;
                while line.goes_on(count, end) {
                    line.exchange(count).await;
                    count += 1;
                }
                line.close().await;
                account.tell(id, Fate::Answered(200));
                count
            }),
        }
    }

    /// Whether it is still open.
    pub(crate) fn is_open(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits for its end and returns how many messages were exchanged.
    pub(crate) async fn ended(self) -> usize {
        let ended = timeout(LONG, self.task).await.expect("its end in time");
        ended.expect("every message came, in its order")
    }
}

enum Line {
    Socket(Box<WebSocketStream<TcpStream>>),
    Events {
        body: Incoming,
        read: String,
        count: usize,
    },
    Call(Call),
}

impl Line {
    async fn open(
        protocol: Protocol,
        address: SocketAddr,
        id: &str,
        end: Instant,
    ) -> (Self, HeaderMap) {
        match protocol {
            Protocol::WebSocket => {
                let url = format!("ws://{address}/ws");
                let mut request = url.into_client_request().unwrap();
                request
                    .headers_mut()
                    .insert(REQUEST_ID, id.parse().unwrap());
                let stream = TcpStream::connect(address).await.unwrap();
                let (socket, response) = client_async(request, stream).await.unwrap();
                (
                    Self::Socket(Box::new(socket)),
                    response.into_parts().0.headers,
                )
            }
            Protocol::Sse => {
                let left = end.duration_since(Instant::now()).as_millis() / GAP.as_millis();
                let count = usize::try_from(left).unwrap().max(2);
                let mut request = get(&format!("/sse?n={count}&ms={}", GAP.as_millis()));
                request
                    .headers_mut()
                    .insert(REQUEST_ID, id.parse().unwrap());
                let mut connection = Connection::open(address).await.unwrap();
                let (head, body) = connection.start(request).await.unwrap().into_parts();
                assert_eq!(head.status, 200);
                let read = String::new();
                (Self::Events { body, read, count }, head.headers)
            }
            Protocol::Grpc => {
                let channel = Channel::open(address).await.unwrap();
                let call = channel.begin(id, "message 0").await.unwrap();
                let head = call.head.clone();
                (Self::Call(call), head)
            }
        }
    }

    /// Whether there is a message of this number.
    fn goes_on(&self, n: usize, end: Instant) -> bool {
        match self {
            Self::Events { count, .. } => n < *count,
            Self::Socket(_) | Self::Call(_) => Instant::now() < end,
        }
    }

    /// Sends message `n` and waits for its echo, or waits for event `n`.
    async fn exchange(&mut self, n: usize) {
        let said = format!("message {n}");
        match self {
            Self::Socket(socket) => {
                sleep(GAP).await;
                socket.send(Message::text(said.clone())).await.unwrap();
                let heard = timeout(LONG, socket.next()).await.expect("an echo in time");
                assert_eq!(heard.unwrap().unwrap(), Message::text(said));
            }
            Self::Events { .. } => {
                let event = self.event().await;
                assert_eq!(event.unwrap(), format!("data: {{\"index\":{n}}}"));
            }
            Self::Call(call) => {
                if n > 0 {
                    sleep(GAP).await;
                    call.say(&said);
                }
                let heard = timeout(LONG, call.hear()).await.expect("an echo in time");
                assert_eq!(heard, Ok(Some(said)));
            }
        }
    }

    /// The next event, whole.
    async fn event(&mut self) -> Option<String> {
        let Self::Events { body, read, .. } = self else {
            return None;
        };
        loop {
            if let Some((event, rest)) = read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                *read = rest;
                return Some(event);
            }
            let frame = timeout(LONG, body.frame()).await.expect("an event in time");
            let data = frame?.unwrap().into_data().unwrap();
            read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    async fn close(mut self) {
        match &mut self {
            Self::Socket(socket) => {
                socket.close().await.unwrap();
                let close = timeout(LONG, socket.next()).await.expect("a close in time");
                assert!(close.unwrap().unwrap().is_close());
            }
            Self::Events { .. } => {
                assert_eq!(self.event().await.as_deref(), Some("data: [DONE]"));
                assert_eq!(self.event().await, None);
            }
            Self::Call(call) => {
                call.done();
                let end = timeout(LONG, call.hear()).await.expect("an end in time");
                assert_eq!(end, Ok(None));
            }
        }
    }
}
