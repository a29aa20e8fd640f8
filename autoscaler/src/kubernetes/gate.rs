//! Writing only while we lead, and standing for the Lease.
//!
//! What must stay true: nothing that we write is under way after our tenure. The tenure is looked at right before each write,
//! and a write that has not ended with it is given up. What can still be late are bytes that the kernel already had when the
//! process was frozen; the API server has them then, and each write is tested against what it was decided from.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{ObjectMeta, PostParams},
};
use kubernetes::names;
use parking_lot::Mutex;
use shared::{clock, metrics};
use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::lease::{Candidate, DURATION, RENEW, Record, Step, Tenure};

/// Limit on one write, if the tenure lasts that long.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Limit on reading or writing the Lease: two attempts and more fit between a renewal and the end of the tenure.
const LEASE_LIMIT: Duration = Duration::from_secs(3);
/// More than are ever under way at once.
const WRITES: u32 = 1024;

/// Lets writes pass while we lead.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    tenure: watch::Sender<Option<Tenure>>,
    writing: Arc<Semaphore>,
}

/// Why nothing was written, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied<E> {
    #[error("not the leader")]
    NotLeader,
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Failed(E),
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self {
            tenure: watch::Sender::new(None),
            writing: Arc::new(Semaphore::new(WRITES as usize)),
        }
    }

    /// The tenure, if we lead now.
    pub(crate) fn tenure(&self) -> Option<Tenure> {
        let now = clock::since_epoch();
        self.tenure.borrow().filter(|tenure| now < tenure.until)
    }

    pub(crate) fn set(&self, tenure: Option<Tenure>) {
        self.tenure.send_replace(tenure);
    }

    /// Carries out a write within the tenure. It must not have been started: a future of an async function has not.
    pub(crate) async fn write<T, E>(
        &self,
        write: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Denied<E>> {
        let Ok(_writing) = self.writing.acquire().await else {
            return Err(Denied::NotLeader);
        };
        let tenure = self.tenure().ok_or(Denied::NotLeader)?;
        let left = tenure.until.saturating_sub(clock::since_epoch());
        match timeout(left.min(WRITE_LIMIT), write).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Denied::Failed(error)),
            Err(_) => Err(Denied::Timeout),
        }
    }

    /// Closes for good and waits until nothing is under way.
    async fn close(&self) {
        self.set(None);
        let _all = timeout(WRITE_LIMIT, self.writing.acquire_many(WRITES)).await;
        self.writing.close();
    }
}

/// Stands for the Lease until `stop`, and gives it up then.
pub(crate) async fn stand(
    client: Client,
    namespace: String,
    me: String,
    gate: Gate,
    mut stop: watch::Receiver<bool>,
) {
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let candidate = Mutex::new(Candidate::new(me));
    let mut tick = interval(RENEW);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let led = gate.tenure().is_some();
        if let Err(error) = turn(&api, &candidate).await {
            tracing::warn!(%error, "Cannot keep the Lease");
        }
        let tenure = candidate.lock().tenure(clock::since_epoch());
        gate.set(tenure);
        metrics::AUTOSCALER_LEADER
            .gauge(&[])
            .set(f64::from(u8::from(tenure.is_some())));
        match (led, tenure.is_some()) {
            (false, true) => tracing::info!("Leads"),
            (true, false) => tracing::warn!("Leads no more"),
            _ => {}
        }
    }
    let held = gate.tenure().is_some();
    gate.close().await;
    candidate.lock().resign();
    if held && let Err(error) = give_up(&api, &candidate).await {
        tracing::warn!(%error, "Cannot give up the Lease; it expires");
    }
}

