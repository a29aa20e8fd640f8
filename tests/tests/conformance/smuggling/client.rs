//! Sends a connection's bytes as they are and reads the answers.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::upstream::SEEN;

/// How long an answer that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to look for an answer that must not come.
const LOOK: Duration = Duration::from_millis(30);

/// What matters of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// It is an upstream's own, so that the upstream has seen the request.
    pub(super) seen: bool,
}

/// The answers of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) all: Vec<Answer>,
    /// The other side closed it.
    pub(super) closed: bool,
    /// Answers that had to come did not come in time.
    pub(super) stuck: bool,
}

/// Sends `bytes` and reads until there are `count` answers, and, if an `end` must follow, for that; otherwise for a
/// moment longer.
pub(super) async fn talk(address: SocketAddr, bytes: &[u8], count: usize, end: bool) -> Answers {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("it is a socket");
    // It may be refused before the last byte is written.
    let _refused = stream.write_all(bytes).await;
    let mut read = Vec::new();
    let mut answers = Answers {
        all: Vec::new(),
        closed: false,
        stuck: false,
    };
    loop {
        let enough = answers.all.len() >= count;
        let limit = if enough && !end { LOOK } else { PATIENCE };
        match timeout(limit, stream.read_buf(&mut read)).await {
            Ok(Ok(1..)) => {}
            // A reset after the answers is an end too.
            Ok(Ok(0) | Err(_)) => {
                answers.closed = true;
                return answers;
            }
            Err(_) => {
                answers.stuck = !enough || end;
                return answers;
            }
        }
        while let Some((answer, length)) = first(&read) {
            read.drain(..length);
            if answer.status >= 200 {
                answers.all.push(answer);
            }
        }
    }
}

/// The first answer of `bytes` if it is whole, and its length.
fn first(bytes: &[u8]) -> Option<(Answer, usize)> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let body = if field("transfer-encoding").is_some() {
        // No chunk of an answer here has the end of one in it.
        find(&bytes[head..], b"0\r\n\r\n")? + 5
    } else {
        field("content-length").map_or(0, |n| n.parse().expect("a length"))
    };
    let seen = field(SEEN).is_some();
    (bytes.len() >= head + body).then_some((Answer { status, seen }, head + body))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|w| w == needle)
}
