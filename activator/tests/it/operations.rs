//! The hold under any list of operations: nobody is lost or given two pods, the order stays, no pod gets what it cannot take,
//! and nobody waits beside a pod with room without anybody looking again. The list comes from bytes: random ones, those that a
//! fuzzer kept, and those it thinks of (`tests/fuzz`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use activator::hold::{Arrival, Hold, Seq};
use tokio::time::Instant;

const PODS: usize = 3;

/// What is known of one pod.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or not whatever the others are"
)]
struct Pod {
    /// In the last list, or gone with requests that have not ended.
    known: bool,
    listed: bool,
    ready: bool,
    /// Terminating or retired; one that is retired before it is listed is remembered.
    leaving: bool,
}

/// What ought to be, kept beside the hold.
#[derive(Debug)]
struct Model {
    hold: Hold,
    limit: u32,
    max_held: usize,
    now: Instant,
    pods: [Pod; PODS],
    leases: BTreeMap<Seq, usize>,
    waiting: BTreeSet<Seq>,
}

fn uid(pod: usize) -> Arc<str> {
    format!("pod-{pod}").into()
}

impl Model {
    fn new(limit: u32, max_held: usize) -> Self {
        Self {
            hold: Hold::new(limit, max_held, 42),
            limit,
            max_held,
            now: Instant::now(),
            pods: [Pod::default(); PODS],
            leases: BTreeMap::new(),
            waiting: BTreeSet::new(),
        }
    }

    fn ours(&self, pod: usize) -> usize {
        self.leases.values().filter(|at| **at == pod).count()
    }

    fn takes(&self, pod: usize) -> bool {
        let pod = self.pods[pod];
        pod.listed && pod.ready && !pod.leaving
    }

    /// Whether our own requests leave room at the pod.
    fn has_room(&self, pod: usize) -> bool {
        self.takes(pod) && (self.limit == 0 || self.ours(pod) < self.limit as usize)
    }

    fn given(&mut self, seq: Seq, to: &Arc<str>) {
        let pod = (0..PODS)
            .find(|pod| uid(*pod) == *to)
            .expect("a pod of ours");
        assert!(self.has_room(pod), "{seq} to {pod}: {self:?}");
        assert!(self.leases.insert(seq, pod).is_none(), "twice: {self:?}");
    }

    fn arrive(&mut self) {
        match self.hold.arrive(self.now) {
            Arrival::Pod(seq, to) => {
                assert!(self.waiting.is_empty(), "overtaken: {self:?}");
                self.given(seq, &to);
            }
            Arrival::Held(seq) => {
                assert!(self.waiting.last().is_none_or(|last| *last < seq));
                assert!(self.waiting.insert(seq) && !self.leases.contains_key(&seq));
                assert!(self.waiting.len() <= self.max_held, "{self:?}");
            }
            Arrival::Full => assert!(self.waiting.len() >= self.max_held, "{self:?}"),
        }
    }

    fn next(&mut self) -> bool {
        let next = self.hold.next(self.now);
        if let Some((seq, to)) = &next {
            assert_eq!(self.waiting.pop_first(), Some(*seq), "{self:?}");
            self.given(*seq, to);
        } else if !self.waiting.is_empty() && (0..PODS).any(|pod| self.has_room(pod)) {
            // It is only a matter of time, and somebody will look.
            let again = self.hold.next_wakeup(self.now);
            assert!(again.is_some_and(|at| at > self.now), "{again:?} {self:?}");
        }
        next.is_some()
    }

    fn lease(&mut self, nth: usize) -> Option<(Seq, usize)> {
        let (&seq, &pod) = self.leases.iter().nth(nth)?;
        self.leases.remove(&seq);
        Some((seq, pod))
    }

