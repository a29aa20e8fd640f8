//! The client against servers that do what no library's server does.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    request::Delimited,
    socket::Socket,
    upload::{Stopped, Upload},
    *,
};

const LONG: Duration = Duration::from_secs(10);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn server() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap(), Config::default());
    (listener, client)
}

fn get() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

/// Reads to the end of a head; what came behind it is in the buffer.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            buffer.drain(..at + 4);
            return;
        }
        assert!(stream.read_buf(buffer).await.unwrap() > 0, "no head");
    }
}

async fn text(answer: Response<Body>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

/// A body of this many pieces of 64 KiB, which says when the last was taken.
struct Pieces {
    left: usize,
    done: Arc<tokio::sync::Notify>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            self.done.notify_one();
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; 64 * 1024].into()))))
    }
}

/// A request of 8 MiB in chunks, and when all of it was taken.
fn large() -> (Request<Body>, Arc<tokio::sync::Notify>) {
    let done = Arc::default();
    let pieces = Pieces {
        left: 128,
        done: Arc::clone(&done),
    };
    let request = Request::post("/").body(Body::made(pieces)).unwrap();
    (request, done)
}

/// Reads until the end of a chunked body; returns what came behind it.
async fn read_chunks(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    mut last: Vec<u8>,
) -> Vec<u8> {
    const END: &[u8] = b"\r\n0\r\n\r\n";
    let mut piece = vec![0; 256 * 1024];
    loop {
        if let Some(at) = last.windows(END.len()).position(|bytes| bytes == END) {
            return last.split_off(at + END.len());
        }
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "no end");
        // The end, and a request behind it, are shorter than that.
        last.drain(..last.len().saturating_sub(1024));
        last.extend_from_slice(&piece[n.saturating_sub(1024)..n]);
    }
}

/// Waits until there is a connection to be used again.
async fn kept(client: &Client) {
    let kept = async {
        while client.inner.idle.lock().lines.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, kept).await.expect("a kept connection");
}

/// A client of which as many connections are on their way as may be, and those.
fn crowded(client: &Client) -> Vec<kept::Place> {
    let places = std::iter::from_fn(|| client.inner.place().ok());
    let places: Vec<_> = places.collect();
    assert_eq!(places.len(), kept::CONNECTING);
    places
}

/// Waits until so many wait for a connection.
async fn waiting(client: &Client, n: usize) {
    let waiting = async {
        while client.inner.idle.lock().waiting.len() < n {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, waiting).await.expect("somebody who waits");
}

#[tokio::test]
async fn one_of_a_crowd_goes_on_with_what_comes_first_a_connection_given_back_or_leave_to_make_one()
{
    let (listener, client) = server().await;
    let of_first = client.clone();
    let first = tokio::spawn(async move { of_first.send(get()).await.unwrap() });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buffer = Vec::new();
    read_head(&mut stream, &mut buffer).await;
    let mut places = crowded(&client);
    // The test's own attempt at one more waits in the queue too, and has left.
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { client.send(get()).await })
    };
    let left = send();
    waiting(&client, 2).await;
    let second = send();
    waiting(&client, 3).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());

    // The answer to the first gives its connection back, and to the one who is there.
    stream.write_all(OK).await.unwrap();
    assert_eq!(text(first.await.unwrap()).await, "ok");
    timeout(LONG, read_head(&mut stream, &mut buffer))
        .await
        .expect("the second");

    // With that one busy a third has leave to make one when a place is free.
    let third = send();
    waiting(&client, 1).await;
    drop(places.pop());
    let (mut other, _) = timeout(LONG, listener.accept())
        .await
        .expect("another")
        .unwrap();
    read_head(&mut other, &mut Vec::new()).await;
    for (mut stream, asked) in [(stream, second), (other, third)] {
        stream.write_all(OK).await.unwrap();
        assert_eq!(text(asked.await.unwrap().unwrap()).await, "ok");
    }
    drop(places);
    assert_eq!(crowded(&client).len(), kept::CONNECTING, "no place is lost");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_others_waits_no_longer_than_a_connection_may_take_and_sent_nothing() {
    let (_listener, client) = server().await;
    let _places = crowded(&client);
    let start = tokio::time::Instant::now();
    let failed = client.send(get()).await.unwrap_err();
    assert_eq!(start.elapsed(), Config::default().connect);
    let SendError::NotSent { error, .. } = failed else {
        panic!("{failed:?}");
    };
    assert!(is_connect_error(&error));
}

