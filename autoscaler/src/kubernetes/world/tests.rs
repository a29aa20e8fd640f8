use std::time::Instant;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kubernetes::labels;
use litemap::LiteMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::{plan::plan, view::Conditions};

/// What caches hold.
#[derive(Clone, Debug, Default)]
struct Everything {
    workloads: All<WorkloadView>,
    pods: All<SeenPod>,
    services: All<ServiceView>,
    slices: All<SliceView>,
    claims: All<Claim>,
}

impl Everything {
    fn snapshot(&self) -> Snapshot {
        let mut all = self.clone();
        // As a cache tells it.
        all.workloads.sort_by(|a, b| a.0.cmp(&b.0));
        all.pods.sort_by(|a, b| a.0.cmp(&b.0));
        all.services.sort_by(|a, b| a.0.cmp(&b.0));
        all.slices.sort_by(|a, b| a.0.cmp(&b.0));
        let activator = ActivatorView {
            ips: vec![[10, 0, 0, 1].into()],
            ready: true,
            gone_by: None,
        };
        let activators = vec![(key("activator"), Arc::new(activator))];
        Snapshot::new(
            all.workloads,
            all.pods,
            all.services,
            all.slices,
            all.claims,
            &activators,
        )
    }

    fn workload(&mut self, name: &str, labels: &Value) {
        let object = json!({
            "metadata": {"namespace": "n", "name": name, "uid": "w", "labels": {"rouse.dev/enabled": "true"}},
            "spec": {"selector": {}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "model", "ports": [{"name": "http", "containerPort": 8080}]}]},
            }},
        });
        let object: Deployment = serde_json::from_value(object).unwrap();
        let view = WorkloadView::of(&object).unwrap();
        self.workloads.push((key(name), Arc::new(view)));
    }

    fn service(&mut self, name: &str, selector: &Value, companion_of: Option<&str>) {
        let mut object = json!({
            "metadata": {"namespace": "n", "name": name, "uid": name},
            "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "rouse-0"}]},
        });
        if let Some(workload) = companion_of {
            let record =
                json!({"workload": workload, "ports": [{"port": 80, "was": 8080, "index": 0}]});
            object["metadata"]["labels"] = json!({names::COMPANION: "x"});
            object["metadata"]["annotations"] = json!({names::ADOPTED: record.to_string()});
        }
        let object: Service = serde_json::from_value(object).unwrap();
        if let Some(view) = ServiceView::of(&object) {
            self.services.push((key(name), Arc::new(view)));
        }
    }

    fn slice(&mut self, name: &str, service: &str, workload: &str, port: u16) {
        let view = SliceView {
            name: name.into(),
            service: service.into(),
            workload: workload.into(),
            ipv6: false,
            addresses: [[10, 0, 0, 1].into()].into(),
            ports: LiteMap::from_iter([("http".to_owned(), (port, None))]),
            conditions: Conditions::Fallback,
            terminating: false,
        };
        self.slices.push((key(name), Arc::new(view)));
    }

    fn bare(&mut self, name: &str, labels: &Value) {
        let labels: Option<BTreeMap<_, _>> = serde_json::from_value(labels.clone()).unwrap();
        let labels = labels::kept(labels.as_ref());
        let view = SeenPod::Bare {
            labels,
            ready: true,
        };
        self.pods.push((key(name), Arc::new(view)));
    }
}

fn key(name: &str) -> Key {
    ("n".into(), name.into())
}

/// One namespace with so many adopted workloads.
fn adopted(count: u16) -> Everything {
    let mut all = Everything::default();
    for number in 0..count {
        let name = format!("model-{number}");
        let companion = names::companion(&name);
        let port = 10_000 + number;
        let labels = json!({"app": name, "team": "vision", "rouse.dev/enabled": "true"});
        all.workload(&name, &labels);
        all.service(&name, &json!({"app": name, "team": "vision"}), None);
        all.service(&companion, &json!({}), Some(&name));
        for service in [&name, &companion] {
            let slice = format!("{service}-activators-ipv4");
            all.slice(&slice, service, &name, port);
        }
        let claim = Claim {
            port,
            target: TargetId::new("n", &name).unwrap(),
            index: 0,
            released: None,
        };
        all.claims
            .push((key(&Claim::name_of(port)), Arc::new(claim)));
    }
    all
}

