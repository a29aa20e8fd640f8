use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::{
    leaving::{self, Stage},
    view::{PortView, Role},
};

impl Plan {
    /// Every step, in whatever order the two parts come.
    fn steps(&self) -> Vec<Action> {
        self.actions.iter().chain(&self.relay).cloned().collect()
    }
}

fn workload(change: impl FnOnce(&mut Value)) -> Arc<WorkloadView> {
    let mut object = json!({
        "metadata": {"namespace": "n", "name": "iris", "uid": "w", "labels": {"rouse.dev/enabled": "true"}},
        "spec": {"selector": {}, "template": {
            "metadata": {"labels": {"app": "iris", "rouse.dev/enabled": "true"}},
            "spec": {"containers": [{"name": "model", "ports": [
                {"name": "http", "containerPort": 8080}, {"name": "grpc", "containerPort": 9000},
                {"name": "metrics", "containerPort": 9100},
            ]}]},
        }},
    });
    change(&mut object);
    let object: Deployment = serde_json::from_value(object).unwrap();
    Arc::new(WorkloadView::of(&object).unwrap())
}

fn service(spec: &Value) -> Arc<ServiceView> {
    let mut object =
        json!({"metadata": {"namespace": "n", "name": "iris", "uid": "s"}, "spec": spec});
    object["spec"]["selector"] = json!({"app": "iris"});
    let object: Service = serde_json::from_value(object).unwrap();
    Arc::new(ServiceView::of(&object).unwrap())
}

fn two_ports() -> Arc<ServiceView> {
    service(&json!({"ports": [
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "rpc", "port": 81, "targetPort": "grpc"},
        {"name": "other", "port": 82, "targetPort": 9100},
    ]}))
}

fn world() -> World {
    World {
        target: "n/iris".parse().unwrap(),
        standing: Standing::In(workload(|_| {})),
        pods: Vec::new(),
        bare: Vec::new(),
        services: vec![two_ports()],
        companions: BTreeMap::new(),
        relay: None,
        slices: Vec::new(),
        claims: Vec::new(),
        activators: ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()].into(),
        listening: BTreeSet::new(),
        contested: BTreeSet::new(),
        shared: BTreeMap::new(),
        now: 1_000_000,
    }
}

fn pod(ready: bool) -> PodFact {
    PodFact {
        ready,
        upstreams: vec![8080, 9000],
    }
}

fn bare() -> Labels {
    Labels::from_iter([("app".to_owned(), "iris".to_owned())])
}

/// What the API server and the activators make of an action.
fn apply(world: &mut World, action: &Action) {
    match action {
        Action::Claim { index } => {
            let taken = world.claims.iter().map(|claim| claim.port).collect();
            let port = free_port(&taken).unwrap();
            world.claims.push(Claim {
                port,
                target: world.target.clone(),
                index: *index,
                released: None,
            });
        }
        Action::Reclaim { port } => claim_of(world, *port).released = None,
        Action::Release { port } => {
            let now = world.now;
            claim_of(world, *port).released = Some(now);
        }
        Action::Forget { port } => world.claims.retain(|claim| claim.port != *port),
        Action::KeepCompanion(wanted) => {
            let ports = wanted.ports.iter().enumerate();
            let view = ServiceView {
                namespace: "n".into(),
                name: names::companion(&wanted.service),
                uid: "c".into(),
                selector: Labels::new(),
                ports: ports
                    .map(|(place, port)| PortView {
                        place,
                        name: port.name.clone(),
                        port: port.port,
                        app_protocol: port.app_protocol.clone(),
                        target: TargetPort::Int(port.claim.into()),
                        tcp: true,
                    })
                    .collect(),
                refused: None,
                headless: false,
                chosen: None,
                role: Role::Companion,
                adopted: Some(wanted.adopted.clone()),
                owner: Some(wanted.service_uid.clone()),
                terminating: false,
            };
            world
                .companions
                .insert(wanted.service.clone(), Arc::new(view));
        }
        Action::KeepRelay(wanted) => {
            assert_eq!(wanted.exists, world.relay.is_some());
            let ports = service_ports(&wanted.ports);
            let mut object = json!({
                "metadata": {"namespace": "n", "name": wanted.name, "uid": "r", "labels": {names::RELAY: "true"},
                    "annotations": {names::ADOPTED: wanted.adopted.to_text()}},
            });
            object["spec"] = json!({"ports": ports});
            let object: Service = serde_json::from_value(object).unwrap();
            world.relay = Some(Arc::new(ServiceView::of(&object).unwrap()));
        }
        Action::MarkLeaving { adopted, .. } => {
            let companion = world.companions.get_mut("iris").unwrap();
            Arc::make_mut(companion).adopted = Some(adopted.clone());
        }
        Action::RemoveCompanion { name, .. } => {
            world.companions.retain(|_, one| one.name != *name);
            world.relay.take_if(|one| one.name == *name);
            world.slices.retain(|slice| slice.service != *name);
        }
        Action::KeepSlice { slice, .. } => {
            world.slices.retain(|one| one.name != slice.name);
            world.slices.push(Arc::new(slice.clone()));
        }
        Action::RemoveSlice { name } => world.slices.retain(|slice| slice.name != *name),
        Action::Flip { service, ports, .. } | Action::FlipBack { service, ports, .. } => {
            let service = world
                .services
                .iter_mut()
                .find(|one| one.name == *service)
                .unwrap();
            let service = Arc::make_mut(service);
            for flip in ports {
                assert_eq!(service.ports[flip.place].target, flip.from, "tested");
                service.ports[flip.place].target = flip.to.clone();
            }
        }
        Action::Wake => {
            if let Standing::Out { replicas, .. } = &mut world.standing {
                *replicas = (*replicas).max(1);
            }
        }
    }
}

