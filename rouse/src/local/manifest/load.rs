//! From files to a [`Manifest`].

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::deployment::Read;
use super::error::ManifestError;
use super::node::parse;
use super::{ContainerPort, DEFAULT_PORT, Manifest, Place, deployment, names, service};

/// The largest file that is read: 1 MiB, as much as an apiserver accepts for one object.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The `ConfigMap` with Knative's config-autoscaler keys.
const CONFIG_MAP: &str = "rouse-config";

type Result<T> = std::result::Result<T, ManifestError>;

/// Reads files. They are read as one: a Service may stand in another file than its Deployment.
pub fn load(files: &[PathBuf]) -> Result<Manifest> {
    let texts = files
        .iter()
        .map(|file| Ok((file.clone(), read_text(file)?)))
        .collect::<Result<Vec<_>>>()?;
    load_text(&texts)
}

/// Reads texts under the names of the files they come from. Relative paths in them start from the files' folders.
pub fn load_text(files: &[(PathBuf, String)]) -> Result<Manifest> {
    let mut documents = Vec::new();
    for (file, text) in files {
        let found = parse(file, text)?;
        if found.is_empty() {
            return Err(ManifestError::whole(
                file,
                "is empty: must hold a Deployment",
            ));
        }
        documents.extend(found);
    }
    let mut reader = Reader::default();
    for (source, node) in &documents {
        reader.object(&Cursor::root(source, node))?;
    }
    reader.finish(files.first().map(|(file, _)| file.as_path()))
}

fn read_text(file: &Path) -> Result<String> {
    let failed =
        |error: std::io::Error| ManifestError::whole(file, format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ManifestError::whole(
            file,
            "is too large: must be 1 MiB at most",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ManifestError::whole(
            file,
            format!("is not text: must be UTF-8, but byte {at} is not"),
        )
    })
}

#[derive(Default)]
struct Reader<'a> {
    deployments: Vec<Read>,
    services: Vec<Cursor<'a>>,
    manifest: Manifest,
}

impl<'a> Reader<'a> {
    fn object(&mut self, root: &Cursor<'a>) -> Result<()> {
        let (version_field, kind_field) = (root.get("apiVersion")?, root.get("kind")?);
        let kind = kind_field.text()?.ok_or_else(|| {
            kind_field.error("must be the kind of a Kubernetes object, like Deployment")
        })?;
        let expected = match kind {
            "Deployment" => "apps/v1",
            "Service" | "ConfigMap" | "List" => "v1",
            _ => {
                self.warn(root, &format!("{kind} is ignored locally"));
                return Ok(());
            }
        };
        if version_field.text()? != Some(expected) {
            return Err(version_field.error(format!("must be {expected} for kind {kind}")));
        }
        match kind {
            "Deployment" => self.deployment(root),
            "Service" => {
                self.services.push(root.clone());
                Ok(())
            }
            "ConfigMap" => self.config_map(root),
            _ => root
                .get("items")?
                .items()?
                .iter()
                .try_for_each(|item| self.object(item)),
        }
    }

    fn deployment(&mut self, root: &Cursor<'_>) -> Result<()> {
        // A file named without a folder stands in the current one, whose path is not the empty one.
        let folder = root
            .source()
            .file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let read = deployment::read(root, folder, &mut self.manifest.warnings)?;
        let new = &read.workload;
        let twin = self.deployments.iter().map(|read| &read.workload);
        if let Some(twin) = twin
            .into_iter()
            .find(|old| (&old.namespace, &old.name) == (&new.namespace, &new.name))
        {
            let allowed = format!(
                "must differ from the Deployment in {} (namespace {})",
                twin.source, twin.namespace
            );
            return Err(root.at(["metadata", "name"])?.error(allowed));
        }
        self.deployments.push(read);
        Ok(())
    }

    fn config_map(&mut self, root: &Cursor<'_>) -> Result<()> {
        let name = root.at(["metadata", "name"])?;
        if names::subdomain(&name)? != CONFIG_MAP {
            self.warn(
                root,
                &format!("ConfigMap is ignored: only {CONFIG_MAP} is read"),
            );
            return Ok(());
        }
        if let Some(first) = self
            .manifest
            .cluster_config_source
            .replace(root.source().clone())
        {
            return Err(name.error(format!(
                "must be given once only: it also stands in {first}"
            )));
        }
        for (key, (value, place)) in root.get("data")?.text_map()? {
            // Knative ships its `ConfigMap` with all settings as one commented example.
            if key != "_example" {
                self.manifest
                    .cluster_config_places
                    .insert(key.clone(), Place::of(&place));
                self.manifest.cluster_config.insert(key, value);
            }
        }
        Ok(())
    }

    fn finish(mut self, first: Option<&Path>) -> Result<Manifest> {
        if self.deployments.is_empty() {
            let file = first.unwrap_or_else(|| Path::new("rouse local"));
            return Err(ManifestError::whole(
                file,
                "has no Deployment: at least one is needed",
            ));
        }
        for root in &self.services {
            if !service::attach(root, &mut self.deployments, &mut self.manifest.warnings)? {
                let name = root.at(["metadata", "name"])?;
                let line = format!(
                    "Service {} is ignored: it selects no Deployment",
                    name.text()?.unwrap_or_default()
                );
                self.manifest
                    .warnings
                    .push(format!("{}: {line}", root.source()));
            }
        }
        for Read { mut workload, .. } in self.deployments {
            if workload.container.ports.is_empty() {
                workload.container.ports.push(ContainerPort {
                    port: DEFAULT_PORT,
                    name: None,
                });
            }
            self.manifest.workloads.push(workload);
        }
        Ok(self.manifest)
    }

    fn warn(&mut self, root: &Cursor<'_>, text: &str) {
        self.manifest
            .warnings
            .push(format!("{}: {text}", root.source()));
    }
}
