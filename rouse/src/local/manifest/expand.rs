//! Kubernetes' `$(VAR)` expansion in command, args and env values.
//!
//! A reference to a variable that is not known stays as it stands, and `$$` stands for one dollar sign, so that
//! `$$(VAR)` is the text `$(VAR)`. An env value may use what Rouse sets and what stands before it in the list.

use std::collections::BTreeMap;

use super::Container;
use crate::local::process::CommandSpec;

/// The command of one replica.
///
/// `variables` are what Rouse sets for this replica ([`port_variables`]). They are known to every value and win over
/// variables of the same name in the file, whose fixed values several replicas on one machine could not share.
pub fn expand(container: &Container, variables: &BTreeMap<String, String>) -> CommandSpec {
    let mut known = variables.clone();
    for (name, value) in &container.env {
        if !variables.contains_key(name) {
            let value = expand_text(value, &known);
            known.insert(name.clone(), value);
        }
    }
    let argv = container
        .command
        .iter()
        .chain(&container.args)
        .map(|text| expand_text(text, &known))
        .collect();
    CommandSpec {
        argv,
        env: known.into_iter().collect(),
        working_dir: container.working_dir.clone(),
    }
}

/// The variables that tell a replica its ports.
///
/// `PORT` is the local port for the container's first port. Every port is also given as `PORT_<containerPort>`
/// (`PORT_8080`) and, if it has a name, as `PORT_<NAME>` (`PORT_GRPC_WEB` for `grpc-web`). `local_port` answers with the
/// replica's loopback port for a container port.
pub fn port_variables(
    container: &Container,
    mut local_port: impl FnMut(u16) -> u16,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (index, port) in container.ports.iter().enumerate() {
        let local = local_port(port.port).to_string();
        if index == 0 {
            variables.insert("PORT".to_owned(), local.clone());
        }
        if let Some(name) = &port.name {
            variables.insert(
                format!("PORT_{}", name.to_ascii_uppercase().replace('-', "_")),
                local.clone(),
            );
        }
        variables.insert(format!("PORT_{}", port.port), local);
    }
    variables
}

fn expand_text(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some((name, after)) = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'))
        {
            match known.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            after
        } else {
            expanded.push('$');
            after
        };
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::manifest::ContainerPort;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn texts() {
        let known = map(&[("A", "1"), ("B", "$(A)"), ("EMPTY", "")]);
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"), // once only
            ("$(EMPTY)", ""),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$", "$"),
            ("$", "$"),
            ("$A ${A}", "$A ${A}"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$($(A))", "$($(A))"),
        ] {
            assert_eq!(expand_text(text, &known), expected, "{text:?}");
        }
    }

    #[test]
    fn env_values_see_what_stands_before_them() {
        let container = Container {
            command: vec!["run".to_owned(), "--port=$(PORT)".to_owned()],
            args: vec!["$(LATER)".to_owned()],
            env: [
                ("FIRST", "$(LATER)"),
                ("LATER", "at $(PORT)"),
                ("PORT", "1"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            ..Container::default()
        };
        let spec = expand(&container, &map(&[("PORT", "4000")]));
        assert_eq!(spec.argv, ["run", "--port=4000", "at 4000"]);
        let env: BTreeMap<_, _> = spec.env.into_iter().collect();
        assert_eq!(
            env,
            map(&[
                ("FIRST", "$(LATER)"),
                ("LATER", "at 4000"),
                ("PORT", "4000")
            ])
        );
    }

    #[test]
    fn every_port_has_its_variables() {
        let container = Container {
            ports: vec![
                ContainerPort {
                    port: 8080,
                    name: Some("http".to_owned()),
                },
                ContainerPort {
                    port: 9000,
                    name: Some("grpc-web".to_owned()),
                },
                ContainerPort {
                    port: 9100,
                    name: None,
                },
            ],
            ..Container::default()
        };
        let expected = map(&[
            ("PORT", "18080"),
            ("PORT_8080", "18080"),
            ("PORT_HTTP", "18080"),
            ("PORT_9000", "19000"),
            ("PORT_GRPC_WEB", "19000"),
            ("PORT_9100", "19100"),
        ]);
        assert_eq!(port_variables(&container, |port| port + 10000), expected);
    }
}
