//! How much room the pods have for a burst, and how many activators share the work of holding one.

use crate::replicas::{floor_i64, truncate_i64};
use crate::{BurstCapacity, Replicas};

/// Activators in the path even of a workload that needs fewer, so that losing one loses nothing.
/// Source: `pkg/reconciler/autoscaling/kpa/kpa.go`.
const MIN_ACTIVATORS: f64 = 2.0;

/// The requests that the ready pods could take beyond the target burst capacity and the present load.
///
/// Below zero, traffic is safer with an activator in front. Knative calls it excess burst capacity. `total` is what one
/// pod can carry, `load` the short average of what is scaled on. Source: `pkg/autoscaler/scaling/autoscaler.go`.
pub(crate) fn headroom(ready: Replicas, total: f64, capacity: BurstCapacity, load: f64) -> i64 {
    match capacity {
        BurstCapacity::Unlimited => -1,
        BurstCapacity::Requests(0.0) => 0,
        BurstCapacity::Requests(burst) => floor_i64(ready.as_f64() * total - burst - load),
    }
}

/// The headroom before the first measurement: that of the initial scale without load, cut off after the point.
/// Source: `pkg/autoscaler/scaling/multiscaler.go`.
pub(crate) fn initial_headroom(initial: Replicas, total: f64, capacity: BurstCapacity) -> i64 {
    match capacity {
        BurstCapacity::Unlimited => -1,
        BurstCapacity::Requests(0.0) => 0,
        BurstCapacity::Requests(burst) => truncate_i64(initial.as_f64() * total - burst),
    }
}

/// How many activators a workload's requests should be spread over.
///
/// `total` is what one pod can carry, `activator_capacity` what one activator can hold.
/// Source: `pkg/reconciler/autoscaling/kpa/kpa.go`.
pub fn activators_needed(
    ready: Replicas,
    total: f64,
    capacity: BurstCapacity,
    activator_capacity: f64,
) -> u32 {
    let served = ready.as_f64() * total;
    let load = match capacity {
        // No burst is promised: activators see this workload only while it has no pods.
        BurstCapacity::Requests(0.0) => 0.0,
        BurstCapacity::Requests(burst) => served + burst,
        BurstCapacity::Unlimited => served,
    };
    Replicas::from_f64((load / activator_capacity).ceil().max(MIN_ACTIVATORS)).get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_counts_real_pods_and_the_whole_capacity() {
        let burst = BurstCapacity::Requests(211.0);
        assert_eq!(headroom(Replicas(3), 100.0, burst, 0.0), 89);
        assert_eq!(headroom(Replicas(0), 100.0, burst, 0.5), -212);
        assert_eq!(
            headroom(Replicas(9), 100.0, BurstCapacity::Unlimited, 0.0),
            -1
        );
        assert_eq!(
            headroom(Replicas(9), 100.0, BurstCapacity::Requests(0.0), 5000.0),
            0
        );
    }

    #[test]
    fn the_first_headroom_is_truncated_not_floored() {
        assert_eq!(
            initial_headroom(Replicas(0), 10.0, BurstCapacity::Requests(200.5)),
            -200
        );
    }
}
