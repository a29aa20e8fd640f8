//! A body as it comes in over a connection, the sum of its bytes for who wants one, and the least pace at which its client has to send it.
//!
//! A request holds its slot from the first byte on, so a client that sends a byte now and then would hold it for as long as it
//! likes. Only time in which somebody waits for the client counts: who is kept from sending by a full window or by a model that
//! reads slowly loses nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{BoxError, record::Tally};

/// The least that a client has to send of a body while it is waited for.
///
/// A bucket of time: waiting takes from it, each byte puts 1 / `bytes_per_second` back, and more than `grace` is never in it. So
/// nobody is waited for in one piece longer than `grace`, however much came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// At least 1.
    pub bytes_per_second: u32,
    /// What there is to begin with.
    pub grace: Duration,
}

impl Pace {
    /// Time in which a client that keeps to the pace may send nothing: above the 20 s that Apache's `mod_reqtimeout` gives a body to
    /// begin with, and half of nginx's `client_body_timeout`.
    pub const GRACE: Duration = Duration::from_secs(30);

    /// `bytes_per_second` with the usual [`Self::GRACE`]; none for 0.
    pub fn at_least(bytes_per_second: u32) -> Option<Self> {
        (bytes_per_second > 0).then_some(Self {
            bytes_per_second,
            grace: Self::GRACE,
        })
    }

    /// The pace for a request with these headers. One whose body is a conversation (gRPC, Connect) may be silent for as long as it
    /// likes.
    #[must_use]
    pub fn of(self, headers: &HeaderMap) -> Option<Self> {
        let converses = headers.get(CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.as_bytes();
            kind.starts_with(b"application/grpc") || kind.starts_with(b"application/connect+")
        });
        (!converses).then_some(self)
    }

    fn worth(self, bytes: usize) -> Duration {
        let nanos =
            (bytes as u64).saturating_mul(1_000_000_000) / u64::from(self.bytes_per_second.max(1));
        Duration::from_nanos(nanos).min(self.grace)
    }
}

impl Default for Pace {
    /// 240 bytes a second, which is what Kestrel asks for: the slowest modems were faster.
    fn default() -> Self {
        Self {
            bytes_per_second: 240,
            grace: Self::GRACE,
        }
    }
}

/// The client sent less than it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request body came too slowly")]
pub struct TooSlow;

/// The body.
#[derive(Debug)]
pub(super) struct Inbound<B = Incoming> {
    body: B,
    pace: Option<Pace>,
    tally: Tally,
    /// Made when the client is first waited for, which it never is for most bodies.
    wait: Option<Box<Wait>>,
}

#[derive(Debug)]
struct Wait {
    /// What is left, as of `since`.
    left: Duration,
    /// Since when the client is being waited for.
    since: Option<Instant>,
    over: Pin<Box<Sleep>>,
}

impl<B> From<B> for Inbound<B> {
    fn from(body: B) -> Self {
        Self::tallied(body, Tally::default())
    }
}

impl<B> Inbound<B> {
    /// One whose bytes are added up as they are read.
    pub(super) fn tallied(body: B, tally: Tally) -> Self {
        Self {
            body,
            pace: None,
            tally,
            wait: None,
        }
    }

    /// Holds its client to `pace` from now on.
    pub(super) fn set_pace(&mut self, pace: Option<Pace>) {
        self.pace = pace;
    }
}

impl<B> Inbound<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.tally.add_frame(frame.as_ref());
                if let (Some(pace), Some(wait)) = (self.pace, &mut self.wait) {
                    let came = match &frame {
                        Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                        Some(Err(_)) | None => 0,
                    };
                    wait.came(pace, came, Instant::now());
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => match self.pace {
                Some(pace) => self.wait(pace, cx),
                None => Poll::Pending,
            },
        }
    }

    fn wait(
        &mut self,
        pace: Pace,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let now = Instant::now();
        let wait = self.wait.get_or_insert_with(|| {
            Box::new(Wait {
                left: pace.grace,
                since: None,
                over: Box::pin(sleep_until(now + pace.grace)),
            })
        });
        if wait.since.is_none() {
            wait.since = Some(now);
            let end = now + wait.left;
            wait.over.as_mut().reset(end);
        }
        wait.over
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(TooSlow.into())))
    }
}

