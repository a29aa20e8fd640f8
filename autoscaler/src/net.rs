//! Requests per second from several accounts, so that a request that was held counts once.
//!
//! An activator counts a held request when it arrives and takes it back when it hands it on; the pod counts it then. Only
//! the sum over time is a number of requests: the three are told by two programs whose seconds are not the same, and may
//! come in different rounds. So what is taken back before the pod's count has come stays owed, and is paid with the next
//! count that comes.
//!
//! What must stay true: a number of requests is never negative, and nothing stays owed for ever. A request that gave up while
//! it was held is taken back too and no pod will ever count it: for longer than [`PATIENCE`] that must not hide requests.

use std::time::Duration;

use autoscaler_core::{Moment, Sample};

/// How long what is owed is waited for. A pod's count comes a round later at most, or three if scrapes of it are lost; after
/// that the pod is missing, and its requests with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests taken back that were not counted yet, by the second of taking back.
#[derive(Debug, Default)]
pub(crate) struct Net {
    owed: Vec<(Moment, f64)>,
}

impl Net {
    /// Adds up what all saw of each second, and settles it with what is owed. Requests are never less than none.
    pub(crate) fn settle(
        &mut self,
        now: Moment,
        samples: impl Iterator<Item = (Moment, Sample)>,
    ) -> Vec<(Moment, Sample)> {
        let mut seconds: Vec<(Moment, Sample)> = Vec::new();
        for (at, sample) in samples {
            match seconds.iter_mut().find(|(known, _)| *known == at) {
                Some((_, sum)) => *sum = sum.plus(sample),
                None => seconds.push((at, sample)),
            }
        }
        for (at, sum) in &mut seconds {
            if sum.requests < 0.0 {
                self.owed.push((*at, -sum.requests));
                sum.requests = 0.0;
            }
        }
        for (_, debt) in &mut self.owed {
            for (_, sum) in &mut seconds {
                let paid = debt.min(sum.requests);
                *debt -= paid;
                sum.requests -= paid;
            }
        }
        self.owed
            .retain(|(at, debt)| *debt > 0.0 && now.since(*at) < PATIENCE);
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(net: &mut Net, now: u64, told: &[(u64, f64)]) -> Vec<(u64, f64)> {
        let samples = told.iter().map(|&(at, requests)| {
            let sample = Sample {
                concurrency: 0.5,
                requests,
                ..Sample::default()
            };
            (Moment::from_secs(at), sample)
        });
        net.settle(Moment::from_secs(now), samples)
            .iter()
            .map(|(at, sum)| (at.as_secs(), sum.requests))
            .collect()
    }

    #[test]
    fn what_is_told_of_one_second_adds_up() {
        let mut net = Net::default();
        let told = [(1, 1.0), (2, -1.0), (2, 4.0)];
        assert_eq!(requests(&mut net, 2, &told), [(1, 1.0), (2, 3.0)]);
    }

    #[test]
    fn what_was_taken_back_before_the_pod_counted_it_is_owed_to_later_seconds() {
        let mut net = Net::default();
        assert_eq!(requests(&mut net, 1, &[(1, 5.0)]), [(1, 5.0)], "held");
        assert_eq!(requests(&mut net, 2, &[(2, -5.0)]), [(2, 0.0)]);
        assert_eq!(requests(&mut net, 3, &[(3, 3.0)]), [(3, 0.0)]);
        let told = [(4, 1.0), (5, 7.0)];
        assert_eq!(requests(&mut net, 5, &told), [(4, 0.0), (5, 6.0)]);
        assert_eq!(requests(&mut net, 6, &[(6, 7.0)]), [(6, 7.0)], "all paid");
    }

    #[test]
    fn what_no_pod_ever_counts_is_not_owed_for_ever() {
        let mut net = Net::default();
        requests(&mut net, 2, &[(2, -5.0)]);
        assert_eq!(requests(&mut net, 6, &[(6, 1.0)]), [(6, 0.0)]);
        requests(&mut net, 7, &[]);
        assert_eq!(requests(&mut net, 8, &[(8, 7.0)]), [(8, 7.0)]);
    }
}