/// No assertion on time: run it with `--ignored --nocapture` before and after a change of how a workload's part is found.
#[test]
#[ignore = "it measures, and says nothing about right or wrong"]
fn how_long_a_look_takes() {
    for count in [300, 1_000] {
        let everything = adopted(count);
        let listening: BTreeSet<u16> = (10_000..10_000 + count).collect();
        let before = Instant::now();
        let seen = everything.snapshot();
        let ordered = before.elapsed();
        let mut actions = 0;
        for (target, workload) in &seen.workloads {
            let standing = Standing::In(Arc::clone(workload));
            let world = seen.world(target, standing, &listening, BTreeSet::new(), 1);
            let plan = plan(&world);
            actions += plan.actions.len() + plan.relay.len();
        }
        let whole = before.elapsed();
        println!("{count} workloads: {ordered:?} to order, {whole:?} in all, {actions} actions");
    }
}

#[test]
fn ready_activators_are_listed_and_for_want_of_them_all_that_stay() {
    let one = |last: u8, ready, terminating: bool| ActivatorView {
        ips: vec![[10, 0, 0, last].into()],
        ready,
        gone_by: terminating.then_some(1),
    };
    let listed = |all: &[ActivatorView]| listed(all.iter()).len();
    assert_eq!(listed(&[one(1, true, false), one(2, false, false)]), 1);
    assert_eq!(listed(&[one(1, false, false), one(2, false, false)]), 2);
    assert_eq!(listed(&[one(1, true, true), one(2, false, false)]), 1);
    assert_eq!(listed(&[one(1, true, true)]), 0);
}

/// One workload's part by what it is, however long it takes: slices, Services, companions and shared ones by name, and the
/// Services that select a ready pod without a sidecar.
fn plainly(all: &Everything, target: &TargetId) -> [BTreeSet<String>; 5] {
    let workload = all.workloads.iter().find(|one| one.1.target == *target);
    let services: Vec<_> = all.services.iter().map(|(_, one)| one).collect();
    let slices = || all.slices.iter().map(|(_, one)| one);
    let by_name = |name: &str| services.iter().find(|one| one.name == name);
    let is_of = |companion: &ServiceView| {
        let record = companion.adopted.as_ref();
        companion.is_companion() && record.is_some_and(|r| r.workload == target.name())
    };
    let mut seen: [BTreeSet<String>; 5] = Default::default();
    let mut companions = BTreeSet::new();
    for service in services.iter().filter(|one| !one.is_companion()) {
        let companion = by_name(&names::companion(&service.name));
        let slice = slices().any(|s| s.service == service.name && s.workload == target.name());
        let ours = companion.is_some_and(|one| is_of(one)) || slice;
        let others = companion.is_some_and(|one| one.adopted.is_some() && !is_of(one));
        let selects = |one: &WorkloadView| one.selected_by(&service.selector);
        if workload.is_some_and(|one| selects(&one.1)) || (ours && !others) {
            seen[1].insert(service.name.clone());
            if let Some(companion) = companion {
                seen[2].insert(format!("{}: {}", service.name, companion.name));
                companions.extend(companion.is_companion().then(|| companion.name.clone()));
            }
            let mut rest = all.workloads.iter().filter(|one| one.1.target != *target);
            let other = rest.find(|one| selects(&one.1));
            seen[3].extend(other.map(|one| format!("{}: {}", service.name, one.1.target)));
            let bare = all.pods.iter().any(|(_, pod)| match &**pod {
                SeenPod::Bare { labels, .. } => service
                    .selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value)),
                SeenPod::Ours(..) => false,
            });
            seen[4].extend(bare.then(|| service.name.clone()));
        }
    }
    for companion in services.iter().filter(|one| is_of(one)) {
        let service = companion.name.strip_suffix("-rouse");
        let service = service.unwrap_or(&companion.name);
        if !seen[2]
            .iter()
            .any(|one| one.starts_with(&format!("{service}: ")))
        {
            seen[2].insert(format!("{service}: {}", companion.name));
            companions.insert(companion.name.clone());
        }
    }
    let ours = |slice: &&Arc<SliceView>| {
        slice.workload == target.name()
            || seen[1].contains(&slice.service)
            || companions.contains(&slice.service)
    };
    seen[0] = slices().filter(ours).map(|one| one.name.clone()).collect();
    seen
}

