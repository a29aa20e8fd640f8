//! `annotations.md`.

use autoscaler_core::{
    SETTINGS,
    annotations::{ALL, Key, READ_ELSEWHERE},
};

use crate::page::{code, section, start, table};

const TEXT: &str = "\
Annotations of one workload. They stand on the Deployment or on its pod template; where both have a key, the template's
counts. `rouse local --annotation KEY=VALUE` sets one for every workload and wins over the files; `rouse-autoscaler
--annotation KEY=VALUE` sets one for its workload.

Names, aliases, ranges and defaults below `autoscaling.knative.dev/` are Knative's. Where Rouse departs on purpose:
[differences to Knative](knative-differences.md).

- Values are texts; in YAML, numbers need quotes. Durations are Go's: `300ms`, `1m30s`, `2h`.
- An alias counts only where the canonical key is absent. If both are given, the alias is named in a warning.
- A value that is not allowed is an error that names key, value and range. All errors are reported at once, and nothing
  starts; on a cluster the object is refused, or, where it is there already, the last good values stay.
- On a cluster, what is for the sidecar (`container-concurrency`, `ready-path`, `max-connection-age`, the three timeouts,
  `probe-paths`, `openai-errors`, the resources, `drain-grace` and `request-log`) belongs on the pod template: a change of it makes new pods.
- An unknown key in these two groups is a warning.
- A default that links to [config](config.md) is a cluster-wide setting.";

pub(crate) fn page() -> String {
    let mut page = start("Annotations", TEXT);
    let (knative, ours): (Vec<Key>, Vec<Key>) = ALL
        .into_iter()
        .partition(|key| key.name.starts_with("autoscaling.knative.dev/"));
    let head = ["Key", "Allowed", "Default", "What it does"];
    section(&mut page, "Knative's", "");
    table(&mut page, head, knative.iter().map(row));
    section(&mut page, "Rouse's own", "");
    table(&mut page, head, ours.iter().map(row));
    section(
        &mut page,
        "On a cluster only",
        "Local mode knows these keys and leaves them without effect. What they do: [injection](injection.md) and \
         [install on a cluster](../guides/install-on-a-cluster.md).",
    );
    page.push('\n');
    for key in READ_ELSEWHERE {
        page.extend(["- `", key, "`\n"]);
    }
    page
}

fn row(key: &Key) -> [String; 4] {
    let mut name = code(key.name);
    if let Some(alias) = key.alias {
        name.extend(["<br>alias `", alias, "`"]);
    }
    [
        name,
        key.allowed.to_owned(),
        linked(key.default),
        key.help.to_owned(),
    ]
}

/// The names of settings in a text, as links.
fn linked(text: &str) -> String {
    text.split(' ')
        .map(|word| {
            let bare = word.trim_end_matches([',', ';']);
            let rest = &word[bare.len()..];
            match SETTINGS.iter().find(|setting| setting.name == bare) {
                Some(setting) => format!("[`{bare}`](config.md) ({}){rest}", setting.default),
                None => word.to_owned(),
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_links_with_their_default() {
        assert_eq!(
            linked("stable-window; with rps 70"),
            "[`stable-window`](config.md) (60s); with rps 70"
        );
        assert_eq!(linked("none"), "none");
    }
}
