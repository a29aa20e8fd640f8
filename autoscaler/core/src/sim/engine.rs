//! The run: events in order of time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::dice::{Dice, Purpose, dice};
use super::outcome::Outcome;
use super::pods::{Pod, Pods, Request, State};
use super::scenarios::Scenario;
use super::tally::{Level, Second, Tally, count};
use crate::{
    Decider, Learned, Metric, Moment, Observed, Policy as Habits, Replicas, Sample, StartClass,
    Starting, TICK, TargetSpec, sample_size, wake_replicas,
};

/// For so long after the last arrival a run goes on at most.
const PATIENCE: Duration = Duration::from_hours(1);
/// Starts and requests that were seen before, where a scenario says so.
const SEEN_STARTS: u32 = 5;
const SEEN_REQUESTS: u32 = 50;

/// Whose rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Knative's, exactly.
    Knative,
    /// Ours, with the annotations as given.
    Rouse,
}

impl Policy {
    /// The policy in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Knative => "knative",
            Self::Rouse => "rouse",
        }
    }
}

/// Runs `scenario` with what `spec` asks for. The same seed gives the same run.
pub fn run(scenario: &Scenario, spec: &TargetSpec, policy: Policy, seed: u64) -> Outcome {
    let mut engine = Engine::new(scenario, spec, policy, seed);
    engine.run();
    engine.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A start ends, one way or the other.
    Started { pod: usize, fails: bool },
    /// A failed container is started again.
    Again { pod: usize },
    /// A pod is done with a request.
    Done { pod: usize },
}

struct Engine<'a> {
    scenario: &'a Scenario,
    spec: Arc<TargetSpec>,
    policy: Policy,
    seed: u64,
    now: Moment,
    decider: Decider,
    class: StartClass,
    pods: Pods,
    arrivals: Vec<Moment>,
    /// The next request to arrive.
    next: Request,
    services: Dice,
    service: Vec<Duration>,
    /// Requests that no pod has taken.
    queue: VecDeque<Request>,
    /// How many of the first of them came while no pod was ready.
    held: usize,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    scheduled: u64,
    scrape: Dice,
    choice: Dice,
    /// What answers that were lost would have told of the second before.
    late: Option<(Moment, Sample)>,
    tally: Tally,
}

impl<'a> Engine<'a> {
    fn new(scenario: &'a Scenario, spec: &TargetSpec, policy: Policy, seed: u64) -> Self {
        let mut spec = spec.clone();
        if policy == Policy::Knative {
            spec.policy = Habits::KNATIVE;
        }
        let spec = Arc::new(spec);
        let class = StartClass {
            template: "simulated".into(),
            image_present: true,
        };
        let ready = Replicas(scenario.replicas);
        let mut decider = Decider::new(Arc::clone(&spec), Moment::EPOCH, ready);
        if scenario.seen_before {
            let mut dice = dice(seed, Purpose::Pod, u64::MAX);
            let mut learned = Learned::default();
            for _ in 0..SEEN_STARTS {
                learned.start(&class, scenario.start.draw(&mut dice));
            }
            for _ in 0..SEEN_REQUESTS {
                learned.work(scenario.service.draw(&mut dice).as_secs_f64(), 1.0);
            }
            decider.recall(learned);
        }
        let mut engine = Self {
            arrivals: scenario
                .arrivals
                .arrivals(scenario.spacing, scenario.length, seed),
            scenario,
            policy,
            seed,
            now: Moment::EPOCH,
            decider,
            class,
            pods: Pods::default(),
            next: 0,
            services: dice(seed, Purpose::Service, 0),
            service: Vec::new(),
            queue: VecDeque::new(),
            held: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            scrape: dice(seed, Purpose::Scrape, 0),
            choice: dice(seed, Purpose::Choice, 0),
            late: None,
            tally: Tally::new(),
            spec,
        };
        for _ in 0..scenario.replicas {
            let pod = engine.pods.add(Moment::EPOCH, seed);
            engine.pods.get(pod).state = State::Ready;
        }
        engine.tally.peak = ready;
        engine
    }

