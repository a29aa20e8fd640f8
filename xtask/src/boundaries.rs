//! `cargo xtask boundaries`: dependencies point one way.
//!
//! The table below is the decision of `docs/adr/0002-crate-boundaries.md` in a form that can fail. A member that the
//! table does not know fails too: whoever adds a crate says what it may see.
//!
//! Direct edges are read from the manifests, so an optional dependency counts whether or not a feature turns it on.
//! The ban on Kubernetes in the sidecar follows the resolved graph, in which cargo has united the features of the
//! workspace: a feature of `shared` that brings in a Kubernetes client breaks it whoever turns the feature on.

use crate::metadata::{Dependency, Kind, Metadata, Package};
use crate::report;

/// Which of our own crates a crate may depend on, in any dependency table.
#[derive(Debug)]
struct Rule {
    package: &'static str,
    may_see: MaySee,
    why: &'static str,
}

#[derive(Debug)]
enum MaySee {
    Only(&'static [&'static str]),
    Anything,
}

const PROGRAM: MaySee = MaySee::Only(&["autoscaler-core", "shared"]);
/// A program that talks to the API server.
const CONTROLLER: MaySee = MaySee::Only(&["autoscaler-core", "kubernetes", "shared"]);

const RULES: &[Rule] = &[
    Rule {
        package: "autoscaler-core",
        may_see: MaySee::Only(&[]),
        why: "the algorithm stands alone, with nothing but an optional serde, and dice for its optional simulator",
    },
    Rule {
        package: "vectors",
        may_see: PROGRAM,
        why: "a replay of Knative's cases goes through what programs run, and through nothing of theirs alone",
    },
    Rule {
        package: "shared",
        may_see: MaySee::Only(&[]),
        why: "what every program uses knows none of them",
    },
    Rule {
        package: "flags",
        may_see: MaySee::Only(&["shared"]),
        why: "flags of two programs say what `shared` takes, and know neither program",
    },
    Rule {
        package: "activator",
        may_see: MaySee::Only(&[
            "autoscaler-core",
            "flags",
            "kubernetes",
            "shared",
            "webhook",
        ]),
        why: "programs meet on the wire: they share `shared` and `autoscaler-core` and never depend on each other",
    },
    Rule {
        package: "autoscaler",
        may_see: CONTROLLER,
        why: "programs meet on the wire: they share `shared` and `autoscaler-core` and never depend on each other",
    },
    Rule {
        package: "queue-proxy",
        may_see: MaySee::Only(&["autoscaler-core", "flags", "shared"]),
        why: "programs meet on the wire: they share `shared` and `autoscaler-core` and never depend on each other",
    },
    Rule {
        package: "kubernetes",
        may_see: PROGRAM,
        why: "what the programs know of Kubernetes in common knows none of the programs",
    },
    Rule {
        package: "webhook",
        may_see: CONTROLLER,
        why: "admission is a function of the review: it needs the words of the cluster and nothing that runs",
    },
    Rule {
        package: "loadtests",
        may_see: MaySee::Only(&[]),
        why: "a measuring tool must not share code with what it measures",
    },
    Rule {
        package: "attacks",
        may_see: MaySee::Only(&[]),
        why: "who attacks knows nothing of what is attacked",
    },
    Rule {
        package: "datapath",
        may_see: MaySee::Only(&["attacks"]),
        why: "a measuring tool must not share code with what it measures",
    },
    Rule {
        package: "rouse",
        may_see: MaySee::Only(&[
            "activator",
            "autoscaler",
            "autoscaler-core",
            "kubernetes",
            "loadtests",
            "queue-proxy",
            "shared",
            "vectors",
            "webhook",
        ]),
        why: "the command line assembles the programs; tests and chores stay outside",
    },
    Rule {
        package: "integration",
        may_see: MaySee::Anything,
        why: "the tests across programs may look at everything",
    },
    Rule {
        package: "schedules",
        may_see: MaySee::Only(&[]),
        why: "locks and channels for tests know nothing of those who use them",
    },
    Rule {
        package: "xtask",
        may_see: MaySee::Only(&[]),
        why: "the chores must run while the programs do not compile",
    },
    Rule {
        package: "reference",
        may_see: MaySee::Only(&["activator", "autoscaler-core", "queue-proxy", "shared"]),
        why: "the reference pages are made from these tables, and nothing that we ship may need them",
    },
];

