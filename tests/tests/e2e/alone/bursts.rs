//! Many workloads from zero at once, beside as many plain Deployments.

use std::{collections::HashSet, env, net::SocketAddr, time::Duration};

use integration::client::{Account, fetch, get};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::floors::{phase, scale};
use crate::{
    Space,
    space::{LONG, Model},
};

/// How many are woken. `ROUSE_E2E_WORKLOADS` says otherwise.
const MANY: usize = 30;

/// Scales all of these from 0 to 1 at once; the time until the last pod answers.
async fn plain(space: &Space, names: &[String]) -> Duration {
    let began = Instant::now();
    futures_util::future::join_all(names.iter().map(|name| scale(space, name, 1))).await;
    let pods: Api<Pod> = space.api();
    let of = ListParams::default().labels("kind=plain");
    let mut asked = JoinSet::new();
    let mut met = HashSet::new();
    while met.len() < names.len() {
        assert!(
            began.elapsed() < LONG * 2,
            "{} of {}",
            met.len(),
            names.len()
        );
        for pod in pods.list(&of).await.unwrap().items {
            let ip = pod.status.and_then(|status| status.pod_ip?.parse().ok());
            let Some(ip) = ip.filter(|ip| met.insert(*ip)) else {
                continue;
            };
            asked.spawn(async move {
                while fetch(SocketAddr::new(ip, 8080), get("/work"))
                    .await
                    .is_err()
                {
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        sleep(Duration::from_millis(50)).await;
    }
    timeout(LONG * 2, asked.join_all()).await.unwrap();
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_workloads_woken_in_the_same_instant_all_answer() {
    let many = env::var("ROUSE_E2E_WORKLOADS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(MANY);
    let space = Space::new("many").await;
    let names: Vec<_> = (0..many).map(|n| format!("m{n}")).collect();
    let plains: Vec<_> = (0..many).map(|n| format!("p{n}")).collect();
    for (name, plain) in names.iter().zip(&plains) {
        space.create(&Model::new(name)).await;
        let mut deployment = space.deployment(&Model::new(plain).plain());
        let template = &mut deployment.spec.as_mut().unwrap().template;
        let labels = template.metadata.as_mut().unwrap().labels.as_mut().unwrap();
        labels.insert("kind".to_owned(), "plain".to_owned());
        space
            .create_objects(&crate::space::service(plain), &deployment)
            .await;
    }
    let mut addresses = Vec::new();
    for name in &names {
        space.adopted(name).await;
        addresses.push(space.address(name).await);
    }
    let alone = plain(&space, &plains).await;
    for plain in &plains {
        scale(&space, plain, 0).await;
    }
    for plain in &plains {
        space.settled(plain, 0, LONG * 2).await;
    }

    let began = Instant::now();
    let mut clients = JoinSet::new();
    for (address, name) in addresses.into_iter().zip(names) {
        clients.spawn(async move {
            let account = Account::default();
            let sent = began.elapsed();
            let answer = timeout(LONG * 2, account.send(address, None, get("/work"))).await;
            (
                name,
                account,
                answer.unwrap().unwrap(),
                sent,
                began.elapsed(),
            )
        });
    }
    let (mut last, mut last_patch) = (Duration::ZERO, 0.0_f64);
    for (name, account, answer, sent, took) in clients.join_all().await {
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        space.ledger(&name, &account.told()).assert_exact();
        last = last.max(took);
        let patched = phase(answer.header("rouse-timing"), "patched");
        last_patch = last_patch.max(sent.as_secs_f64() * 1e3 + patched);
    }
    println!("{many} from zero in the same instant");
    println!("  plain Deployments: the last pod answers after {alone:?}");
    println!("  through Rouse:     the last answer after {last:?}");
    println!("  through Rouse:     the last scale written after {last_patch:.0} ms");
    space.end().await;
}
