//! Whether a request that arrives is served here, waits here, goes to the activators, or nowhere. Pure.
//!
//! A request is bounced where waiting here is the worse choice: an activator sees every pod of the workload and holds in one
//! queue what none of them can take now. Only requests of Services are: an activator is told at once that there is no room, so
//! that no request goes round in circles.

use crate::breaker::Source;

/// What a request finds at the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests at the model at once; 0 means no limit.
    pub limit: u32,
    /// Requests at the model.
    pub in_flight: u32,
    /// The model was ready once.
    pub open: bool,
    /// Requests that wait in the same queue.
    pub ahead: usize,
    /// How many may wait in it.
    pub depth: usize,
}

/// When requests are bounced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Requests of Services that wait here for a slot before others are bounced.
    pub depth: usize,
    /// Requests at the model of an unlimited pod above which others are bounced; none for no such limit.
    pub soft_limit: Option<u32>,
}

/// Activators that can be reached, and what makes a request go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// When.
    pub rule: Rule,
    /// The pod is going away: nobody should begin to wait for it.
    pub draining: bool,
}

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It goes to the model.
    Serve,
    /// It waits for a slot.
    Wait,
    /// It goes to the activators.
    Bounce,
    /// There is no room to wait.
    Refuse,
}

/// Decides. `elsewhere` is none where no activator can be reached: then all is as if there were none.
pub fn decide(source: Source, at: Standing, elsewhere: Option<Elsewhere>) -> Course {
    let elsewhere = elsewhere.filter(|_| source == Source::Service);
    let has_room = at.open && (at.limit == 0 || at.in_flight < at.limit);
    // Whoever already waits from the same kind of port goes first.
    if has_room && at.ahead == 0 {
        let soft_limit = elsewhere.and_then(|there| there.rule.soft_limit);
        let too_many = soft_limit.is_some_and(|soft| at.limit == 0 && at.in_flight >= soft);
        return if too_many {
            Course::Bounce
        } else {
            Course::Serve
        };
    }
    if let Some(there) = elsewhere {
        // Before the model was ready nobody should be here yet, and the wait is the same wherever it is.
        let short = if at.open {
            there.rule.depth.min(at.depth)
        } else {
            at.depth
        };
        if there.draining || at.ahead >= short {
            return Course::Bounce;
        }
    }
    if at.ahead >= at.depth {
        Course::Refuse
    } else {
        Course::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: Option<Elsewhere> = Some(Elsewhere {
        rule: Rule {
            depth: 2,
            soft_limit: Some(20),
        },
        draining: false,
    });
    const LEAVING: Option<Elsewhere> = match THERE {
        Some(there) => Some(Elsewhere {
            draining: true,
            ..there
        }),
        None => None,
    };

    fn at(limit: u32, in_flight: u32, ahead: usize) -> Standing {
        Standing {
            limit,
            in_flight,
            open: true,
            ahead,
            depth: 10,
        }
    }

    #[test]
    fn a_request_of_a_service_is_bounced_where_waiting_is_the_worse_choice() {
        use Course::{Bounce, Refuse, Serve, Wait};
        let starting = |ahead| Standing {
            open: false,
            ..at(2, 0, ahead)
        };
        // What it finds; what becomes of it with activators, without, and with them at a pod that is going away.
        for (standing, with, without, leaving) in [
            (at(2, 0, 0), Serve, Serve, Serve),
            (at(2, 1, 0), Serve, Serve, Serve),
            (at(2, 2, 0), Wait, Wait, Bounce),
            (at(2, 2, 1), Wait, Wait, Bounce),
            (at(2, 2, 2), Bounce, Wait, Bounce),
            (at(2, 2, 9), Bounce, Wait, Bounce),
            (at(2, 2, 10), Bounce, Refuse, Bounce),
            // A slot that is free for a moment is theirs who wait.
            (at(2, 1, 1), Wait, Wait, Bounce),
            (at(0, 19, 0), Serve, Serve, Serve),
            (at(0, 20, 0), Bounce, Serve, Bounce),
            (at(0, 1_000, 0), Bounce, Serve, Bounce),
            // The soft limit is for pods that have no other.
            (at(50, 20, 0), Serve, Serve, Serve),
            (starting(0), Wait, Wait, Bounce),
            (starting(2), Wait, Wait, Bounce),
            (starting(10), Bounce, Refuse, Bounce),
        ] {
            let decided = [THERE, None, LEAVING].map(|e| decide(Source::Service, standing, e));
            assert_eq!(decided, [with, without, leaving], "{standing:?}");
        }
    }

    #[test]
    fn a_request_of_an_activator_never_is() {
        for limit in [0, 2] {
            for in_flight in [0, 2, 20, 1_000] {
                for ahead in 0..12 {
                    let standing = at(limit, in_flight, ahead);
                    let decided = [THERE, LEAVING, None]
                        .map(|elsewhere| decide(Source::Activator, standing, elsewhere));
                    assert_eq!(decided, [decided[2]; 3], "{standing:?}");
                    assert_ne!(decided[0], Course::Bounce, "{standing:?}");
                }
            }
        }
    }

    #[test]
    fn without_a_depth_nobody_waits_for_a_slot_and_without_a_soft_limit_all_are_served() {
        let there = |depth, soft_limit| {
            let rule = Rule { depth, soft_limit };
            Some(Elsewhere {
                rule,
                draining: false,
            })
        };
        let busy = decide(Source::Service, at(2, 2, 0), there(0, None));
        assert_eq!(busy, Course::Bounce);
        let many = decide(Source::Service, at(0, 1_000_000, 0), there(0, None));
        assert_eq!(many, Course::Serve);
        // A bounce depth beyond the queue's own is no more than that.
        let full = decide(Source::Service, at(2, 2, 10), there(1_000, None));
        assert_eq!(full, Course::Bounce);
    }
}