    fn run(&mut self) {
        let last = self.arrivals.last().copied().unwrap_or_default();
        let give_up = (Moment::EPOCH + self.scenario.length).max(last) + PATIENCE;
        let mut tick = Moment::from_secs(1);
        while !self.is_over(give_up) {
            let arrival = self.arrivals.get(self.next).copied();
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            // What happens at the very moment of a tick is seen by it.
            let next = [arrival, event, Some(tick)].into_iter().flatten().min();
            let next = next.unwrap_or(tick);
            self.tally.pass(next, &self.level());
            self.now = next;
            if arrival == Some(next) {
                self.arrive();
            } else if event == Some(next) {
                self.happen();
            } else {
                self.tick();
                tick = tick + Duration::from_secs(1);
            }
        }
    }

    fn is_over(&self, give_up: Moment) -> bool {
        if self.now >= give_up {
            return true;
        }
        // Looking at all pods is left for the end: this is asked at every event.
        if self.next < self.arrivals.len() || self.now < Moment::EPOCH + self.scenario.length {
            return false;
        }
        let level = self.level();
        level.in_work + level.taken + level.queued == 0
            && level.pods <= usize::try_from(self.floor()).unwrap_or(usize::MAX)
    }

    /// As few replicas as there will be.
    fn floor(&self) -> u32 {
        let least = u32::from(!self.spec.enable_scale_to_zero);
        self.spec.min_scale.get().max(least)
    }

    fn level(&self) -> Level {
        let mut level = Level {
            queued: self.queue.len(),
            ..Level::default()
        };
        for (_, pod) in self.pods.present() {
            level.pods += 1;
            level.in_work += usize::try_from(pod.busy).unwrap_or(usize::MAX);
            level.taken += pod.queue.len();
            level.ready += usize::from(pod.state == State::Ready);
            level.replicas += usize::from(pod.state != State::Draining);
        }
        level
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.events
            .push(Reverse((self.now + after, self.scheduled, event)));
    }

    fn arrive(&mut self) {
        let request = self.next;
        self.next += 1;
        self.service
            .push(self.scenario.service.draw(&mut self.services));
        self.tally.second.arrived += 1;
        if self.pods.replicas() == 0 {
            let wanted = wake_replicas(&self.spec);
            self.scale(wanted);
        }
        if self.pods.count(State::Ready) == 0 {
            self.held = self.queue.len() + 1;
        }
        self.queue.push_back(request);
        self.hand_out();
    }

    /// Gives requests that wait to pods that take them.
    fn hand_out(&mut self) {
        let limit = self.spec.container_concurrency;
        while let Some(&request) = self.queue.front() {
            let pod = if limit == 0 {
                self.pods.draw(&mut self.choice)
            } else {
                self.pods.free(limit)
            };
            let Some(pod) = pod else {
                return;
            };
            self.queue.pop_front();
            self.held = self.held.saturating_sub(1);
            self.pods.get(pod).queue.push_back(request);
            self.work(pod);
        }
    }

    /// A pod works on as many of its requests as it can.
    fn work(&mut self, number: usize) {
        loop {
            let pod = self.pods.get(number);
            if pod.busy >= self.scenario.concurrency {
                return;
            }
            let Some(request) = pod.queue.pop_front() else {
                return;
            };
            pod.busy += 1;
            self.tally.begun(self.now - self.arrivals[request]);
            self.schedule(self.service[request], Event::Done { pod: number });
        }
    }

    fn happen(&mut self) {
        let Some(Reverse((_, _, event))) = self.events.pop() else {
            return;
        };
        match event {
            Event::Started { pod, fails } if self.pods.get(pod).state == State::Starting => {
                if fails {
                    let wait = self.pods.get(pod).fail();
                    self.tally.failed_starts += 1;
                    self.schedule(wait, Event::Again { pod });
                } else {
                    self.pods.get(pod).state = State::Ready;
                    let took = self.now - self.pods.get(pod).since;
                    self.decider.learn_start(&self.class, took);
                    self.hand_out();
                }
            }
            Event::Again { pod } if self.pods.get(pod).state == State::Failed => {
                let now = self.now;
                let one = self.pods.get(pod);
                one.state = State::Starting;
                one.since = now;
                self.begin(pod);
            }
            Event::Done { pod } => {
                self.pods.get(pod).busy -= 1;
                self.tally.second.ended += 1;
                self.work(pod);
                let one = self.pods.get(pod);
                if one.state == State::Draining && one.load() == 0 {
                    self.pods.remove(pod);
                }
                self.hand_out();
            }
            // It was taken away meanwhile.
            Event::Started { .. } | Event::Again { .. } => {}
        }
    }

    fn begin(&mut self, pod: usize) {
        let start = self.pods.get(pod).start(self.scenario);
        let fails = start.fails;
        self.schedule(start.takes, Event::Started { pod, fails });
    }