/// One look at the Lease and what follows.
async fn turn(api: &Api<Lease>, candidate: &Mutex<Candidate>) -> Result<(), String> {
    let lease = limited(api.get_opt(names::LEASE)).await?;
    let read = lease.as_ref().map(record);
    let step = candidate.lock().read(clock::since_epoch(), read);
    let me = candidate.lock().me().to_owned();
    let params = PostParams {
        field_manager: Some(names::AUTOSCALER_MANAGER.to_owned()),
        ..PostParams::default()
    };
    // Before the request is made: others count from when they see it, which is later.
    let sent = clock::since_epoch();
    match step {
        Step::Wait => return Ok(()),
        Step::Create => {
            limited(api.create(&params, &object(None, &me, 0, true))).await?;
        }
        Step::Take {
            version,
            transitions,
        } => {
            let object = object(Some(version), &me, transitions, true);
            limited(api.replace(names::LEASE, &params, &object)).await?;
        }
        Step::Renew {
            version,
            transitions,
        } => {
            let mut object = object(Some(version), &me, transitions, false);
            if let Some(spec) = &mut object.spec {
                spec.acquire_time = lease.and_then(|lease| lease.spec?.acquire_time);
            }
            limited(api.replace(names::LEASE, &params, &object)).await?;
        }
    }
    candidate.lock().wrote(sent, clock::since_epoch());
    Ok(())
}

/// Leaves the Lease to whoever looks next.
async fn give_up(api: &Api<Lease>, candidate: &Mutex<Candidate>) -> Result<(), String> {
    let Some(lease) = limited(api.get_opt(names::LEASE)).await? else {
        return Ok(());
    };
    let seen = record(&lease);
    if seen.holder != candidate.lock().me() {
        return Ok(());
    }
    let free = object(Some(seen.version), "", seen.transitions, false);
    let params = PostParams::default();
    limited(api.replace(names::LEASE, &params, &free)).await?;
    tracing::info!("Gave up the Lease");
    Ok(())
}

async fn limited<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(LEASE_LIMIT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {LEASE_LIMIT:?}")),
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|s| s.lease_duration_seconds?.try_into().ok());
    Record {
        holder: spec
            .and_then(|s| s.holder_identity.clone())
            .unwrap_or_default(),
        duration: seconds.map_or(DURATION, Duration::from_secs),
        transitions: spec.and_then(|s| s.lease_transitions).unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn object(version: Option<String>, holder: &str, transitions: i32, acquired: bool) -> Lease {
    let now = MicroTime(Timestamp::now());
    Lease {
        metadata: ObjectMeta {
            name: Some(names::LEASE.to_owned()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(transitions),
            acquire_time: acquired.then(|| now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn tenure(secs: u64) -> Tenure {
        let now = clock::since_epoch();
        Tenure {
            since: now,
            until: now + Duration::from_secs(secs),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_starts_only_within_the_tenure_and_ends_with_it() {
        let gate = Gate::closed();
        let started = std::sync::atomic::AtomicBool::new(false);
        let write = async {
            started.store(true, std::sync::atomic::Ordering::Relaxed);
            sleep(Duration::from_secs(3)).await;
            Ok::<_, String>(())
        };
        assert!(matches!(gate.write(write).await, Err(Denied::NotLeader)));
        assert!(!started.load(std::sync::atomic::Ordering::Relaxed));
        let write = || async {
            sleep(Duration::from_secs(3)).await;
            Ok::<_, String>(())
        };
        gate.set(Some(tenure(4)));
        assert!(gate.write(write()).await.is_ok());
        // One second is left.
        let before = clock::since_epoch();
        assert!(matches!(gate.write(write()).await, Err(Denied::Timeout)));
        // Timers have ticks of a millisecond, between which the clock may have begun.
        let waited = clock::since_epoch().saturating_sub(before);
        assert!(
            waited.abs_diff(Duration::from_secs(1)) <= Duration::from_millis(2),
            "{waited:?}"
        );
        assert!(matches!(gate.write(write()).await, Err(Denied::NotLeader)));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_what_is_under_way_and_lets_nothing_pass_any_more() {
        let gate = Gate::closed();
        gate.set(Some(tenure(10)));
        let other = gate.clone();
        let write = tokio::spawn(async move {
            other
                .write(async {
                    sleep(Duration::from_secs(2)).await;
                    Ok::<_, String>(())
                })
                .await
        });
        tokio::task::yield_now().await;
        gate.close().await;
        assert!(write.is_finished());
        gate.set(Some(tenure(10)));
        let late = gate.write(async { Ok::<_, String>(()) }).await;
        assert!(matches!(late, Err(Denied::NotLeader)));
    }
}
