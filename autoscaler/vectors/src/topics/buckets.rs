//! How Knative shares its workloads among autoscalers and activators. Rouse does not.

use super::Group;

const OWNERS: &str = "One autoscaler leads, by one Lease, and decides for all workloads: there are no buckets to be owned.";
const SUBSET: &str =
    "Every activator serves every workload: none is chosen for one by a hash of its name.";
const IDENTITY: &str = "The holder of the Lease is named by its Pod and a number drawn at its start, not by an address: nobody \
                        connects to it, and a restarted container is another candidate.";

pub(super) fn group(name: &str) -> Option<Group> {
    let why = match name {
        "names" | "owner" | "owner_custom" | "bucket_host" => OWNERS,
        "subset" => SUBSET,
        "identity" => IDENTITY,
        _ => return None,
    };
    Some(Group::NotApplicable(why))
}
