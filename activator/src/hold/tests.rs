use super::*;

fn uid(n: usize) -> Arc<str> {
    format!("pod-{n}").into()
}

fn ready(hold: &mut Hold, pods: usize, now: Instant) {
    let list: Vec<_> = (0..pods).map(|n| (uid(n), false)).collect();
    hold.set_pods(&list);
    for (uid, _) in &list {
        hold.set_ready(uid, true, now);
    }
}

fn held(arrival: &Arrival) -> Seq {
    match arrival {
        Arrival::Held(seq) => *seq,
        other => panic!("expected to be held: {other:?}"),
    }
}

#[test]
fn holds_in_order_until_a_pod_is_ready_and_gives_it_no_more_than_it_takes() {
    let now = Instant::now();
    let mut hold = Hold::new(2, 3, 1);
    let seqs: Vec<_> = (0..3).map(|_| held(&hold.arrive(now))).collect();
    assert_eq!(hold.arrive(now), Arrival::Full);
    hold.set_pods(&[(uid(0), false)]);
    assert_eq!(hold.next(now), None, "not ready yet");
    hold.set_ready("pod-0", true, now);
    assert_eq!(hold.next(now), Some((seqs[0], uid(0))));
    assert_eq!(hold.next(now), Some((seqs[1], uid(0))));
    assert_eq!(hold.next(now), None, "at its concurrency");
    hold.release("pod-0");
    assert_eq!(hold.next(now), Some((seqs[2], uid(0))));
}

#[test]
fn a_refused_request_keeps_its_place() {
    let now = Instant::now();
    let mut hold = Hold::new(1, 8, 1);
    ready(&mut hold, 1, now);
    let Arrival::Pod(first, pod) = hold.arrive(now) else {
        panic!()
    };
    let second = held(&hold.arrive(now));
    hold.set_full(&pod, now);
    hold.hold_again(first);
    hold.give_back(&pod);
    assert_eq!(hold.next(now), None, "it stays full for a moment");
    let now = now + FULL_PAUSE;
    assert_eq!(hold.next(now).map(|n| n.0), Some(first));
    hold.release(&pod);
    assert_eq!(hold.next(now).map(|n| n.0), Some(second));
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let now = Instant::now();
    let mut hold = Hold::new(1, 8, 1);
    let first = held(&hold.arrive(now));
    ready(&mut hold, 1, now);
    let second = held(&hold.arrive(now));
    assert!(first < second);
    assert_eq!(hold.next(now).map(|n| n.0), Some(first));
}

#[test]
fn an_unlimited_pod_gets_its_backlog_in_steps() {
    let now = Instant::now();
    let mut hold = Hold::new(0, 1_000, 1);
    for _ in 0..1_000 {
        hold.arrive(now);
    }
    ready(&mut hold, 1, now);
    let drain = |hold: &mut Hold, now| std::iter::from_fn(|| hold.next(now)).count();
    assert_eq!(drain(&mut hold, now), 16);
    assert!(
        hold.next_wakeup(now).is_some_and(|at| at > now),
        "the ramp opens without an event"
    );
    assert_eq!(drain(&mut hold, now + RAMP_STEP), 16);
    hold.release("pod-0");
    assert_eq!(
        drain(&mut hold, now + RAMP_STEP),
        3,
        "one left and one answer opens two more"
    );
    assert_eq!(drain(&mut hold, now + RAMP_END), 1_000 - 35);
}

#[test]
fn load_of_others_counts_while_it_is_fresh() {
    let now = Instant::now();
    let mut hold = Hold::new(2, 8, 1);
    ready(&mut hold, 1, now);
    assert!(matches!(hold.arrive(now), Arrival::Pod(..)));
    hold.report("pod-0", 2, now); // ours and one more
    held(&hold.arrive(now));
    let later = hold.next_wakeup(now).unwrap();
    assert_eq!(later, now + REPORT_LIFE);
    assert!(hold.next(later).is_some());
}

#[test]
fn a_pod_that_others_fill_still_gets_its_share_of_what_is_held_but_after_one_that_has_room() {
    let now = Instant::now();
    let mut hold = Hold::new(4, 8, 1);
    ready(&mut hold, 2, now);
    hold.report("pod-0", 9, now);
    hold.report("pod-1", 3, now);
    assert!(
        matches!(hold.arrive(now), Arrival::Pod(_, pod) if pod == uid(1)),
        "it has room"
    );
    hold.report("pod-1", 9, now);
    let mut taken = Vec::new();
    while let Arrival::Pod(_, pod) = hold.arrive(now) {
        taken.push(pod);
    }
    taken.sort();
    assert_eq!(taken, [uid(0), uid(0), uid(1)], "half of four each");
    hold.release("pod-0");
    assert!(matches!(hold.next(now), Some((_, pod)) if pod == uid(0)));
    assert_eq!(hold.next(now), None);
}

#[test]
fn terminating_full_and_vanished_pods_get_nothing() {
    let now = Instant::now();
    let mut hold = Hold::new(5, 8, 1);
    ready(&mut hold, 1, now);
    hold.set_full("pod-0", now);
    held(&hold.arrive(now));
    assert_eq!(hold.next_wakeup(now), Some(now + FULL_PAUSE));
    assert!(hold.next(now + FULL_PAUSE).is_some());
    hold.set_pods(&[]);
    assert_eq!(hold.ours("pod-0"), 1, "its last request is still counted");
    held(&hold.arrive(now + FULL_PAUSE));
    assert_eq!(hold.next(now + RAMP_END), None);
    hold.release("pod-0");
    hold.set_pods(&[(uid(1), false)]);
    hold.set_ready("pod-1", true, now);
    hold.retire("pod-1");
    assert_eq!(hold.next(now + RAMP_END), None);
    assert!(!hold.any_ready());
}

#[test]
fn a_pod_that_comes_back_while_it_has_requests_is_new_and_takes_more_once_it_is_ready() {
    let now = Instant::now();
    let mut hold = Hold::new(5, 8, 1);
    ready(&mut hold, 1, now);
    assert!(matches!(hold.arrive(now), Arrival::Pod(..)));
    assert!(hold.set_pods(&[]).is_empty());
    assert!(!hold.any_ready());
    assert_eq!(hold.set_pods(&[(uid(0), false)]), [uid(0)]);
    assert!(!hold.any_ready());
    hold.set_ready("pod-0", true, now);
    assert!(matches!(hold.arrive(now), Arrival::Pod(..)));
    assert_eq!(hold.ours("pod-0"), 2);
    hold.retire("pod-0");
    hold.set_pods(&[]);
    hold.set_pods(&[(uid(0), false)]);
    hold.set_ready("pod-0", true, now);
    assert!(!hold.any_ready(), "a retired one stays so");
}

#[test]
fn a_pod_that_is_retired_before_it_is_listed_gets_nothing() {
    let now = Instant::now();
    let mut hold = Hold::new(0, 8, 1);
    hold.retire("pod-0");
    // A list from before it was made.
    hold.set_pods(&[]);
    ready(&mut hold, 2, now);
    for _ in 0..8 {
        assert!(matches!(hold.arrive(now), Arrival::Pod(_, pod) if pod == uid(1)));
    }
    assert!(hold.retired.is_empty(), "from here on the pod itself knows");
    for n in 0..1_000 {
        hold.retire(&uid(n + 2));
    }
    assert_eq!(hold.retired.len(), MAX_RETIRED);
}
