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

/// What the autoscaler is told is held.
fn told(bed: &Bed) -> Option<u64> {
    let stat = bed.workload.stat(shared::clock::micros(), None);
    stat.map(|stat| stat.held)
}

#[tokio::test(start_paused = true)]
async fn whoever_was_given_a_page_is_as_good_as_held_until_he_should_have_come_back() {
    let bed = bed(&[WakeOutcome::NotAtZero; 200]);
    assert_eq!(told(&bed), None);
    assert!(bed.workload.want().unwrap());
    sleep(Duration::from_secs(14)).await;
    let made = bed.scale.made.lock().len();
    assert!(made > 5, "a wake without effect is made again: {made}");
    assert_eq!((told(&bed), bed.workload.held()), (Some(1), 0));
    // He comes back, and then no more.
    assert!(bed.workload.want().unwrap());
    sleep(Duration::from_millis(14_900)).await;
    assert!(bed.scale.made.lock().len() > made);
    assert_eq!(told(&bed), Some(1));
    sleep(Duration::from_millis(200)).await;
    assert_eq!((told(&bed), bed.workload.is_wanted()), (None, false));
    let made = bed.scale.made.lock().len();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(bed.scale.made.lock().len(), made, "nobody wants it");
}

#[tokio::test(start_paused = true)]
async fn whoever_was_given_a_page_wakes_nothing_once_that_is_barred() {
    let bed = bed(&[WakeOutcome::NotAtZero; 200]);
    assert!(bed.workload.want().unwrap());
    sleep(Duration::from_millis(1)).await;
    let made = bed.scale.made.lock().len();
    bed.workload.bar(Some(crate::Barred::Paused));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bed.scale.made.lock().len(), made);
    assert_eq!(bed.workload.want().unwrap_err(), Failure::Paused);
    assert_eq!((made, told(&bed)), (1, None));
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