/// What the algorithm may ask for under a feature: a form to be written down in, and the simulator's dice.
const OPTIONAL_IN_CORE: [&str; 4] = ["serde", "rand", "rand_distr", "rand_pcg"];

/// Edges that only tests may have: what they check is the meeting of two programs on the wire, so they need both.
const TEST_EDGES: &[(&str, &str)] = &[
    ("activator", "attacks"),
    ("activator", "queue-proxy"),
    ("activator", "schedules"),
    ("queue-proxy", "attacks"),
    ("queue-proxy", "schedules"),
];

/// The sidecar runs beside every replica of every model, and has no business with the API server.
const SIDECAR: &str = "queue-proxy";
const SIDECAR_WHY: &str = "the sidecar carries no Kubernetes client, directly or through others";

pub(crate) fn run() -> anyhow::Result<()> {
    let violations = check(&Metadata::load()?);
    report::conclude(
        &violations,
        "edges against the boundaries",
        "dependencies point one way",
    )
}

/// One line per violation: the edge, then the rule it breaks.
fn check(metadata: &Metadata) -> Vec<String> {
    let members = metadata.members();
    let mut violations = Vec::new();
    for member in &members {
        let Some(rule) = RULES.iter().find(|rule| rule.package == member.name) else {
            violations.push(format!(
                "{}: no rule says what it may depend on; add one to the boundaries",
                member.name
            ));
            continue;
        };
        for dependency in &member.dependencies {
            let is_ours = members.iter().any(|other| other.name == dependency.name);
            if !allows(rule, member, dependency, is_ours) {
                violations.push(format!(
                    "{} -> {}: {}",
                    member.name, dependency.name, rule.why
                ));
            }
        }
        if member.name == SIDECAR
            && let Some(chain) = metadata.chain(member, is_kubernetes)
        {
            violations.push(format!("{}: {SIDECAR_WHY}", chain.join(" -> ")));
        }
    }
    violations
}

fn allows(rule: &Rule, member: &Package, dependency: &Dependency, is_ours: bool) -> bool {
    if dependency.name == member.name {
        return true; // a crate's tests may turn on its own features
    }
    if !is_ours {
        let name = dependency.name.as_str();
        return member.name != "autoscaler-core"
            || dependency.kind == Kind::Dev
            || (dependency.optional && OPTIONAL_IN_CORE.contains(&name));
    }
    let edge = (member.name.as_str(), dependency.name.as_str());
    if dependency.kind == Kind::Dev && TEST_EDGES.contains(&edge) {
        return true;
    }
    match rule.may_see {
        MaySee::Only(names) => names.contains(&dependency.name.as_str()),
        MaySee::Anything => true,
    }
}

