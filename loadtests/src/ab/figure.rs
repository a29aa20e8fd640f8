//! What slices of one arm come to.

use crate::record::Durations;
use crate::report::Report;
use serde::Serialize;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    /// Successful requests per second.
    Throughput,
    /// Median latency of all requests, of which failed ones take endlessly.
    P50,
    /// 90th percentile.
    P90,
    /// 99th percentile.
    P99,
    /// Errors among all requests.
    Errors,
    /// CPU time of the given processes per successful request.
    Cpu,
}

impl Figure {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 6] = [
        Self::Throughput,
        Self::P50,
        Self::P90,
        Self::P99,
        Self::Errors,
        Self::Cpu,
    ];

    /// As typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::Errors => "errors",
            Self::Cpu => "cpu",
        }
    }
}

/// All that was counted of one arm, in one slice or in several. It adds up, so that percentiles are those of all requests together.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Of successful requests.
    pub latency: Durations,
    /// By which the tool was late.
    pub lag: Durations,
    /// Requests that ended, dropped ones included.
    pub requests: u64,
    /// Those among them that were errors.
    pub errors: u64,
    /// Measured, in seconds.
    pub seconds: f64,
    /// That was to be measured, in seconds.
    pub planned: f64,
    /// By which the tool moved its schedule, in seconds.
    pub lost: f64,
    /// CPU time of the processes, in seconds; none if that of a slice is not known.
    pub cpu: Option<f64>,
}

impl Sums {
    /// Of one slice; `cpu` is in seconds.
    ///
    /// None if the report has no histograms that can be read, as those of our own runs have.
    pub fn of(report: &Report, cpu: Option<f64>) -> Option<Self> {
        let (summary, pacing) = (&report.summary, report.pacing.as_ref());
        let histograms = report.histograms.as_ref()?;
        Some(Self {
            latency: Durations::decode(&histograms.latency)?,
            lag: Durations::decode(&histograms.lag)?,
            requests: summary.requests,
            errors: summary.error_count,
            seconds: summary.duration,
            planned: report.config.duration.unwrap_or(summary.duration),
            lost: pacing.map_or(0.0, |pacing| pacing.lost),
            cpu,
        })
    }

    /// Of all of these; none of none.
    pub fn total<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let mut sum = parts.next()?.clone();
        for part in parts {
            sum.latency.merge(&part.latency);
            sum.lag.merge(&part.lag);
            sum.requests += part.requests;
            sum.errors += part.errors;
            sum.seconds += part.seconds;
            sum.planned += part.planned;
            sum.lost += part.lost;
            sum.cpu = sum.cpu.zip(part.cpu).map(|(sum, part)| sum + part);
        }
        Some(sum)
    }

    /// One figure: per second, seconds, or a share. A request that failed is endlessly slow, and work for it is of no use to anyone: otherwise
    /// a server would do well that refuses quickly what it cannot do.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn value(&self, figure: Figure) -> Option<f64> {
        let (requests, successes) = (self.requests, self.requests - self.errors);
        let endless = (requests > 0).then_some(f64::INFINITY);
        let rank = |quantile: f64| {
            let among_successes = quantile * requests as f64 / successes as f64;
            if successes == 0 || among_successes > 1.0 {
                return endless;
            }
            let latency = self.latency.quantile(among_successes)?;
            Some(latency.as_secs_f64())
        };
        let over = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        match figure {
            Figure::Throughput => over(successes as f64, self.seconds),
            Figure::P50 => rank(0.5),
            Figure::P90 => rank(0.9),
            Figure::P99 => rank(0.99),
            Figure::Errors => over(self.errors as f64, requests as f64),
            Figure::Cpu => over(self.cpu?, successes as f64).or(endless),
        }
    }
}