impl Wait {
    /// Bytes came that were waited for, or that were there at once.
    fn came(&mut self, pace: Pace, bytes: usize, now: Instant) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(now - since);
        }
        self.left = (self.left + pace.worth(bytes)).min(pace.grace);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::HeaderValue;
    use tokio::{
        sync::mpsc,
        time::{advance, sleep},
    };

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const PACE: Pace = Pace {
        bytes_per_second: 100,
        grace: Duration::from_secs(10),
    };

    /// A body that a test sends.
    struct Sent(mpsc::Receiver<Bytes>);

    impl Body for Sent {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0
                .poll_recv(cx)
                .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn body(pace: Option<Pace>) -> (mpsc::Sender<Bytes>, Inbound<Sent>) {
        let (client, sent) = mpsc::channel(16);
        let mut inbound = Inbound::from(Sent(sent));
        inbound.set_pace(pace);
        (client, inbound)
    }

    async fn read(inbound: &mut Inbound<Sent>) -> Option<Result<Bytes, BoxError>> {
        poll_fn(|cx| inbound.poll_frame(cx))
            .await
            .map(|frame| Ok(frame?.into_data().unwrap_or_default()))
    }

    /// Sends `bytes` each second, and returns after how many seconds that was too little.
    async fn endured(bytes: usize, most: u64) -> Option<u64> {
        let (client, mut inbound) = body(Some(PACE));
        let start = Instant::now();
        let sending = tokio::spawn(async move {
            loop {
                sleep(S(1)).await;
                if client.send(vec![0; bytes].into()).await.is_err() {
                    return;
                }
            }
        });
        let end = loop {
            match read(&mut inbound).await {
                Some(Ok(_)) if start.elapsed() >= S(most) => break None,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    assert!(error.is::<TooSlow>(), "{error}");
                    break Some(start.elapsed().as_secs());
                }
                None => unreachable!("it goes on for ever"),
            }
        };
        drop(inbound);
        sending.await.unwrap();
        end
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_sends_less_is_cut_when_the_grace_is_used_up() {
        // Of each second's wait 0.1, 0.5, 0.9 s are earned back.
        for (bytes, seconds) in [(10, 11), (50, 19), (90, 91)] {
            let endured = endured(bytes, 1_000).await;
            assert!(
                endured.is_some_and(|end| end.abs_diff(seconds) <= 1),
                "{bytes}: {endured:?}"
            );
        }
        assert_eq!(endured(100, 1_000).await, None);
        assert_eq!(endured(5_000, 1_000).await, None);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_came_before_buys_no_more_silence_than_the_grace() {
        let (client, mut inbound) = body(Some(PACE));
        client.send(vec![0; 1_000_000].into()).await.unwrap();
        read(&mut inbound).await.unwrap().unwrap();
        let start = Instant::now();
        let error = read(&mut inbound).await.unwrap().unwrap_err();
        assert!(error.is::<TooSlow>());
        assert_eq!(start.elapsed(), S(10));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn time_in_which_nobody_waits_for_the_client_does_not_count() {
        let (client, mut inbound) = body(Some(PACE));
        client.try_send("x".into()).unwrap();
        for _ in 0..10 {
            read(&mut inbound).await.unwrap().unwrap();
            client.try_send("x".into()).unwrap();
            advance(S(9)).await;
        }
        read(&mut inbound).await.unwrap().unwrap();
        drop(client);
        assert!(read(&mut inbound).await.is_none());
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn without_a_pace_nobody_is_hurried() {
        let (client, mut inbound) = body(None);
        let sending = tokio::spawn(async move {
            sleep(S(100_000)).await;
            client.send("x".into()).await.unwrap();
        });
        assert_eq!(read(&mut inbound).await.unwrap().unwrap(), "x");
        sending.await.unwrap();
    }

    #[test]
    fn conversations_are_not_held_to_a_pace() {
        let mut headers = HeaderMap::new();
        assert_eq!(PACE.of(&headers), Some(PACE));
        for (kind, paced) in [
            ("application/json", true),
            ("application/grpc", false),
            ("application/grpc+proto", false),
            ("application/connect+json", false),
            ("application/connect", true),
        ] {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(PACE.of(&headers).is_some(), paced, "{kind}");
        }
        assert_eq!(Pace::at_least(0), None);
    }
}
