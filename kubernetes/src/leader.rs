//! Who leads the autoscalers, as the Lease names it.

/// The holder of the Lease for one life of the Pod `pod`: a container that is restarted in the same Pod is another candidate.
/// `life` differs from life to life.
pub fn holder(pod: &str, life: u64) -> String {
    format!("{pod}_{life:016x}")
}

/// The Pod of a holder of the Lease. None if nobody holds it.
pub fn pod(holder: &str) -> Option<&str> {
    // No name of a Pod has an underscore in it.
    let pod = holder.split_once('_').map_or(holder, |(pod, _)| pod);
    (!pod.is_empty()).then_some(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_names_its_pod() {
        let held = holder("rouse-autoscaler-5c79cdd48-zxk4x", 7);
        assert_eq!(held, "rouse-autoscaler-5c79cdd48-zxk4x_0000000000000007");
        assert_eq!(pod(&held), Some("rouse-autoscaler-5c79cdd48-zxk4x"));
        assert_eq!(pod("by-hand"), Some("by-hand"));
        assert_eq!(pod(""), None);
    }
}
