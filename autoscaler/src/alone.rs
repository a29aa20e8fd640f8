//! What there is of the workload of an autoscaler that runs alone: pods given by flags, a scale behind a URL.
//!
//! What must stay true: a pod that does not answer is one pod that is not ready, and costs the others at most one limit.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use autoscaler_core::TargetSpec;
use shared::http::probe::Probe;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{Life, Pod, Target, args::Args};

/// Limit on asking one pod whether it is ready: half of the second in which it is asked again.
const LIMIT: Duration = Duration::from_millis(500);
/// Pods asked at once. Each costs a connection, and a process may have 1024 open files.
const AT_ONCE: usize = 64;

/// Looks at the scale and the pods every second, for ever.
pub async fn watch_target(args: &Args, spec: &TargetSpec, target: watch::Sender<Arc<Target>>) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let last = Arc::clone(&target.borrow());
        let mut seen = observe(args, spec, Some(last.replicas)).await;
        remember(&mut seen, &last);
        target.send_if_modified(|current| {
            **current != seen && {
                *current = Arc::new(seen);
                true
            }
        });
    }
}

/// A pod that has been ready does not start when it is not any more.
fn remember(seen: &mut Target, last: &Target) {
    for pod in &mut seen.pods {
        let known = last.pods.iter().find(|known| known.uid == pod.uid);
        pod.starting &= known.is_none_or(|known| known.starting);
    }
}

/// The workload now: the first of the given pods, as many as there are replicas. A pod is ready if its queue-proxy says
/// so; replicas that cannot be read stay at `last`.
pub async fn observe(args: &Args, spec: &TargetSpec, last: Option<u32>) -> Target {
    let given = u32::try_from(args.pod.len()).unwrap_or(u32::MAX);
    let replicas = match &args.scale_url {
        None => given,
        Some(url) => url.get().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "Cannot read the scale");
            last.unwrap_or(given)
        }),
    };
    let given = args.pod.iter().take(replicas as usize);
    Target {
        spec: Arc::new(spec.clone()),
        replicas,
        pods: ask(given).await,
        reachable: true,
    }
}

/// Asks the given pods whether they are ready, [`AT_ONCE`] at a time.
async fn ask(given: impl Iterator<Item = &(String, SocketAddr)>) -> Vec<Pod> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    let mut pods = Vec::new();
    for (number, (uid, stats)) in given.enumerate() {
        let stats = *stats;
        // Not ready until it says so.
        pods.push(Pod {
            uid: uid.as_str().into(),
            stats,
            ready: false,
            starting: true,
            failed: false,
            life: Life::default(),
        });
        let room = Arc::clone(&room);
        asking.spawn(async move {
            let _place = room.acquire().await;
            let ready = Probe::Http {
                path: "/readyz".to_owned(),
                headers: http::HeaderMap::new(),
                https: false,
            };
            (number, ready.ask(stats, LIMIT).await.is_ok())
        });
    }
    while let Some(asked) = asking.join_next().await {
        if let Ok((number, ready)) = asked {
            pods[number].ready = ready;
            pods[number].starting = !ready;
        }
    }
    pods
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn pods_that_hang_cost_the_others_one_limit_and_not_one_each() {
        // Connections are taken by the kernel; nobody ever answers.
        let (_hung, silent) = listener().await;
        let (healthy, address) = listener().await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = healthy.accept().await {
                let _head = stream.read(&mut [0; 1024]).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _sent = stream.write_all(answer).await;
            }
        });
        let mut given: Vec<_> = (0..20).map(|n| (format!("hung-{n}"), silent)).collect();
        given.insert(10, ("healthy".to_owned(), address));
        let started = Instant::now();
        let pods = ask(given.iter()).await;
        let took = started.elapsed();
        assert!(took < LIMIT * 10, "{took:?}");
        for (pod, (uid, _)) in pods.iter().zip(&given) {
            assert_eq!(*pod.uid, **uid, "in the order given");
            assert_eq!(pod.ready, uid == "healthy", "{uid}");
            assert_eq!(pod.starting, !pod.ready, "{uid}");
        }
    }
}