fn service_ports(ports: &[CompanionPort]) -> Vec<Value> {
    let port = |port: &CompanionPort| json!({"name": port.name, "port": port.port, "targetPort": port.claim});
    ports.iter().map(port).collect()
}

fn claim_of(world: &mut World, port: u16) -> &mut Claim {
    world
        .claims
        .iter_mut()
        .find(|claim| claim.port == port)
        .unwrap()
}

/// Activators listen on what is claimed.
fn listen(world: &mut World) {
    world.listening = if world.activators.is_empty() {
        BTreeSet::new()
    } else {
        let live = world.claims.iter().filter(|claim| claim.released.is_none());
        live.map(|claim| claim.port).collect()
    };
}

/// Whether each request port of the Service leads to somebody.
fn leads(world: &World) -> [bool; 2] {
    let service = &world.services[0];
    [0, 1].map(|place| {
        let port = &service.ports[place];
        let native = match ports::flipped_to(&port.target) {
            Some(index) => world
                .pods
                .iter()
                .any(|pod| pod.ready && index < pod.upstreams.len()),
            None => {
                world.pods.iter().any(|pod| pod.ready)
                    || !world.bare.is_empty()
                    || matches!(world.standing, Standing::Out { ready: true, .. })
            }
        };
        let fallback = world.slices.iter().any(|slice| {
            slice.service == service.name
                && !slice.addresses.is_empty()
                && slice
                    .ports
                    .get(&port.name)
                    .is_some_and(|(number, _)| world.listening.contains(number))
        });
        native || fallback
    })
}

/// Applies plans until there is nothing left to do.
fn settle(world: &mut World) -> Plan {
    for _ in 0..30 {
        let plan = plan(world);
        let steps = plan.steps();
        if steps.is_empty() {
            return plan;
        }
        for action in &steps {
            apply(world, action);
            listen(world);
        }
    }
    panic!("no end: {:?}", plan(world).actions);
}

fn targets(world: &World) -> Vec<TargetPort> {
    let ports = world.services[0].ports.iter();
    ports.map(|port| port.target.clone()).collect()
}

fn name(text: &str) -> TargetPort {
    TargetPort::String(text.into())
}

