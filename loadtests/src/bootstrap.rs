//! A median, and how far it can be believed: an interval by bootstrap (Efron, 1979). So many draws of as many figures with putting
//! back, and the middle 95 per cent of their medians.

use crate::plan::SplitMix;

/// Draws of the bootstrap.
const DRAWS: usize = 10_000;

/// The middle of some figures, or of the two in the middle. NaN of none. Infinite ones are as good as others.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The middle 95 per cent of the medians of draws; of at least one figure. The same figures have the same interval.
pub(crate) fn interval(values: &[f64]) -> (f64, f64) {
    let mut dice = SplitMix(1);
    let mut drawn = vec![0.0; values.len()];
    let mut medians: Vec<_> = (0..DRAWS)
        .map(|_| {
            drawn.fill_with(|| values[dice.below(values.len())]);
            median(&mut drawn)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    (medians[DRAWS / 40], medians[DRAWS - 1 - DRAWS / 40])
}
