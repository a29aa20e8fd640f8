//! Servers that say which requests they have seen: hyper's, nginx and Go's net/http.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use integration::process::{Program, free_port};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{Place, place::takes_connections};

/// A request as an upstream reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
}

/// A request, and whether its body was read to its end.
pub(super) type Record = (Seen, bool);

/// A server under way.
pub(super) struct Upstream {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    records: Records,
    program: Option<Program>,
}

/// The header by which an answer is known to be of a recorder.
pub(super) const SEEN: &str = "x-seen";

enum Records {
    Ours(Recorder),
    Printed,
}

impl Upstream {
    /// A server of hyper, in this process.
    pub(super) async fn hyper() -> Self {
        let recorder = Recorder::start().await;
        Self {
            name: "hyper",
            address: recorder.address,
            records: Records::Ours(recorder),
            program: None,
        }
    }

    /// nginx, which reads a request to its end and sends it on to a recorder as it has understood it.
    pub(super) async fn nginx(place: &Place) -> Self {
        let recorder = Recorder::start().await;
        let address = free_port();
        let folder = place.folder().join("nginx");
        std::fs::create_dir_all(&folder).unwrap();
        let folder = folder.display();
        // Nothing is left out because its name looks odd, and no target is tidied up.
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log info;
            events {{ worker_connections 4096; }}
            http {{
              access_log off;
              client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
              uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
              upstream recorder {{ server {recorder}; keepalive 32; }}
              server {{
                listen {address}; merge_slashes off; underscores_in_headers on; ignore_invalid_headers off;
                keepalive_requests 1000000; client_max_body_size 0;
                location / {{
                  proxy_pass http://recorder; proxy_http_version 1.1;
                  proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
                }}
              }}
            }}",
            recorder = recorder.address
        );
        let file = place.folder().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let program = place.start_other(
            "/usr/sbin/nginx".as_ref(),
            &format!("-c {} -p {folder}", file.display()),
        );
        takes_connections(address).await;
        Self {
            name: "nginx",
            address,
            records: Records::Ours(recorder),
            program: Some(program),
        }
    }

    /// A program with Go's own server.
    pub(super) async fn go(place: &Place) -> Self {
        let address = free_port();
        let program = place.start_other(&place.tool("upstream"), &address.to_string());
        takes_connections(address).await;
        Self {
            name: "go",
            address,
            records: Records::Printed,
            program: Some(program),
        }
    }

    /// Everything that it has seen so far.
    pub(super) fn records(&self) -> Vec<Record> {
        match &self.records {
            Records::Ours(recorder) => recorder.records.lock().clone(),
            Records::Printed => {
                let program = self.program.as_ref().expect("it runs");
                program.lines().iter().filter_map(|l| printed(l)).collect()
            }
        }
    }
}

/// Reads a line of the Go program: `saw whole|broken METHOD TARGET BODY.`, the body in hexadecimal.
fn printed(line: &str) -> Option<Record> {
    let mut words = line.strip_prefix("saw ")?.split(' ');
    let whole = words.next()? == "whole";
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let digits = words.next()?.strip_suffix('.')?;
    let body = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect::<Option<_>>()?;
    let seen = Seen {
        method,
        target,
        body,
    };
    Some((seen, whole))
}

/// A server of hyper that keeps what it sees.
struct Recorder {
    address: SocketAddr,
    records: Arc<Mutex<Vec<Record>>>,
    accept: JoinHandle<()>,
}

impl Recorder {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let records = Arc::<Mutex<Vec<Record>>>::default();
        let serving = Arc::clone(&records);
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let records = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&records), request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // It ends with its client.
                tokio::spawn(connection);
            }
        });
        Self {
            address,
            records,
            accept,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn answer(
    records: Arc<Mutex<Vec<Record>>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (parts, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    let mut whole = true;
    while let Some(frame) = incoming.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => body.extend_from_slice(&data),
            // Trailers.
            Ok(Err(_)) => {}
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        body,
    };
    records.lock().push((seen, whole));
    let mut answer = Response::new(Empty::new());
    let headers = answer.headers_mut();
    headers.insert(SEEN, HeaderValue::from_static("yes"));
    Ok(answer)
}

#[test]
fn a_printed_line_is_read_with_its_body() {
    let record = printed("saw whole POST /c1.x 6869.").unwrap();
    let seen = Seen {
        method: "POST".to_owned(),
        target: "/c1.x".to_owned(),
        body: b"hi".to_vec(),
    };
    assert_eq!(record, (seen, true));
    assert!(!printed("saw broken GET / .").unwrap().1);
    assert!(printed("listen tcp: in use").is_none());
}