#[test]
fn a_workload_at_zero_is_adopted_and_given_back_as_it_was() {
    let mut world = world();
    let original = targets(&world);
    let settled = settle(&mut world);
    assert_eq!(settled.adopted, ["iris"]);
    assert!(settled.may_sleep && settled.refused.is_empty());
    assert_eq!(
        targets(&world),
        [name("rouse-0"), name("rouse-1"), TargetPort::Int(9100)]
    );
    let fallback = world
        .slices
        .iter()
        .find(|slice| slice.service == "iris")
        .unwrap();
    assert_eq!(fallback.conditions, Conditions::ReadyFallback);
    assert_eq!(fallback.ports.len(), 2);
    world.pods.push(pod(true));
    settle(&mut world);
    let fallback = world
        .slices
        .iter()
        .find(|slice| slice.service == "iris")
        .unwrap();
    assert_eq!(fallback.conditions, Conditions::Fallback);
    let companions = world
        .slices
        .iter()
        .find(|slice| slice.service == "iris-rouse")
        .unwrap();
    assert_eq!(companions.conditions, Conditions::Ready);

    world.standing = Standing::Out {
        replicas: 1,
        ready: true,
    };
    settle(&mut world);
    assert_eq!(targets(&world), original);
    assert!(world.slices.is_empty() && world.companions.is_empty());
    assert!(world.claims.iter().all(|claim| claim.released.is_some()));
    assert!(!plan(&world).finished, "ports rest");
    world.now += 600;
    assert!(settle(&mut world).finished);
}

#[test]
fn a_workload_that_leaves_at_zero_is_woken_and_its_fallback_stays_until_it_is_ready() {
    let mut world = world();
    settle(&mut world);
    world.standing = Standing::Out {
        replicas: 0,
        ready: false,
    };
    settle(&mut world);
    assert!(matches!(world.standing, Standing::Out { replicas: 1, .. }));
    assert_eq!(leads(&world), [true, true]);
    assert!(!world.slices.is_empty());
    let mut at_service = world.slices.iter().filter(|slice| slice.service == "s");
    assert!(
        at_service.all(|slice| slice.conditions == Conditions::Fallback),
        "used only as long as no pod is ready"
    );
    world.standing = Standing::Out {
        replicas: 1,
        ready: true,
    };
    settle(&mut world);
    assert!(world.slices.is_empty() && world.companions.is_empty());
}

#[test]
fn when_rouse_is_deleted_a_sleeping_workload_is_woken_first_and_keeps_its_fallback_until_it_is_ready()
 {
    let mut world = world();
    let original = targets(&world);
    settle(&mut world);
    let sleeping = workload(|object| object["spec"]["replicas"] = json!(0));
    world.standing = Standing::In(sleeping);
    let mut world = leaving::opted_out(world, Stage::GivesBack);
    let first = leaving::give_back(&world, 0, Stage::GivesBack);
    assert_eq!(first.actions.first(), Some(&Action::Wake));
    assert!(!leaving::is_given_back(&world, &first));
    leave(&mut world, Stage::GivesBack);
    assert!(matches!(world.standing, Standing::Out { replicas: 1, .. }));
    assert_eq!(targets(&world), original);
    assert_eq!(leads(&world), [true, true], "to activators");
    let waits = leaving::give_back(&world, 1, Stage::GivesBack);
    assert!(!leaving::is_given_back(&world, &waits), "no pod is ready");
    // The webhook is gone, so its pod has no sidecar.
    world.bare.push(bare());
    world.standing = Standing::In(workload(|_| {}));
    let mut world = leaving::opted_out(world, Stage::GivesBack);
    leave(&mut world, Stage::GivesBack);
    let done = leaving::give_back(&world, 1, Stage::GivesBack);
    assert!(leaving::is_given_back(&world, &done), "{done:?}");
    assert_eq!(leads(&world), [true, true], "to its pod");
}