/// `value` to `base`. No errors are as many as no errors, and some are endlessly more than none; of two endless ones nothing is known.
pub fn ratio(base: Option<f64>, value: Option<f64>) -> Option<f64> {
    let (base, value) = (base?, value?);
    if base <= 0.0 {
        return Some(if value <= 0.0 { 1.0 } else { f64::INFINITY });
    }
    Some(value / base).filter(|ratio| !ratio.is_nan())
}

#[cfg(test)]
mod tests {
    use super::{Figure, Sums, ratio};
    use crate::record::Durations;
    use proptest::prelude::*;
    use std::time::Duration;

    fn sums(latencies: &[u64], errors: u64, cpu: Option<f64>) -> Sums {
        let mut latency = Durations::default();
        for millis in latencies {
            latency.record(Duration::from_millis(*millis));
        }
        Sums {
            latency,
            requests: latencies.len() as u64 + errors,
            errors,
            seconds: 2.0,
            cpu,
            ..Sums::default()
        }
    }

    fn near(got: Option<f64>, want: f64) -> bool {
        got.is_some_and(|got| (got - want).abs() <= want * 0.001)
    }

    #[test]
    fn a_percentile_is_that_of_all_requests_and_no_mean_of_percentiles() {
        let (quick, slow) = (sums(&[1; 98], 0, Some(0.1)), sums(&[1000; 2], 0, Some(0.3)));
        let both = Sums::total([&quick, &slow]).unwrap();
        assert!(near(both.value(Figure::P99), 1.0) && near(both.value(Figure::P90), 0.001));
        assert!(near(both.value(Figure::Throughput), 25.0));
        assert!(near(both.value(Figure::Cpu), 0.004));
    }

    #[test]
    fn what_failed_altogether_is_endlessly_slow_and_not_left_out() {
        let (good, bad) = (sums(&[5; 10], 0, None), sums(&[], 10, None));
        assert_eq!(
            ratio(good.value(Figure::P99), bad.value(Figure::P99)),
            Some(f64::INFINITY)
        );
        assert_eq!(ratio(bad.value(Figure::P99), bad.value(Figure::P99)), None);
        assert_eq!(
            ratio(good.value(Figure::Errors), bad.value(Figure::Errors)),
            Some(f64::INFINITY)
        );
        assert_eq!(
            ratio(good.value(Figure::Errors), good.value(Figure::Errors)),
            Some(1.0)
        );
        assert_eq!(
            ratio(
                good.value(Figure::Throughput),
                bad.value(Figure::Throughput)
            ),
            Some(0.0)
        );
        assert_eq!(
            sums(&[], 0, None).value(Figure::P50),
            None,
            "nothing was sent"
        );
    }

    #[test]
    fn quick_errors_make_no_server_better() {
        let latencies: Vec<_> = (1..=100).collect();
        let good = sums(&latencies, 0, Some(1.0));
        // The slower 30 % are refused, quickly and for little.
        let shedding = sums(&latencies[..70], 30, Some(0.75));
        let of = |figure| ratio(good.value(figure), shedding.value(figure)).unwrap();
        assert!(near(Some(of(Figure::P50)), 1.0));
        assert_eq!(
            (of(Figure::P90), of(Figure::P99)),
            (f64::INFINITY, f64::INFINITY)
        );
        assert!(of(Figure::Cpu) > 1.05);
        assert_eq!(
            sums(&[], 3, Some(0.1)).value(Figure::Cpu),
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn cpu_of_which_a_part_is_unknown_is_unknown() {
        let both = [sums(&[1], 0, Some(0.1)), sums(&[1], 0, None)];
        assert_eq!(Sums::total(&both).unwrap().value(Figure::Cpu), None);
    }

    proptest! {
        /// What twice as much takes is twice as much, on whichever side.
        #[test]
        fn ratios_turn_over(base in 1e-6..1e6_f64, value in 1e-6..1e6_f64) {
            let (one, other) = (ratio(Some(base), Some(value)).unwrap(), ratio(Some(value), Some(base)).unwrap());
            prop_assert!((one * other - 1.0).abs() < 1e-9);
        }
    }
}
