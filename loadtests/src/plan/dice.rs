//! Random draws that are the same on every machine for the same seed.

/// The `SplitMix64` generator: tiny, seedable, and good enough for arrival gaps.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to below 1, in 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly one of the numbers from 0 to below `end`, which is above 0 and far below 2^53.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number far below 2^53, times one below 1"
    )]
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.uniform() * end as f64) as usize
    }

    /// An exponential draw of mean one, finite as the uniform draw is below one.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// A draw of the standard normal distribution, by Marsaglia's polar method.
    fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }

    /// A draw of the Gamma distribution of mean one and coefficient of variation `variation`, above 0.
    pub(crate) fn gamma(&mut self, variation: f64) -> f64 {
        let shape = 1.0 / (variation * variation);
        if shape < 1.0 {
            let boost = (1.0 - self.uniform()).powf(1.0 / shape);
            self.standard_gamma(shape + 1.0) * boost / shape
        } else {
            self.standard_gamma(shape) / shape
        }
    }

    /// How long it takes until the next arrival for whoever comes at any moment, where the gaps are [`SplitMix::gamma`]: a part of a
    /// gap that is the likelier to be met the longer it is. Were the first gap as all others, a run would begin as if one had just
    /// arrived, and have the more arrivals too many the more irregular they are (Cox, "Renewal Theory", 1962, section 2.2).
    pub(crate) fn gamma_rest(&mut self, variation: f64) -> f64 {
        let shape = 1.0 / (variation * variation);
        self.uniform() * self.standard_gamma(shape + 1.0) / shape
    }

    /// A draw of the Gamma distribution of this shape, at least 1, and scale one.
    /// Source: Marsaglia and Tsang, "A simple method for generating gamma variables" (ACM TOMS 26(3), 2000).
    fn standard_gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let normal = self.normal();
            let cube = (1.0 + c * normal).powi(3);
            if cube <= 0.0 {
                continue;
            }
            let accepted =
                (1.0 - self.uniform()).ln() < 0.5 * normal * normal + d - d * cube + d * cube.ln();
            if accepted {
                return d * cube;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix;

    #[test]
    fn gamma_draws_have_the_mean_and_variation_that_were_asked_for() {
        for variation in [0.2, 0.5, 1.0, 2.0, 4.0] {
            let mut dice = SplitMix(7);
            let draws: Vec<_> = (0..400_000).map(|_| dice.gamma(variation)).collect();
            let mean = draws.iter().sum::<f64>() / 4e5;
            let square = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 4e5;
            assert!((mean - 1.0).abs() < 0.03, "{variation}: mean {mean}");
            let got = square.sqrt() / mean;
            assert!((got / variation - 1.0).abs() < 0.03, "{variation}: {got}");
        }
    }
}
