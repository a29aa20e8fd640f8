//! HTTP/2, frame by frame (RFC 9113, section 4.1).

use std::{collections::BTreeMap, time::Duration};

use http::Method;
use loadtests::{
    Config,
    config::{Limit, Load},
    payload::Payload,
    record::ErrorKind,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::server::{raw, run};

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
/// Of DATA and HEADERS.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Of SETTINGS.
const ACK: u8 = 1;
/// `:status: 200`, which is in the static table of HPACK.
const STATUS_200: &[u8] = &[0x88];
/// `a: b`, as it is.
const TRAILERS: &[u8] = b"\x00\x01a\x01b";
const NO_ERROR: &[u8] = &[0; 4];

/// Type, flags and payload.
type Frame = (u8, u8, &'static [u8]);

async fn send(stream: &mut TcpStream, id: u32, frames: &[Frame]) {
    let mut bytes = Vec::new();
    for (kind, flags, payload) in frames {
        bytes.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
        bytes.extend([*kind, *flags]);
        bytes.extend(id.to_be_bytes());
        bytes.extend(*payload);
    }
    let _ = stream.write_all(&bytes).await;
}

/// Answers each request, as soon as its head is there, with these frames at once.
async fn framed(frames: &'static [Frame]) -> String {
    raw(move |mut stream: TcpStream| async move {
        let mut preface = [0; PREFACE];
        let _ = stream.read_exact(&mut preface).await;
        send(&mut stream, 0, &[(SETTINGS, 0, b"")]).await;
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let [a, b, c, kind, flags, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            let _ = stream.read_exact(&mut payload).await;
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    send(&mut stream, 0, &[(SETTINGS, ACK, b"")]).await;
                }
                HEADERS => send(&mut stream, u32::from_be_bytes(id), frames).await,
                _ => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_reset_without_an_error_makes_no_body_whole_that_has_not_ended_and_breaks_none_that_has()
{
    let head = (HEADERS, END_HEADERS, STATUS_200);
    let reset = (RST_STREAM, 0, NO_ERROR);
    let cases: [(&'static [Frame], bool); 6] = [
        (vec![head, (DATA, 0, b"half"), reset].leak(), false),
        (vec![head, reset].leak(), false),
        (vec![head, (DATA, END_STREAM, b"whole"), reset].leak(), true),
        (vec![head, (DATA, END_STREAM, b"whole")].leak(), true),
        (
            vec![
                head,
                (DATA, 0, b"whole"),
                (HEADERS, END_HEADERS | END_STREAM, TRAILERS),
                reset,
            ]
            .leak(),
            true,
        ),
        (
            vec![(HEADERS, END_HEADERS | END_STREAM, STATUS_200), reset].leak(),
            true,
        ),
    ];
    // With and without a request that is still on its way then, as it does not fit into what may be sent at once.
    for (body, frames, is_whole) in cases
        .into_iter()
        .flat_map(|(frames, is_whole)| [0, 200_000].map(|body| (body, frames, is_whole)))
    {
        let mut config = Config::new(&framed(frames).await).unwrap();
        config.load = Load::Closed(Limit::Requests(3));
        (config.http2, config.connection_requests) = (true, Some(1));
        config.timeout = Duration::from_secs(5);
        config.method = Method::POST;
        config.body = Payload::Same(vec![b'x'; body].into());
        let summary = run(config).await.summary;
        let wanted = if is_whole {
            BTreeMap::new()
        } else {
            [(ErrorKind::Body, 3)].into()
        };
        assert_eq!(summary.errors, wanted, "{frames:?} {body}");
        assert_eq!(summary.successes, if is_whole { 3 } else { 0 });
    }
}