#[test]
fn connections_are_given_up_well_before_gunicorn_closes_them() {
    let gunicorn = Duration::from_secs(2);
    assert!(Config::default().idle <= gunicorn / 2);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_when_it_is_too_old() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config {
        idle: Duration::from_millis(50),
        ..Config::default()
    };
    let client = Client::new(listener.local_addr().unwrap(), config);
    for _ in 0..2 {
        let server = async {
            let mut stream = listener.accept().await.unwrap().0;
            let mut bytes = [0; 1024];
            assert!(stream.read(&mut bytes).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            // Nobody sends or takes another: its end is the client's doing.
            let end = timeout(Duration::from_secs(10), stream.read(&mut bytes)).await;
            assert_eq!(end.unwrap().unwrap(), 0);
        };
        let asking = async { drop(client.send(get()).await.unwrap()) };
        tokio::join!(asking, server);
        assert!(client.inner.idle.lock().lines.is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_takes_the_kept_ones_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap(), Config::default());
    let answer = async |stream: &mut TcpStream, bytes: &[u8]| {
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(bytes).await.unwrap();
    };
    // Two at once, so that two connections are kept.
    let (first, second) = (client.send(get()), client.send(get()));
    let model = async {
        let mut streams = [
            listener.accept().await.unwrap().0,
            listener.accept().await.unwrap().0,
        ];
        for stream in &mut streams {
            answer(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
        streams
    };
    let (first, second, mut streams) = tokio::join!(first, second, model);
    drop((first.unwrap(), second.unwrap()));
    while client.inner.idle.lock().lines.len() < 2 {
        tokio::task::yield_now().await;
    }
    // The newest is used first; it breaks after the request was read.
    let (sent, ()) = tokio::join!(client.send(get()), async {
        let [a, b] = &mut streams;
        let (mut one, mut other) = ([0; 1024], [0; 1024]);
        tokio::select! {
            _ = a.read(&mut one) => {}
            _ = b.read(&mut other) => {}
        }
        // Only the one that was read from is closed; the other looks alive.
        if one[0] == 0 { b } else { a }.shutdown().await.unwrap();
    });
    assert!(matches!(sent, Err(SendError::Sent(_))), "{sent:?}");
    assert!(client.inner.idle.lock().lines.is_empty());
}

#[tokio::test]
async fn a_connection_with_more_on_it_than_was_asked_for_is_not_used_again() {
    for more in [OK, b""] {
        let (listener, client) = server().await;
        let (sending, mut sent) = tokio::sync::mpsc::channel(1);
        let serving = tokio::spawn(async move {
            for _ in 0..2 {
                let mut stream = listener.accept().await.unwrap().0;
                read_head(&mut stream, &mut Vec::new()).await;
                stream.write_all(OK).await.unwrap();
                stream.write_all(more).await.unwrap();
                // The end comes as unasked.
                drop(stream);
                sending.send(()).await.unwrap();
            }
        });
        for _ in 0..2 {
            let answer = timeout(LONG, client.send(get())).await.unwrap();
            assert_eq!(text(answer.unwrap()).await, "ok");
            let told = timeout(LONG, sent.recv()).await.unwrap();
            told.expect("what is sent behind the answer is there");
        }
        serving.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_begins_early_and_the_request_do_not_wait_for_each_other() {
    const ANSWER: usize = 8 << 20;
    let (listener, client) = server().await;
    let serving = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut buffer = Vec::new();
        read_head(&mut stream, &mut buffer).await;
        let (mut read, mut write) = stream.into_split();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER}\r\n\r\n");
        let answering = async {
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&vec![b'y'; ANSWER]).await.unwrap();
        };
        let ((), mut behind) = tokio::join!(answering, read_chunks(&mut read, buffer));
        // The connection is used again.
        let mut stream = read.reunite(write).unwrap();
        read_head(&mut stream, &mut behind).await;
        stream.write_all(OK).await.unwrap();
    });
    let (request, done) = large();
    let answer = timeout(LONG, client.send(request)).await.unwrap().unwrap();
    timeout(LONG, done.notified())
        .await
        .expect("sent, although nothing is read");
    assert_eq!(text(answer).await.len(), ANSWER);
    kept(&client).await;
    let answer = timeout(LONG, client.send(get())).await.unwrap();
    assert_eq!(text(answer.unwrap()).await, "ok");
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_answer_is_through_is_sent_to_its_end() {
    let (listener, client) = server().await;
    let serving = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut buffer = Vec::new();
        read_head(&mut stream, &mut buffer).await;
        stream.write_all(OK).await.unwrap();
        let mut behind = read_chunks(&mut stream, buffer).await;
        read_head(&mut stream, &mut behind).await;
        stream.write_all(OK).await.unwrap();
    });
    let (request, done) = large();
    let answer = timeout(LONG, client.send(request)).await.unwrap().unwrap();
    assert_eq!(text(answer).await, "ok");
    timeout(LONG, done.notified()).await.unwrap();
    kept(&client).await;
    let answer = timeout(LONG, client.send(get())).await.unwrap();
    assert_eq!(text(answer.unwrap()).await, "ok");
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drops_an_answer_that_began_early_ends_the_request_too() {
    let (listener, client) = server().await;
    let serving = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut buffer = Vec::new();
        read_head(&mut stream, &mut buffer).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
        stream.write_all(head).await.unwrap();
        let mut sink = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut sink).await {
                Ok(1..) => {}
                end => return end.is_err(),
            }
        }
    });
    let pending = http_body_util::StreamBody::new(futures_util::stream::pending());
    let request = Request::post("/").body(Body::made(pending)).unwrap();
    let mut answer = timeout(LONG, client.send(request)).await.unwrap().unwrap();
    let frame = answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "x");
    drop(answer);
    assert!(
        timeout(LONG, serving).await.unwrap().unwrap(),
        "it is reset"
    );
}