    fn scale(&mut self, to: Replicas) {
        let from = Replicas(count(self.pods.replicas()));
        self.tally
            .scaled(self.now, from, to, self.spec.stable_window);
        for _ in from.get()..to.get() {
            let pod = self.pods.add(self.now, self.seed);
            self.begin(pod);
        }
        for _ in to.get()..from.get() {
            if let Some(victim) = self.pods.victim() {
                self.pods.remove(victim);
            }
        }
    }

    fn tick(&mut self) {
        let level = self.level();
        let each = match self.spec.metric {
            Metric::Concurrency => self.spec.total,
            Metric::Rps => f64::from(self.scenario.concurrency),
        };
        let full = |load: usize| f64::from(count(load)) > each;
        let is_over = |pod: &Pod| pod.state == State::Ready && full(pod.load());
        let over = level.queued > 0 || self.pods.present().any(|(_, pod)| is_over(pod));
        let second = self.tally.close(self.now, &level, over);
        self.tell(&second, level.ready);
        if self.now.as_secs().is_multiple_of(TICK.as_secs()) {
            self.decide(&level);
        }
    }

    /// The scrape. Of a lost answer Knative has nothing: the sample counts only if as many pods answer as are asked for.
    /// A queue-proxy of ours keeps its seconds, and tells them the next time.
    fn tell(&mut self, second: &Second, ready: usize) {
        let lost = (0..ready)
            .filter(|_| self.scrape.random::<f64>() < self.scenario.scrape_loss)
            .count();
        let whole = second.sample();
        // Activators answer: what is queued is known in any case.
        let queued = Sample {
            concurrency: whole.waiting,
            waiting: whole.waiting,
            ..Sample::default()
        };
        let part = |share: f64| Sample {
            concurrency: (whole.concurrency - whole.waiting) * share,
            requests: whole.requests * share,
            waiting: 0.0,
            ended: whole.ended * share,
        };
        self.decider.record(self.now, queued);
        if let Some((at, sample)) = self.late.take() {
            self.decider.record(at, sample);
        }
        let lost_share = if ready == 0 {
            0.0
        } else {
            f64::from(count(lost)) / f64::from(count(ready))
        };
        match self.policy {
            Policy::Knative => {
                let needed = sample_size(count(ready));
                if count(ready - lost) >= needed {
                    self.decider.record(self.now, part(1.0));
                }
            }
            Policy::Rouse => {
                self.decider.record(self.now, part(1.0 - lost_share));
                if lost > 0 {
                    self.late = Some((self.now, part(lost_share)));
                }
            }
        }
    }

    fn decide(&mut self, level: &Level) {
        let mut seen = Observed {
            ready: Replicas(count(level.ready)),
            current: Replicas(count(level.replicas)),
            failed: Replicas(count(self.pods.count(State::Failed))),
            open: Some(0),
            reachable: true,
            ..Observed::default()
        };
        let starting = self.pods.present();
        let starting = starting.filter(|(_, pod)| pod.state == State::Starting);
        let starting = Starting::of(
            self.now,
            self.decider.learned(),
            self.spec.max_cold_start,
            starting.map(|(_, pod)| (pod.since, &self.class)),
        );
        seen = starting.within(seen);
        if self.policy == Policy::Rouse {
            // Knative's rules know neither: there, what is open is in the average and nowhere else.
            seen.held = self.held as u64;
            seen.open = Some((level.in_work + level.taken) as u64);
        }
        let decision = self.decider.decide(self.now, &seen);
        let writes = decision.want.filter(|want| *want != seen.current);
        if let Some(want) = writes {
            self.scale(want);
        }
    }

    fn finish(mut self) -> Outcome {
        let waits = self.queue.iter().copied();
        let taken = self.pods.present().flat_map(|(_, pod)| &pod.queue).copied();
        let unserved: Vec<Request> = waits.chain(taken).collect();
        for &request in &unserved {
            self.tally.begun(self.now - self.arrivals[request]);
        }
        let mut tally = self.tally;
        Outcome {
            requests: self.next as u64,
            unserved: unserved.len() as u64,
            replica_seconds: tally.replica_seconds,
            seconds_over_target: tally.over_target,
            held: tally.held(),
            cold_starts: tally.wakes,
            flaps: tally.flaps,
            peak_replicas: tally.peak,
            failed_starts: tally.failed_starts,
            points: tally.points,
        }
    }
}