#[test]
fn when_rouse_is_deleted_a_workload_that_is_deleted_too_is_not_waited_for() {
    let mut world = world();
    settle(&mut world);
    let going = workload(|object| {
        object["spec"]["replicas"] = json!(0);
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    world.standing = Standing::In(going);
    let mut world = leaving::opted_out(world, Stage::GivesBack);
    let first = leaving::give_back(&world, 0, Stage::GivesBack);
    assert!(!first.actions.contains(&Action::Wake), "no pod can be made");
    settle(&mut world);
    let done = leaving::give_back(&world, 0, Stage::GivesBack);
    assert!(leaving::is_given_back(&world, &done), "{done:?}");
}

#[test]
fn when_rouse_is_deleted_a_workload_whose_pods_cannot_be_made_is_not_waited_for() {
    let mut world = world();
    let original = targets(&world);
    settle(&mut world);
    let stuck = workload(|object| {
        object["spec"]["replicas"] = json!(1);
        object["status"] = json!({"conditions": [{"type": "ReplicaFailure", "status": "True",
            "reason": "FailedCreate", "message": "namespace n is being terminated"}]});
    });
    world.standing = Standing::In(stuck);
    let mut world = leaving::opted_out(world, Stage::GivesBack);
    for _ in 0..30 {
        for action in leaving::give_back(&world, 1, Stage::GivesBack).steps() {
            apply(&mut world, &action);
        }
    }
    let done = leaving::give_back(&world, 1, Stage::GivesBack);
    assert!(leaving::is_given_back(&world, &done), "{done:?}");
    assert_eq!(targets(&world), original);
}

#[test]
fn when_rouse_is_deleted_a_warm_workload_leads_to_its_pods_after_every_step() {
    let mut world = world();
    let original = targets(&world);
    world.pods.push(pod(true));
    settle(&mut world);
    let mut world = leaving::opted_out(world, Stage::GivesBack);
    leave(&mut world, Stage::GivesBack);
    assert_eq!(targets(&world), original);
    assert!(world.slices.is_empty() && world.companions.is_empty());
    let done = leaving::give_back(&world, 1, Stage::GivesBack);
    assert!(leaving::is_given_back(&world, &done), "{done:?}");
}

#[test]
fn when_time_runs_out_nothing_of_ours_stays_though_no_pod_is_ready() {
    let mut world = world();
    let original = targets(&world);
    settle(&mut world);
    let sleeping = workload(|object| object["spec"]["replicas"] = json!(0));
    world.standing = Standing::In(sleeping);
    let mut world = leaving::opted_out(world, Stage::Hurries);
    let plan = leaving::give_back(&world, 0, Stage::Hurries);
    assert_eq!(plan.actions.last(), Some(&Action::Wake), "it may fail");
    // It fails each time.
    for _ in 0..10 {
        for action in plan_of(&world).steps() {
            apply(&mut world, &action);
        }
    }
    assert_eq!(targets(&world), original);
    assert!(world.slices.is_empty() && world.companions.is_empty());
    assert!(world.claims.iter().all(|claim| claim.released.is_some()));
    let plan = leaving::give_back(&world, 0, Stage::Hurries);
    assert!(!leaving::is_given_back(&world, &plan), "it still sleeps");
}

fn plan_of(world: &World) -> Plan {
    let mut plan = leaving::give_back(world, 0, Stage::Hurries);
    plan.actions.retain(|action| *action != Action::Wake);
    plan
}

/// Carries out what leaving asks for until there is nothing left to do, and looks that the Service leads to somebody after
/// each step.
fn leave(world: &mut World, stage: Stage) {
    for _ in 0..30 {
        let Standing::Out { replicas, .. } = world.standing else {
            panic!("not leaving");
        };
        let plan = leaving::give_back(world, replicas, stage);
        let steps = plan.steps();
        if steps.is_empty() {
            return;
        }
        for action in &steps {
            apply(world, action);
            listen(world);
            assert_eq!(leads(world), [true, true], "after {action:?}");
        }
    }
    panic!("no end");
}

#[test]
fn one_that_comes_back_while_its_ports_rest_gets_the_same_ports() {
    let mut world = world();
    settle(&mut world);
    let before = live_claims(&world);
    world.standing = Standing::Gone;
    settle(&mut world);
    assert!(live_claims(&world).is_empty());
    world.standing = Standing::In(workload(|_| {}));
    settle(&mut world);
    assert_eq!(live_claims(&world), before);
}

type Change = fn(&mut World);

#[test]
fn no_flip_before_all_is_seen_in_place() {
    let cases: [(&str, Change); 6] = [
        ("nobody listens", |w| w.listening.clear()),
        ("a pod without sidecar", |w| {
            w.pods.push(pod(true));
            w.bare.push(bare());
        }),
        ("a pod whose sidecar has another upstream", |w| {
            w.pods.push(PodFact {
                ready: true,
                upstreams: vec![8081, 9000],
            });
        }),
        ("a pod that knows fewer ports", |w| {
            w.pods.push(PodFact {
                ready: true,
                upstreams: vec![8080],
            });
        }),
        ("no activator", |w| w.activators.clear()),
        ("a rival", |w| {
            w.contested.insert("iris".into());
        }),
    ];
    for (what, change) in cases {
        let mut world = world();
        // Everything but the flip.
        loop {
            let plan = plan(&world);
            let flip = |action: &Action| matches!(action, Action::Flip { .. });
            if plan.actions.iter().any(flip) {
                break;
            }
            for action in &plan.actions {
                apply(&mut world, action);
            }
            listen(&mut world);
        }
        change(&mut world);
        let plan = plan(&world);
        assert!(
            !plan
                .actions
                .iter()
                .any(|action| matches!(action, Action::Flip { .. })),
            "{what}: {plan:?}"
        );
        assert!(!plan.may_sleep, "{what}");
    }
}

#[test]
fn pods_without_a_sidecar_alone_get_the_service_back() {
    let mut world = world();
    settle(&mut world);
    world.bare.push(bare());
    let plan = plan(&world);
    assert!(
        plan.actions
            .iter()
            .any(|action| matches!(action, Action::FlipBack { .. })),
        "{plan:?}"
    );
    world.pods.push(pod(true));
    let plan = super::plan(&world);
    assert!(
        !plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::FlipBack { .. }))
    );
}

