//! How many pods to ask, when asking all of them each second would be too many.

/// Pods up to this number are all asked. Source: `pkg/autoscaler/metrics/sample_size.go`.
const ASK_ALL: u32 = 3;

/// 1.96 squared, times a variance of 100, over a squared margin of 5: the sample of an endless population that is
/// within 5 of the mean with 95 % confidence. Source: `pkg/autoscaler/metrics/sample_size.go`.
const UNBOUNDED_SAMPLE: f64 = 15.3664;

/// How many of `pods` pods to ask so that their average stands for all of them; at most 16.
pub fn sample_size(pods: u32) -> u32 {
    if pods <= ASK_ALL {
        return pods;
    }
    let pods = f64::from(pods);
    // The correction for a finite population: the fewer pods there are, the more one of them says about the rest.
    let size = pods * UNBOUNDED_SAMPLE / (pods + UNBOUNDED_SAMPLE - 1.0);
    crate::Replicas::from_f64(size.ceil()).get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_table() {
        let table = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 3),
            (4, 4),
            (5, 4),
            (6, 5),
            (7, 6),
            (9, 6),
            (10, 7),
            (15, 8),
            (20, 9),
            (30, 11),
            (50, 12),
            (100, 14),
            (200, 15),
            (500, 15),
            (1000, 16),
            (u32::MAX, 16),
        ];
        for (pods, size) in table {
            assert_eq!(sample_size(pods), size, "{pods} pods");
        }
    }

    #[test]
    fn never_asks_more_pods_than_there_are() {
        assert!((0..500).all(|pods| sample_size(pods) <= pods));
    }
}