#[tokio::test]
async fn informational_answers_are_told_and_a_head_without_an_end_is_none() {
    let (listener, client) = server().await;
    let serving = tokio::spawn(async move {
        let early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".as_slice();
        let mut stream = listener.accept().await.unwrap().0;
        read_head(&mut stream, &mut Vec::new()).await;
        for part in [early, b"HTTP/1.1 100 Continue\r\n\r\n", OK] {
            stream.write_all(part).await.unwrap();
        }
        read_head(&mut stream, &mut Vec::new()).await;
        stream.write_all(&early.repeat(10_000)).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(b"a: b\r\n").await.is_ok() {}
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut request = get();
    let saw = Arc::clone(&seen);
    on_informational(&mut request, move |status| saw.lock().push(status.as_u16()));
    assert_eq!(text(client.send(request).await.unwrap()).await, "ok");
    assert_eq!(*seen.lock(), [103, 100]);
    let sent = timeout(LONG, client.send(get())).await.expect("an end");
    assert!(matches!(sent, Err(SendError::Sent(_))), "{sent:?}");
    timeout(LONG, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_could_not_be_sent_at_all_is_whole() {
    let (listener, _) = server().await;
    let stream = TcpStream::connect(listener.local_addr().unwrap());
    let (stream, accepted) = tokio::join!(stream, listener.accept());
    let (stream, accepted) = (stream.unwrap(), accepted.unwrap().0);
    accepted.set_zero_linger().unwrap();
    drop(accepted);
    stream.readable().await.unwrap();
    let mut socket = Socket::new(Wire::Plain(stream));
    let mut body = Body::full("hello");
    let mut upload = Upload::new("head".into(), Delimited::Length(5));
    let sent = std::future::poll_fn(|cx| upload.poll(cx, &mut socket, &mut body)).await;
    assert!(matches!(sent, Err(Stopped::Connection(_))), "{sent:?}");
    assert!(!upload.has_begun());
    upload.undo(&mut body);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn an_answer_that_is_left_with_little_to_come_keeps_its_connection() {
    let (listener, client) = server().await;
    let serving = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        for _ in 0..2 {
            read_head(&mut stream, &mut Vec::new()).await;
            stream.write_all(&OK[..OK.len() - 1]).await.unwrap();
            stream.write_all(&OK[OK.len() - 1..]).await.unwrap();
        }
    });
    for _ in 0..2 {
        drop(timeout(LONG, client.send(get())).await.unwrap().unwrap());
        kept(&client).await;
    }
    serving.await.unwrap();
}

/// A body whose parts a test sends.
struct Owed(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Owed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

/// A server whose first connection answers early, as `go` says, and then only reads; all others answer each request.
async fn answers_early(listener: TcpListener, mut go: tokio::sync::mpsc::Receiver<()>) {
    let mut first = listener.accept().await.unwrap().0;
    let early = async {
        read_head(&mut first, &mut Vec::new()).await;
        let (head, body) = OK.split_at(OK.len() - 2);
        first.write_all(head).await.unwrap();
        go.recv().await.unwrap();
        // It may be reset by now.
        let _gone = first.write_all(body).await;
        let mut sink = [0; 1024];
        while let Ok(1..) = first.read(&mut sink).await {}
        std::future::pending::<()>().await;
    };
    let others = async {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
                    if buffer.ends_with(b"\r\n\r\n") {
                        buffer.clear();
                        stream.write_all(OK).await.unwrap();
                    }
                }
            });
        }
    };
    tokio::join!(early, others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_a_part_of_a_request_is_owed_is_not_used_again() {
    for way in ["read", "left", "broken"] {
        let (listener, client) = server().await;
        let (go, going) = tokio::sync::mpsc::channel(1);
        let serving = tokio::spawn(answers_early(listener, going));
        let (parts, owed) = tokio::sync::mpsc::channel(1);
        let request = Request::post("/").body(Body::made(Owed(owed))).unwrap();
        let answer = timeout(LONG, client.send(request)).await.unwrap().unwrap();
        match way {
            "read" => {
                go.send(()).await.unwrap();
                assert_eq!(text(answer).await, "ok");
            }
            "left" => {
                drop(answer);
                go.send(()).await.unwrap();
            }
            _ => {
                parts.send(Err("broke off".into())).await.unwrap();
                let error = answer.into_body().collect().await.unwrap_err();
                assert!(crate::http::body::BodyBroken::behind(&error).is_some());
                go.send(()).await.unwrap();
            }
        }
        for _ in 0..20 {
            // Two, so that all that are kept are used.
            let (one, other) = (client.send(get()), client.send(get()));
            let both = async { tokio::join!(one, other) };
            let (one, other) = timeout(LONG, both).await.expect(way);
            assert_eq!(text(one.unwrap()).await, "ok");
            assert_eq!(text(other.unwrap()).await, "ok");
        }
        serving.abort();
    }
}

#[tokio::test]
async fn trailers_that_were_taken_and_put_back_are_there() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("a"));
    let mut body = Body::empty();
    body.put_back(Frame::trailers(trailers.clone()));
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
}