#[test]
fn what_cannot_be_adopted_is_left_as_it_was() {
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let with = |key: &str, value: Value| {
        let mut spec = json!({"ports": ports});
        spec[key] = value;
        service(&spec)
    };
    let cases = [
        (
            with("publishNotReadyAddresses", json!(true)),
            Refusal::NotReadyAddresses,
        ),
        (
            with("internalTrafficPolicy", json!("Local")),
            Refusal::LocalPolicy("internalTrafficPolicy"),
        ),
        (
            with("clusterIP", json!("None")),
            Refusal::Headless("iris-rouse".into()),
        ),
        (
            service(&json!({"ports": [{"port": 80, "targetPort": 1234}]})),
            Refusal::UnknownUpstream {
                port: 80,
                target: "1234".into(),
                known: "8080, 9000".into(),
            },
        ),
        (
            service(&json!({"ports": [{"port": 53, "protocol": "UDP"}]})),
            Refusal::NoPort,
        ),
    ];
    for (service, refusal) in cases {
        let headless = service.headless;
        let mut world = World {
            services: vec![service],
            ..world()
        };
        let before = targets(&world);
        let settled = settle(&mut world);
        assert_eq!(settled.refused, [("iris".to_owned(), refusal)]);
        assert_eq!(targets(&world), before);
        assert!(!settled.may_sleep);
        assert_eq!(world.companions.len(), usize::from(headless));
        assert!(world.slices.iter().all(|slice| slice.service != "iris"));
    }
}

#[test]
fn a_service_that_is_not_ours_is_never_taken_for_a_companion() {
    let mut world = world();
    let mut other = ServiceView::clone(&two_ports());
    other.name = "iris-rouse".into();
    world.companions.insert("iris".into(), Arc::new(other));
    let settled = settle(&mut world);
    assert_eq!(
        settled.refused,
        [("iris".into(), Refusal::Taken("iris-rouse".into()))]
    );
    assert!(!world.companions["iris"].is_companion());
}

#[test]
fn what_is_being_deleted_already_is_not_deleted_again() {
    let mut world = world();
    settle(&mut world);
    world.services.clear();
    world.standing = Standing::Gone;
    let removals = |world: &World| {
        let steps = plan(world).steps().into_iter();
        let removals = steps.filter(|action| {
            matches!(
                action,
                Action::RemoveSlice { .. } | Action::RemoveCompanion { .. }
            )
        });
        removals.count()
    };
    assert_eq!(
        removals(&world),
        3,
        "the companion, the relay, and the Service's slice"
    );
    for slice in &mut world.slices {
        Arc::make_mut(slice).terminating = true;
    }
    assert_eq!(removals(&world), 2);
    for companion in world.companions.values_mut().chain(&mut world.relay) {
        Arc::make_mut(companion).terminating = true;
    }
    assert_eq!(removals(&world), 0);
    assert!(!plan(&world).finished, "it still is there");
}

