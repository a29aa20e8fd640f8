//! Medians, and how far they can be believed.

/// The middle of some figures; of an even number the mean of the two in the middle. NaN of none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// An interval that has the median in 95 of 100 cases: percentiles of the medians of drawings with repetition (bootstrap), always the
/// same ones.
pub(crate) fn interval(figures: &[f64]) -> (f64, f64) {
    const DRAWINGS: usize = 2_000;
    if figures.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        // xorshift64: fair enough to draw lots with.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap_or_default()
    };
    let mut medians: Vec<f64> = (0..DRAWINGS)
        .map(|_| {
            let drawn: Vec<f64> = (0..figures.len())
                .map(|_| figures[draw(figures.len())])
                .collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (
        medians[DRAWINGS / 40],
        medians[DRAWINGS - 1 - DRAWINGS / 40],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_interval_has_the_median_and_is_as_wide_as_the_figures_scatter() {
        let close = [1.00, 1.01, 0.99, 1.00, 1.02, 0.98, 1.00, 1.01];
        let (low, high) = interval(&close);
        assert!(
            low <= 1.0 && high >= 1.0 && high - low < 0.03,
            "{low} {high}"
        );
        let far = [0.5, 1.5, 0.7, 1.3, 1.0, 2.0, 0.4, 1.1];
        let (low, high) = interval(&far);
        assert!(high - low > 0.3, "{low} {high}");
    }
}
