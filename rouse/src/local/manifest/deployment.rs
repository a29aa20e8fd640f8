//! A Deployment.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::cursor::Cursor;
use super::error::ManifestError;
use super::{Place, Workload, container, names, probe};

/// Kubernetes' default.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Of all annotations of an object together: Kubernetes' own bound.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// A Deployment as read, and what the Services of other documents are matched with.
pub(super) struct Read {
    pub(super) workload: Workload,
    pub(super) labels: BTreeMap<String, String>,
}

pub(super) fn read(
    root: &Cursor<'_>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Read, ManifestError> {
    let name = names::subdomain(&root.at(["metadata", "name"])?)?.to_owned();
    let namespace = names::namespace(root)?.to_owned();
    let spec = root.get("spec")?;
    let template = spec.get("template")?;
    let pod = template.get("spec")?;

    let containers_field = pod.get("containers")?;
    let containers = containers_field.items()?;
    let [first, others @ ..] = containers.as_slice() else {
        return Err(containers_field.error("must be a list with at least one container"));
    };
    for other in others {
        let name = other.get("name")?;
        warnings.push(format!(
            "{}: {}: container {:?} is not run: local mode runs the first container only",
            root.source(),
            other.path(),
            name.text()?.unwrap_or_default()
        ));
    }
    let init = pod.get("initContainers")?;
    if !init.items()?.is_empty() {
        warnings.push(format!(
            "{}: {}: not run locally",
            root.source(),
            init.path()
        ));
    }
    let mut container = container::read(first, folder, warnings)?;
    container.readiness_probe = probe::read(
        &first.get("readinessProbe")?,
        &mut container.ports,
        warnings,
    )?;

    let (mut annotations, mut annotation_places) = (BTreeMap::new(), BTreeMap::new());
    for object in [root, &template] {
        let field = object.at(["metadata", "annotations"])?;
        let values = field.text_map()?;
        if values
            .iter()
            .map(|(key, (value, _))| key.len() + value.len())
            .sum::<usize>()
            > MAX_ANNOTATION_BYTES
        {
            return Err(field.error("must not be longer than 256 KiB in all"));
        }
        for (key, (value, place)) in values {
            annotation_places.insert(key.clone(), Place::of(&place));
            annotations.insert(key, value);
        }
    }
    let labels = template.at(["metadata", "labels"])?.text_map()?;
    let labels = labels
        .into_iter()
        .map(|(key, (value, _))| (key, value))
        .collect();

    let replicas = spec.get("replicas")?.integer(0..=i64::from(i32::MAX))?;
    let grace = pod
        .get("terminationGracePeriodSeconds")?
        .integer(0..=i64::from(i32::MAX))?;
    let workload = Workload {
        namespace,
        name,
        annotations,
        container,
        replicas: replicas.and_then(|replicas| u32::try_from(replicas).ok()),
        termination_grace: Duration::from_secs(
            grace.unwrap_or(DEFAULT_GRACE_SECONDS).unsigned_abs(),
        ),
        service_ports: Vec::new(),
        source: root.source().clone(),
        annotation_places,
    };
    Ok(Read { workload, labels })
}

impl Place {
    pub(super) fn of(cursor: &Cursor<'_>) -> Self {
        Self {
            source: cursor.source().clone(),
            position: cursor.position(),
            path: cursor.path().to_owned(),
        }
    }
}