#[test]
fn a_port_that_cannot_be_had_keeps_nothing_else_waiting() {
    let mut world = world();
    settle(&mut world);
    world.claims.retain(|claim| claim.index == 0);
    world.activators = ["10.0.0.3".parse().unwrap()].into();
    world.services[0] =
        service(&json!({"ports": [{"name": "http", "port": 80, "targetPort": "rouse-0"}]}));
    let actions = plan(&world).actions;
    assert_eq!(actions.last(), Some(&Action::Claim { index: 1 }));
    assert!(actions.len() > 1, "{actions:?}");
}

#[test]
fn a_slice_that_is_being_deleted_is_used_until_it_is_gone() {
    let mut world = world();
    let settled = settle(&mut world);
    for slice in &mut world.slices {
        Arc::make_mut(slice).terminating = true;
    }
    assert_eq!(plan(&world), settled);
    world.slices.clear();
    assert!(!plan(&world).actions.is_empty());
}

#[test]
fn request_ports_are_chosen_by_annotation_name_protocol_or_upstream() {
    let workload = workload(|_| {});
    let chosen = |ports: Value, annotation: Option<&str>| {
        let mut service = ServiceView::clone(&service(&json!({"ports": ports})));
        service.chosen = annotation.map(str::to_owned);
        ports::entries(&service, &workload, None).map(|all| {
            all.iter()
                .map(|entry| (entry.port, entry.index))
                .collect::<Vec<_>>()
        })
    };
    let all = json!([
        {"name": "a", "port": 1, "targetPort": 8080},
        {"name": "b", "port": 2, "targetPort": "grpc"},
        {"name": "c", "port": 3, "targetPort": 9100},
    ]);
    assert_eq!(chosen(all.clone(), None), Ok(vec![(1, 0), (2, 1)]));
    assert_eq!(chosen(all.clone(), Some("b")), Ok(vec![(2, 1)]));
    assert_eq!(chosen(all.clone(), Some("1, 2")), Ok(vec![(1, 0), (2, 1)]));
    assert_eq!(chosen(all.clone(), Some("zzz")), Err(Refusal::NoPort));
    assert!(matches!(
        chosen(all, Some("c")),
        Err(Refusal::UnknownUpstream { port: 3, .. })
    ));
    let spoken =
        json!([{"name": "x", "port": 5, "targetPort": 7, "appProtocol": "kubernetes.io/h2c"}]);
    assert!(matches!(
        chosen(spoken, None),
        Err(Refusal::UnknownUpstream { port: 5, .. })
    ));
    assert_eq!(chosen(json!([{"port": 8080}]), None), Ok(vec![(8080, 0)]));
    let flipped = json!([{"port": 80, "targetPort": "rouse-1"}]);
    assert_eq!(chosen(flipped, None), Ok(vec![(80, 1)]));
}

#[test]
fn a_lost_record_is_made_again_from_the_upstreams() {
    let mut world = world();
    settle(&mut world);
    world.companions.clear();
    world.slices.retain(|slice| slice.service == "iris");
    settle(&mut world);
    let was: Vec<_> = world.companions["iris"]
        .adopted
        .as_ref()
        .unwrap()
        .ports
        .iter()
        .map(|port| port.was.clone())
        .collect();
    assert_eq!(was, [TargetPort::Int(8080), TargetPort::Int(9000)]);
}

#[test]
fn an_activator_that_goes_leaves_the_slices_and_the_last_one_does_not() {
    let mut world = world();
    settle(&mut world);
    world.activators.pop_first();
    settle(&mut world);
    assert!(world.slices.iter().all(|slice| slice.addresses.len() == 1));
    world.activators.clear();
    assert!(plan(&world).actions.is_empty());
    world.activators = ["fd00::1".parse().unwrap()].into();
    settle(&mut world);
    assert!(world.slices.iter().all(|slice| slice.ipv6));
}

