//! Waiting for conditions.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is looked at: short against everything that is waited for, long against the looking.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `condition` holds. `what` completes "waited in vain until ...".
pub async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    some(what, limit, || condition().then_some(())).await;
}

/// Waits until `find` finds something.
pub async fn some<T>(what: &str, limit: Duration, mut find: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(
            began.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        sleep(LOOK).await;
    }
}

/// Looks on for `length` and fails as soon as `condition` does not hold.
pub async fn throughout(what: &str, length: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < length {
        assert!(
            condition(),
            "for {:?} of {length:?} only: {what}",
            began.elapsed()
        );
        sleep(LOOK).await;
    }
}
