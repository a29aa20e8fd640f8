//! Conditions as they are typed, in a list with commas: `p99<250ms,throughput>100`.

use std::str::FromStr;

/// On which side of a value a figure has to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Below,
    Above,
}

/// One condition, not understood yet.
pub(crate) struct Typed<'a> {
    pub(crate) name: &'a str,
    pub(crate) side: Side,
    pub(crate) value: &'a str,
}

impl Side {
    pub(crate) fn holds(self, figure: f64, value: f64) -> bool {
        match self {
            Self::Below => figure < value,
            Self::Above => figure > value,
        }
    }
}

/// What is around the `<` or `>`, if there is one.
pub(crate) fn split(text: &str) -> Option<Typed<'_>> {
    let at = text.find(['<', '>'])?;
    let side = if text.as_bytes()[at] == b'<' {
        Side::Below
    } else {
        Side::Above
    };
    Some(Typed {
        name: text[..at].trim(),
        side,
        value: text[at + 1..].trim(),
    })
}

/// A condition on a ratio: of which of these it is, on which side it has to lie, and of what.
pub(crate) fn ratio<F: Copy>(
    text: &str,
    all: &[F],
    name_of: impl Fn(F) -> &'static str,
) -> Option<(F, Side, f64)> {
    let Typed { name, side, value } = split(text)?;
    let figure = all
        .iter()
        .copied()
        .find(|figure| name_of(*figure) == name)?;
    let ratio: f64 = value.parse().ok()?;
    (ratio.is_finite() && ratio > 0.0).then_some((figure, side, ratio))
}

/// All of a list, or what is wrong with the first that is wrong.
pub(crate) fn list<T: FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::parse).collect()
}