#[test]
fn fewer_request_ports_release_the_claim_only_when_no_slice_leads_to_it() {
    let mut world = world();
    settle(&mut world);
    world.standing = Standing::In(workload(|d| {
        d["spec"]["template"]["spec"]["containers"][0]["ports"] =
            json!([{"name": "http", "containerPort": 8080}]);
    }));
    let second = world
        .claims
        .iter()
        .find(|claim| claim.index == 1)
        .unwrap()
        .port;
    let mut service = ServiceView::clone(&world.services[0]);
    service.ports.remove(1);
    service.ports[1].place = 1;
    service.ports[1].name = "other".into();
    world.services = vec![Arc::new(service)];
    let first = plan(&world);
    assert!(!first.actions.contains(&Action::Release { port: second }));
    settle(&mut world);
    assert!(claim_of(&mut world, second).released.is_some());
}

/// What happens around us.
#[derive(Clone, Copy, Debug)]
enum Happens {
    OptsIn,
    OptsOut,
    IsDeleted,
    PodReady,
    PodsGo,
    PodWithoutSidecar,
    ActivatorsChange,
    Passes(i64),
    WritesBack,
    Publishes(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        Just(Happens::OptsIn),
        Just(Happens::OptsOut),
        Just(Happens::IsDeleted),
        Just(Happens::PodReady),
        Just(Happens::PodsGo),
        Just(Happens::PodWithoutSidecar),
        Just(Happens::ActivatorsChange),
        (0..700_i64).prop_map(Happens::Passes),
        Just(Happens::WritesBack),
        any::<bool>().prop_map(Happens::Publishes),
    ]
}

fn happen(world: &mut World, what: Happens) {
    let ready = world.pods.iter().any(|pod| pod.ready) || !world.bare.is_empty();
    match what {
        Happens::OptsIn => world.standing = Standing::In(workload(|_| {})),
        Happens::OptsOut => {
            world.standing = Standing::Out {
                replicas: u32::from(ready),
                ready,
            }
        }
        Happens::IsDeleted => {
            world.standing = Standing::Gone;
            world.pods.clear();
            world.bare.clear();
        }
        Happens::PodReady => {
            world.pods.push(pod(true));
            if let Standing::Out { replicas, ready } = &mut world.standing {
                (*replicas, *ready) = (1, true);
            }
        }
        Happens::PodsGo => {
            world.pods.clear();
            world.bare.clear();
            if let Standing::Out { ready, .. } = &mut world.standing {
                *ready = false;
            }
        }
        Happens::PodWithoutSidecar => world.bare.push(bare()),
        Happens::ActivatorsChange => {
            let last: IpAddr = "10.0.0.9".parse().unwrap();
            if !world.activators.remove(&last) {
                world.activators.insert(last);
            }
        }
        Happens::Passes(seconds) => world.now += seconds,
        Happens::WritesBack => {
            let service = Arc::make_mut(&mut world.services[0]);
            service.ports[0].target = TargetPort::Int(8080);
            service.ports[1].target = name("grpc");
        }
        Happens::Publishes(bad) => {
            Arc::make_mut(&mut world.services[0]).refused =
                bad.then_some(Refusal::NotReadyAddresses);
        }
    }
    listen(world);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However the world turns, and wherever a leader dies in the middle of a plan, no action takes away the last way of a
    /// Service to somebody; and left alone, every plan comes to an end.
    #[test]
    fn no_action_leaves_a_service_that_leads_nowhere(
        history in proptest::collection::vec((happens(), 0..6_usize), 1..40),
    ) {
        let mut world = world();
        for (what, carried_out) in history {
            happen(&mut world, what);
            let plan = plan(&world);
            let steps = plan.steps();
            for action in steps.iter().take(carried_out) {
                let before = leads(&world);
                apply(&mut world, action);
                listen(&mut world);
                let after = leads(&world);
                if matches!(world.standing, Standing::Gone) && world.pods.is_empty() {
                    continue; // There is nobody to lead to.
                }
                for place in 0..2 {
                    prop_assert!(!before[place] || after[place], "{action:?} of {steps:?} in {world:#?}");
                }
            }
            if plan.may_sleep {
                prop_assert_eq!(leads(&world), [true, true]);
            }
        }
        world.activators.insert("10.0.0.1".parse().unwrap());
        listen(&mut world);
        settle(&mut world);
    }
}

