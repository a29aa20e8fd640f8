//! Which of several pods with room gets the next request. Pure but for a random state that the caller keeps.

/// The pod with the least load; among equals a random one, so that equals share alike.
///
/// `candidates` are (index, load).
pub(super) fn least_loaded(
    candidates: impl Iterator<Item = (usize, u32)>,
    random: &mut u64,
) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    let mut equals = 0;
    for (at, load) in candidates {
        match best {
            Some((_, least)) if load > least => {}
            Some((_, least)) if load == least => {
                // Reservoir sampling: the n-th equal replaces the choice with probability 1/n.
                equals += 1;
                if below(random, equals) == 0 {
                    best = Some((at, load));
                }
            }
            _ => {
                equals = 1;
                best = Some((at, load));
            }
        }
    }
    best.map(|(at, _)| at)
}

/// The less loaded of two random pods (Knative's `randomChoice2Policy`, `pkg/activator/net/lb_policy.go`): nearly as even
/// as the least loaded, without herding when several activators see the same picture.
pub(super) fn best_of_two(candidates: &[(usize, u32)], random: &mut u64) -> Option<usize> {
    match candidates {
        [] => None,
        [(at, _)] => Some(*at),
        _ => {
            let count = candidates.len() as u64;
            let first = below(random, count);
            // Another one: skip ahead by 1 to count - 1.
            let second = (first + 1 + below(random, count - 1)) % count;
            let pick = |n: u64| candidates[usize::try_from(n).unwrap_or(0)];
            let (a, b) = (pick(first), pick(second));
            Some(if b.1 < a.1 { b.0 } else { a.0 })
        }
    }
}

/// A number below `bound`, from a xorshift generator: good enough to spread load, no more is asked of it.
fn below(state: &mut u64, bound: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % bound.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_loaded_wins_and_equals_share() {
        let mut random = 7;
        assert_eq!(
            least_loaded([(0, 2), (1, 1), (2, 3)].into_iter(), &mut random),
            Some(1)
        );
        assert_eq!(least_loaded(std::iter::empty(), &mut random), None);
        let mut hits = [0; 3];
        for _ in 0..3_000 {
            hits[least_loaded([(0, 1), (1, 1), (2, 1)].into_iter(), &mut random).unwrap()] += 1;
        }
        assert!(hits.iter().all(|h| (800..1200).contains(h)), "{hits:?}");
    }

    #[test]
    fn of_two_different_pods_the_less_loaded_is_taken() {
        let mut random = 7;
        let mut hits = [0; 3];
        for _ in 0..3_000 {
            hits[best_of_two(&[(0, 9), (1, 1), (2, 1)], &mut random).unwrap()] += 1;
        }
        assert_eq!(hits[0], 0, "the loaded pod always meets a less loaded one");
        assert!(hits[1] > 1_000 && hits[2] > 1_000, "{hits:?}");
    }
}
