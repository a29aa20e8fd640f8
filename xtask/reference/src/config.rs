//! `config.md`.

use autoscaler_core::{SETTINGS, annotations::ALL};

use crate::page::{code, start, table};

const TEXT: &str = "\
Settings for all workloads: the keys of Knative's ConfigMap `config-autoscaler`, with the same names, ranges and defaults.

- `rouse local` reads them from a ConfigMap `rouse-config` in its files; `--set KEY=VALUE` wins over it.
- On a cluster they stand in the ConfigMap `rouse-config` in the namespace of Rouse, and a change counts at once.
- `rouse-autoscaler` without a cluster takes `--set KEY=VALUE`.
- Unknown keys of a ConfigMap are ignored, `_example` among them. An unknown key in `--set` is an error.
- One value that is not allowed refuses all of them, and nothing starts; on a cluster those before stay, with an Event.
- NaN and infinities are not numbers here.
- Without a cluster, settings are read once, at start.";

pub(crate) fn page() -> String {
    let mut page = start("Cluster-wide settings", TEXT);
    let rows = SETTINGS.iter().map(|setting| {
        let overridden = ALL.iter().find(|key| {
            key.default
                .split([' ', ';'])
                .any(|word| word == setting.name)
        });
        [
            code(setting.name),
            setting.allowed.to_owned(),
            code(setting.default),
            overridden.map_or_else(|| "-".to_owned(), |key| code(short(key.name))),
            setting.help.to_owned(),
        ]
    });
    table(
        &mut page,
        [
            "Key",
            "Allowed",
            "Default",
            "Annotation that overrides it",
            "What it does",
        ],
        rows,
    );
    page.push_str(
        "\nThe annotations, in full and with their ranges: [annotations](annotations.md).\n",
    );
    page
}

/// An annotation without its group.
fn short(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}