fn found(world: &World) -> [BTreeSet<String>; 5] {
    let pairs = |(service, other): (&String, &String)| format!("{service}: {other}");
    let bare = |service: &&Arc<ServiceView>| {
        let has = |labels: &kubernetes::Labels| {
            let mut asked = service.selector.iter();
            asked.all(|(key, value)| labels.get(key) == Some(value))
        };
        world.bare.iter().any(has)
    };
    let names = |services: &mut dyn Iterator<Item = &Arc<ServiceView>>| {
        services.map(|one| one.name.clone()).collect()
    };
    let companions = world.companions.iter();
    [
        world.slices.iter().map(|one| one.name.clone()).collect(),
        names(&mut world.services.iter()),
        companions
            .map(|(name, one)| pairs((name, &one.name)))
            .collect(),
        world.shared.iter().map(pairs).collect(),
        names(&mut world.services.iter().filter(bare)),
    ]
}

fn label() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"app": "a"}),
        json!({"app": "b"}),
        json!({"team": "x"}),
        json!({"app": "a", "team": "x"}),
        json!({"app": "b", "team": "x"}),
    ])
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

proptest! {
    #[test]
    fn a_workloads_part_is_what_a_walk_through_everything_would_find(
        workloads in prop::collection::btree_map(name(), label(), 0..4),
        services in prop::collection::btree_map((name(), any::<bool>()), (label(), prop::option::of(name())), 0..8),
        slices in prop::collection::vec((name(), any::<bool>(), prop::option::of(name())), 0..6),
        bare in prop::collection::vec(label(), 0..3),
    ) {
        let mut all = Everything::default();
        for (name, labels) in &workloads {
            all.workload(name, labels);
        }
        for ((name, beside), (selector, companion_of)) in &services {
            let name = if *beside { names::companion(name) } else { (*name).to_owned() };
            all.service(&name, selector, *companion_of);
        }
        for (number, (service, beside, workload)) in slices.iter().enumerate() {
            let service = if *beside { names::companion(service) } else { (*service).to_owned() };
            all.slice(&format!("slice-{number}"), &service, workload.unwrap_or_default(), 10_000);
        }
        for (number, labels) in bare.iter().enumerate() {
            all.bare(&format!("pod-{number}"), labels);
        }
        let seen = all.snapshot();
        for name in ["a", "b", "c", "d"] {
            let target = TargetId::new("n", name).unwrap();
            let standing = match seen.workloads.get(&target) {
                Some(workload) => Standing::In(Arc::clone(workload)),
                None => Standing::Gone,
            };
            let world = seen.world(&target, standing, &BTreeSet::new(), BTreeSet::new(), 1);
            let plain = plainly(&all, &target);
            prop_assert_eq!(found(&world), plain);
            let records = all.services.iter().filter_map(|(_, one)| one.adopted.as_ref());
            let mut left = records.map(|record| record.workload.as_str());
            let rests = left.all(|workload| workload != name)
                && all.slices.iter().all(|(_, slice)| slice.workload != name);
            prop_assert_eq!(seen.only_rests(&target), rests);
        }
    }
}
