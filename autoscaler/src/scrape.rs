//! Asking for statistics, and turning a pod's seconds into ours.

use std::{net::SocketAddr, time::Duration};

use autoscaler_core::Moment;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Limited};
use shared::{
    BoxError, clock,
    http::{
        body::Body,
        client::{Client, Config, SendError},
    },
    load::Second,
    stat,
};
use tokio::time::timeout;

/// Limit on one scrape. Below the second in which the next one is due.
const LIMIT: Duration = Duration::from_millis(900);

/// Whose statistics are read, and up to where they were.
#[derive(Debug)]
pub(crate) struct Source {
    client: Client,
    boot: Option<u64>,
    seen: Option<u64>,
}

/// A second of a source, dated in our own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dated {
    pub(crate) at: Moment,
    pub(crate) second: Second,
}

/// Where the reading of a source stands: its life and the last second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(Option<u64>, Option<u64>);

impl Source {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            // Scrapes come every second, so a connection may be kept for several.
            client: Client::new(
                address,
                Config {
                    connect: LIMIT,
                    idle: Duration::from_secs(10),
                    ..Config::default()
                },
            ),
            boot: None,
            seen: None,
        }
    }

    /// Asks for everything not yet seen. At most `max` bytes are read.
    pub(crate) async fn ask(&self, max: usize) -> Result<bytes::Bytes, BoxError> {
        let path = match self.seen {
            Some(second) => format!("{}?since={second}", stat::PATH),
            None => stat::PATH.to_owned(),
        };
        let request = Request::get(path)
            .header(HOST, "rouse")
            .body(Body::empty())?;
        let ask = async {
            let answer = self
                .client
                .send(request)
                .await
                .map_err(|error| match error {
                    SendError::NotSent { error, .. } | SendError::Sent(error) => error,
                })?;
            if answer.status() != StatusCode::OK {
                return Err(BoxError::from(format!("status {}", answer.status())));
            }
            Ok(Limited::new(answer.into_body(), max)
                .collect()
                .await?
                .to_bytes())
        };
        timeout(LIMIT, ask).await?
    }

    /// Whether `boot` is another life of the source, whose seconds began anew.
    pub(crate) fn restarted(&self, boot: u64) -> bool {
        self.boot.is_some_and(|known| known != boot)
    }

    /// Dates seconds that were not seen before. The source's last whole second is dated now, as Knative dates a scrape:
    /// were it dated the second before, a panic window of one second would never hold anything. What came before a first contact is left out, since nobody was responsible for it.
    pub(crate) fn take(
        &mut self,
        boot: u64,
        last: u64,
        seconds: &[Second],
        now: Moment,
    ) -> Vec<Dated> {
        let first_contact = self.boot != Some(boot);
        let seen = if first_contact {
            last.checked_sub(1)
        } else {
            self.seen
        };
        self.boot = Some(boot);
        self.seen = Some(last);
        let ours = Moment::from_secs(now.as_secs());
        seconds
            .iter()
            .filter(|second| seen.is_none_or(|seen| second.second > seen))
            .map(|&second| Dated {
                at: ours.saturating_sub(Duration::from_secs(last.saturating_sub(second.second))),
                second,
            })
            .collect()
    }

    /// Where reading stands, for [`Source::reset`].
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.boot, self.seen)
    }

    /// Back to where reading stood: one answer may hold the seconds of several workloads.
    pub(crate) fn reset(&mut self, mark: Mark) {
        (self.boot, self.seen) = (mark.0, mark.1);
    }

    /// The next answer is a first contact again, and tells everything that is kept.
    pub(crate) fn forget(&mut self) {
        (self.boot, self.seen) = (None, None);
    }

    pub(crate) fn close(&self) {
        self.client.close();
    }
}

/// The process clock as the core counts time.
pub(crate) fn now() -> Moment {
    Moment::from_nanos(u64::try_from(clock::since_epoch().as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Second {
        Second {
            second,
            ..Second::default()
        }
    }

    #[test]
    fn every_second_counts_once_however_often_it_is_told() {
        let mut source = Source::new(([127, 0, 0, 1], 1).into());
        let now = Moment::from_millis(100_300);
        let dated = source.take(1, 7, &[second(5), second(6), second(7)], now);
        assert_eq!(
            dated.iter().map(|d| d.second.second).collect::<Vec<_>>(),
            [7],
            "first contact"
        );
        assert_eq!(dated[0].at, Moment::from_secs(100));
        assert!(source.take(1, 7, &[second(7)], now).is_empty());
        // Two scrapes were lost: their seconds are dated back.
        let later = Moment::from_millis(103_900);
        let dated = source.take(1, 10, &[second(7), second(8), second(9), second(10)], later);
        let ats: Vec<_> = dated.iter().map(|d| d.at.as_secs()).collect();
        assert_eq!(ats, [101, 102, 103]);
    }

    #[test]
    fn a_restarted_source_counts_from_its_new_beginning() {
        let mut source = Source::new(([127, 0, 0, 1], 1).into());
        source.take(1, 500, &[], Moment::from_secs(10));
        assert!(source.restarted(2));
        let dated = source.take(2, 3, &[second(2), second(3)], Moment::from_secs(11));
        assert_eq!(dated.len(), 1);
    }
}
