use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::sleep};

use super::*;
use crate::{
    BoxFuture, Config, Scale, WakeError, WorkloadConfig,
    rescue::Failure,
    workload::{Entered, Held, Process},
};

/// A scale that answers what it is told to, and then nothing any more.
#[derive(Debug, Default)]
struct Scripted {
    outcomes: Mutex<VecDeque<WakeOutcome>>,
    made: Mutex<Vec<Instant>>,
    under_way: Arc<()>,
}

impl Scale for Scripted {
    fn wake(
        &self,
        _target: &shared::TargetId,
        _replicas: u32,
    ) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        self.made.lock().push(Instant::now());
        let outcome = self.outcomes.lock().pop_front();
        let under_way = Arc::clone(&self.under_way);
        Box::pin(async move {
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            std::future::pending::<()>().await;
            drop(under_way);
            unreachable!("it is pending for ever")
        })
    }
}

/// A workload at zero with its conductor.
struct Bed {
    scale: Arc<Scripted>,
    workload: Arc<Workload>,
    conductor: JoinHandle<()>,
    endpoints: watch::Sender<Arc<Endpoints>>,
}

fn bed(outcomes: &[WakeOutcome]) -> Bed {
    let scale = Arc::new(Scripted::default());
    scale.outcomes.lock().extend(outcomes);
    let process = Process::new(Config::default(), Arc::<Scripted>::clone(&scale) as _);
    let config = WorkloadConfig::new("default/a".parse().unwrap());
    let workload = Workload::new(config, process);
    let (endpoints, rx) = watch::channel(Arc::new(Endpoints::default()));
    let conductor = tokio::spawn(conduct(Arc::clone(&workload), rx, Arc::default()));
    Bed {
        scale,
        workload,
        conductor,
        endpoints,
    }
}

impl Bed {
    fn hold(&self) -> Held {
        match self.workload.enter() {
            Ok(Entered::Held(held)) => held,
            other => panic!("not held: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_whose_effect_does_not_show_is_made_again_soon_and_then_less_often() {
    use WakeOutcome::{NotAtZero, Woken};
    // The third finds the scale at zero again: somebody undid the first, and nobody saw either.
    let bed = bed(&[Woken, NotAtZero, Woken, NotAtZero, NotAtZero]);
    let _held = bed.hold();
    sleep(Duration::from_secs(1)).await;
    let made = bed.scale.made.lock().clone();
    let gaps: Vec<_> = made
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    assert_eq!(gaps, [50, 100, 200, 400]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_under_way_ends_with_its_conductor() {
    let bed = bed(&[]);
    let _held = bed.hold();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(Arc::strong_count(&bed.scale.under_way), 2);
    bed.conductor.abort();
    assert!(bed.conductor.await.is_err());
    sleep(Duration::from_millis(10)).await;
    assert_eq!(Arc::strong_count(&bed.scale.under_way), 1);
}

#[tokio::test(start_paused = true)]
async fn a_workload_of_which_nobody_tells_any_more_is_removed() {
    let bed = bed(&[WakeOutcome::Woken]);
    let mut held = bed.hold();
    drop(bed.endpoints);
    let answer = timeout(Duration::from_secs(1), held.granted()).await;
    assert_eq!(answer.unwrap().unwrap_err(), Failure::Removed);
    bed.conductor.await.unwrap();
    assert_eq!(bed.workload.enter().unwrap_err(), Failure::Removed);
}