    fn set_pods(&mut self, listed: u8, terminating: u8) {
        let is = |bits: u8, pod: usize| bits >> pod & 1 == 1;
        let list: Vec<_> = (0..PODS)
            .filter(|pod| is(listed, *pod))
            .map(|pod| (uid(pod), is(terminating, pod)))
            .collect();
        let new = self.hold.set_pods(&list);
        for pod in 0..PODS {
            let ours = self.ours(pod);
            let known = &mut self.pods[pod];
            if is(listed, pod) {
                assert_eq!(new.contains(&uid(pod)), !known.listed, "{pod}: {new:?}");
                known.ready &= known.listed;
                known.leaving |= is(terminating, pod);
                (known.known, known.listed) = (true, true);
            } else if known.known {
                known.listed = false;
                if ours == 0 {
                    *known = Pod::default();
                }
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.hold.held(), self.waiting.len());
        assert_eq!(self.hold.leased(), self.leases.len());
        for pod in 0..PODS {
            assert_eq!(self.hold.ours(&uid(pod)) as usize, self.ours(pod));
        }
        let any = (0..PODS).any(|pod| self.takes(pod));
        assert_eq!(self.hold.any_ready(), any, "{self:?}");
    }

    fn step(&mut self, operation: u8, data: u8) {
        let (pod, nth) = (usize::from(data) % PODS, usize::from(data / 4) % 8);
        match operation % 14 {
            0..=2 => self.arrive(),
            3 | 4 => {
                self.next();
            }
            5 => {
                if let Some((_, pod)) = self.lease(nth) {
                    self.hold.release(&uid(pod));
                }
            }
            6 => {
                if let Some((seq, pod)) = self.lease(nth) {
                    if data.is_multiple_of(2) {
                        self.hold.set_full(&uid(pod), self.now);
                    }
                    self.hold.hold_again(seq);
                    self.hold.give_back(&uid(pod));
                    self.waiting.insert(seq);
                }
            }
            7 => {
                if let Some((_, pod)) = self.lease(nth) {
                    self.hold.give_back(&uid(pod));
                }
            }
            8 => {
                if let Some(&seq) = self.waiting.iter().nth(nth) {
                    assert!(self.hold.cancel(seq), "it was held");
                    assert!(!self.hold.cancel(seq), "it is not any more");
                    self.waiting.remove(&seq);
                }
            }
            9 => self.set_pods(data % 8, data / 8 % 8),
            10 => {
                let ready = !(data / 4).is_multiple_of(4);
                self.hold.set_ready(&uid(pod), ready, self.now);
                self.pods[pod].ready = ready && self.pods[pod].known;
            }
            11 => {
                self.hold.retire(&uid(pod));
                self.pods[pod].leaving = true;
            }
            12 => {
                self.hold.report(&uid(pod), u32::from(data / 4), self.now);
            }
            _ => self.now += Duration::from_millis(u64::from(data) * 8),
        }
    }
}

/// The first two bytes are settings, then two for each operation.
///
/// # Panics
/// If anything does not hold.
pub(crate) fn check(bytes: &[u8]) {
    let Some(([limit, max_held], operations)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let mut model = Model::new(u32::from(limit % 4), usize::from(max_held % 6) + 1);
    for operation in operations.chunks_exact(2) {
        model.step(operation[0], operation[1]);
        model.check();
    }
    // In the end a pod comes that stays, and everybody gets there in order, without any other event than the ends of requests
    // and the time at which somebody said that he will look again.
    let last: Arc<str> = "last".into();
    model.hold.set_pods(&[(Arc::clone(&last), false)]);
    model.hold.set_ready("last", true, model.now);
    let mut at_last = 0;
    let mut rounds = 0;
    while let Some(first) = model.waiting.first().copied() {
        rounds += 1;
        assert!(rounds < 1_000, "somebody waits for ever: {model:?}");
        if let Some((seq, to)) = model.hold.next(model.now) {
            assert_eq!((seq, to), (first, Arc::clone(&last)));
            model.waiting.remove(&first);
            at_last += 1;
        } else if let Some(at) = model.hold.next_wakeup(model.now) {
            model.now = at;
        } else {
            assert!(at_last > 0, "nothing will ever happen: {model:?}");
            model.hold.release("last");
            at_last -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_hold_keeps_its_promises_under_any_sequence(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            check(&bytes);
        }
    }

    #[test]
    fn the_kept_operations_of_the_hold_still_hold() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/hold");
        let kept: Vec<_> = fs::read_dir(folder).unwrap().collect();
        assert!(!kept.is_empty());
        for entry in kept {
            check(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
}