fn relay_slice(world: &World) -> Option<&Arc<SliceView>> {
    let mut slices = world.slices.iter();
    slices.find(|slice| slice.service == "iris-rouse-relay")
}

#[test]
fn sidecars_reach_the_activators_at_a_name_and_ports_that_were_known_before_any_service() {
    let mut world = world();
    settle(&mut world);
    let relay = world.relay.clone().unwrap();
    let ports: Vec<_> = relay.ports.iter().map(|port| port.port).collect();
    assert_eq!(
        (&*relay.name, &*ports),
        ("iris-rouse-relay", &[8012, 8013][..])
    );
    let slice = relay_slice(&world).unwrap();
    assert_eq!(slice.conditions, Conditions::Ready);
    assert_eq!(slice.workload, "iris");
    for claim in &world.claims {
        let led = &slice.ports[&names::request_port_name(claim.index)];
        assert_eq!(led.0, claim.port);
    }
    // Another request port.
    let grown = workload(|object| {
        let ports = &mut object["spec"]["template"]["spec"]["containers"][0]["ports"];
        ports[2]["name"] = json!("http-more");
    });
    assert_eq!(grown.upstreams.len(), 3);
    world.standing = Standing::In(grown);
    settle(&mut world);
    assert_eq!(relay_slice(&world).unwrap().ports.len(), 3);
    // Activators have moved.
    world.activators = ["10.0.0.9".parse().unwrap()].into();
    settle(&mut world);
    assert_eq!(
        *relay_slice(&world).unwrap().addresses,
        ["10.0.0.9".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn a_relay_that_cannot_be_made_keeps_nothing_else_waiting() {
    let mut world = world();
    let settled = loop {
        let plan = plan(&world);
        if plan.actions.is_empty() {
            break plan;
        }
        for action in &plan.actions {
            apply(&mut world, action);
            listen(&mut world);
        }
    };
    assert!(settled.may_sleep);
    assert!(matches!(&*settled.relay, [Action::KeepRelay(_)]));
    world.standing = Standing::Gone;
    let left = plan(&world);
    assert!(left.relay.is_empty() && !left.actions.is_empty());
}

#[test]
fn a_relay_goes_with_the_workload_that_it_is_of() {
    for standing in [
        Standing::Gone,
        Standing::Out {
            replicas: 1,
            ready: true,
        },
    ] {
        let mut world = world();
        settle(&mut world);
        world.standing = standing.clone();
        if matches!(standing, Standing::Gone) {
            world.services.clear();
        }
        let plan = plan(&world);
        let removed = Action::RemoveCompanion {
            name: "iris-rouse-relay".into(),
            uid: "r".into(),
        };
        assert!(plan.relay.contains(&removed), "{standing:?}: {plan:?}");
        assert!(!plan.finished);
        settle(&mut world);
        assert_eq!((&world.relay, relay_slice(&world)), (&None, None));
        assert!(world.claims.iter().all(|claim| claim.released.is_some()));
    }
}

#[test]
fn a_service_of_somebody_else_that_has_a_relays_name_is_left_alone() {
    let mut world = world();
    let object = json!({
        "metadata": {"namespace": "n", "name": "iris-rouse-relay", "uid": "x"},
        "spec": {"ports": [{"port": 80}]},
    });
    let object: Service = serde_json::from_value(object).unwrap();
    let theirs = Arc::new(ServiceView::of(&object).expect("it is in the way"));
    world.relay = Some(Arc::clone(&theirs));
    let settled = settle(&mut world);
    assert_eq!(settled.adopted, ["iris"], "sidecars do without");
    assert_eq!(
        (world.relay.as_ref(), relay_slice(&world)),
        (Some(&theirs), None)
    );
    world.standing = Standing::Out {
        replicas: 1,
        ready: true,
    };
    world.now += 600;
    settle(&mut world);
    assert_eq!(world.relay, Some(theirs));
    world.now += 600;
    assert!(settle(&mut world).finished);
}