fn is_kubernetes(name: &str) -> bool {
    name == "kube" || name.starts_with("kube-") || name == "k8s-openapi"
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A workspace of the given crates; each edge is `(from, to, kind)`, and a crate nobody lists is not ours.
    fn workspace(members: &[&str], edges: &[(&str, &str, Value)]) -> Metadata {
        let mut names: Vec<&str> = members.to_vec();
        for (_, to, _) in edges {
            if !names.contains(to) {
                names.push(to);
            }
        }
        let of = |name: &str| {
            edges
                .iter()
                .filter(move |(from, ..)| *from == name)
                .collect::<Vec<_>>()
        };
        let packages: Vec<Value> = names
            .iter()
            .map(|name| {
                let dependencies: Vec<Value> = of(name)
                    .iter()
                    .map(|(_, to, kind)| match kind.as_str() {
                        Some("optional") => json!({"name": to, "kind": null, "optional": true}),
                        _ => json!({"name": to, "kind": kind, "optional": false}),
                    })
                    .collect();
                json!({"id": format!("id:{name}"), "name": name, "dependencies": dependencies, "targets": []})
            })
            .collect();
        let nodes: Vec<Value> = names
            .iter()
            .map(|name| {
                let deps: Vec<Value> = of(name)
                    .iter()
                    .map(|(_, to, kind)| json!({"pkg": format!("id:{to}"), "dep_kinds": [{"kind": kind}]}))
                    .collect();
                json!({"id": format!("id:{name}"), "deps": deps})
            })
            .collect();
        let members: Vec<String> = members.iter().map(|name| format!("id:{name}")).collect();
        let metadata = json!({"workspace_root": "/w", "target_directory": "/w/target", "workspace_members": members,
            "packages": packages, "resolve": {"nodes": nodes}});
        Metadata::parse(&metadata).expect("the fake is well formed")
    }

    const ALL: &[&str] = &[
        "activator",
        "autoscaler",
        "autoscaler-core",
        "integration",
        "loadtests",
        "queue-proxy",
        "reference",
        "rouse",
        "shared",
        "vectors",
        "xtask",
    ];

    fn violations(edges: &[(&str, &str, Value)]) -> Vec<String> {
        check(&workspace(ALL, edges))
    }

    #[test]
    fn allows_what_the_design_draws() {
        let none = violations(&[
            ("activator", "shared", Value::Null),
            ("activator", "queue-proxy", json!("dev")),
            ("activator", "tokio", Value::Null),
            ("autoscaler", "autoscaler-core", Value::Null),
            ("autoscaler", "kube", Value::Null),
            ("autoscaler-core", "serde", json!("optional")),
            ("autoscaler-core", "proptest", json!("dev")),
            ("integration", "queue-proxy", json!("dev")),
            ("integration", "rouse", Value::Null),
            ("queue-proxy", "shared", Value::Null),
            ("reference", "activator", Value::Null),
            ("rouse", "activator", Value::Null),
            ("rouse", "loadtests", Value::Null),
            ("rouse", "vectors", Value::Null),
            ("shared", "shared", json!("dev")),
            ("vectors", "autoscaler-core", Value::Null),
            ("xtask", "clap", Value::Null),
        ]);
        assert_eq!(none, Vec::<String>::new());
    }

    #[test]
    fn refuses_each_edge_against_the_direction() {
        let cases = [
            ("activator", "queue-proxy", Value::Null),
            ("queue-proxy", "activator", json!("dev")),
            ("autoscaler", "activator", Value::Null),
            ("autoscaler", "xtask", json!("build")),
            ("autoscaler-core", "shared", json!("dev")),
            ("autoscaler-core", "tokio", Value::Null),
            ("autoscaler-core", "tokio", json!("optional")),
            ("autoscaler-core", "serde", Value::Null),
            ("loadtests", "shared", Value::Null),
            ("queue-proxy", "rouse", Value::Null),
            ("rouse", "integration", Value::Null),
            ("reference", "rouse", Value::Null),
            ("rouse", "reference", Value::Null),
            ("rouse", "xtask", Value::Null),
            ("shared", "autoscaler-core", json!("optional")),
            ("vectors", "autoscaler", json!("dev")),
            ("xtask", "shared", Value::Null),
        ];
        for (from, to, kind) in cases {
            let found = violations(&[(from, to, kind.clone())]);
            let edge = format!("{from} -> {to}: ");
            assert!(
                found.len() == 1 && found[0].starts_with(&edge),
                "{from} -> {to} ({kind}): {found:?}"
            );
        }
    }

    #[test]
    fn finds_kubernetes_behind_the_sidecar_and_names_the_way() {
        let found = violations(&[
            ("queue-proxy", "shared", Value::Null),
            ("shared", "helper", Value::Null),
            ("helper", "kube-client", json!("build")),
            ("helper", "k8s-openapi", json!("dev")),
        ]);
        assert_eq!(
            found,
            [format!(
                "queue-proxy -> shared -> helper -> kube-client: {SIDECAR_WHY}"
            )]
        );
    }

    #[test]
    fn ignores_kubernetes_that_only_tests_of_others_use() {
        let none = violations(&[
            ("queue-proxy", "helper", Value::Null),
            ("helper", "kube", json!("dev")),
        ]);
        assert_eq!(none, Vec::<String>::new());
    }

    #[test]
    fn asks_for_a_rule_for_an_unknown_crate() {
        let found = check(&workspace(&["shared", "gateway"], &[]));
        assert!(
            found.len() == 1 && found[0].starts_with("gateway: no rule"),
            "{found:?}"
        );
    }

    #[test]
    fn says_which_field_cargo_left_out() {
        let error =
            Metadata::parse(&json!({"workspace_members": []})).expect_err("nothing else is there");
        assert!(error.to_string().contains("\"packages\""), "{error}");
    }
}
