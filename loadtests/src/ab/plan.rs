//! The order of slices.

use serde::Serialize;

/// Who is sent to in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// What is compared with.
    A,
    /// What is compared.
    B,
    /// What both are measured against.
    Direct,
    /// A in the place of B.
    Again,
}

impl Arm {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::Direct, Self::Again];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Direct => "direct",
            Self::Again => "again",
        }
    }
}

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// B beside A.
    Compare,
    /// A beside itself.
    Null,
}

/// Slices that are compared with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What for.
    pub purpose: Purpose,
    /// Which of its kind, from 1.
    pub number: usize,
    /// Whose turn it is, one after the other.
    pub order: Vec<Arm>,
}

/// So many blocks, with so many of the null test evenly among them.
pub fn blocks(compares: usize, nulls: usize, has_direct: bool) -> Vec<Block> {
    let mut plan = Vec::with_capacity(compares + nulls);
    let mut null = 0;
    for number in 1..=compares {
        plan.push(block(Purpose::Compare, number, has_direct));
        while null * compares < number * nulls {
            null += 1;
            plan.push(block(Purpose::Null, null, has_direct));
        }
    }
    plan
}

fn block(purpose: Purpose, number: usize, has_direct: bool) -> Block {
    let other = match purpose {
        Purpose::Compare => Arm::B,
        Purpose::Null => Arm::Again,
    };
    let (outer, inner) = if number % 2 == 1 {
        (Arm::A, other)
    } else {
        (other, Arm::A)
    };
    let direct = has_direct.then_some(Arm::Direct);
    let middle = [outer, inner, inner, outer];
    Block {
        purpose,
        number,
        order: direct.into_iter().chain(middle).chain(direct).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Arm::{A, Again, B, Direct},
        Block, Purpose, blocks,
    };
    use proptest::prelude::*;

    #[test]
    fn a_block_is_mirrored_and_every_second_one_changes_places() {
        let orders: Vec<_> = blocks(2, 2, true).into_iter().map(|b| b.order).collect();
        assert_eq!(
            orders,
            [
                vec![Direct, A, B, B, A, Direct],
                vec![Direct, A, Again, Again, A, Direct],
                vec![Direct, B, A, A, B, Direct],
                vec![Direct, Again, A, A, Again, Direct],
            ]
        );
        let orders: Vec<_> = blocks(1, 0, false).into_iter().map(|b| b.order).collect();
        assert_eq!(orders, [vec![A, B, B, A]]);
    }

    /// Sum of the positions of an arm: the same for all arms if a drift falls on all alike.
    fn position(block: &Block, arm: super::Arm) -> usize {
        let turns = block.order.iter().zip(0..);
        turns
            .filter(|(turn, _)| **turn == arm)
            .map(|(_, at)| at)
            .sum()
    }

    proptest! {
        #[test]
        fn every_plan_is_fair(compares in 1..60_usize, nulls in 0..90_usize, has_direct: bool) {
            let plan = blocks(compares, nulls, has_direct);
            let of = |purpose| plan.iter().filter(move |block| block.purpose == purpose);
            prop_assert_eq!(of(Purpose::Compare).count(), compares);
            prop_assert_eq!(of(Purpose::Null).count(), nulls);
            for (block, other) in of(Purpose::Compare).map(|b| (b, B)).chain(of(Purpose::Null).map(|b| (b, Again))) {
                let arms = [A, other].into_iter().chain(has_direct.then_some(Direct));
                for arm in arms {
                    prop_assert_eq!(block.order.iter().filter(|turn| **turn == arm).count(), 2);
                    prop_assert_eq!(position(block, arm), block.order.len() - 1, "a drift cancels");
                }
            }
            for purpose in [Purpose::Compare, Purpose::Null] {
                let first = of(purpose).filter(|block| position(block, A) > 0 && block.order.iter().find(|arm| **arm != Direct) == Some(&A));
                let all = of(purpose).count();
                prop_assert_eq!(first.count(), all.div_ceil(2), "as often first as second");
                let numbers: Vec<_> = of(purpose).map(|block| block.number).collect();
                prop_assert_eq!(numbers, (1..=all).collect::<Vec<_>>());
            }
            // Evenly among each other: at every moment as many as their share, within one.
            let (mut compared, mut tested) = (0_usize, 0_usize);
            for block in &plan {
                match block.purpose {
                    Purpose::Compare => compared += 1,
                    Purpose::Null => tested += 1,
                }
                prop_assert!(tested * compares <= compared * nulls + compares);
                prop_assert!((compared - 1) * nulls <= tested * compares);
            }
        }
    }
}
