use proptest::prelude::*;

use super::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn record(holder: &str, version: u64) -> Record {
    Record {
        holder: holder.into(),
        duration: DURATION,
        transitions: 3,
        version: version.to_string(),
    }
}

#[test]
fn a_lease_is_taken_when_it_is_nobodys_or_was_silent_for_its_duration_since_we_saw_it() {
    let take = |version: u64| Step::Take {
        version: version.to_string(),
        transitions: 4,
    };
    let mut me = Candidate::new("a".into());
    assert_eq!(me.read(secs(0), None), Step::Create);
    assert_eq!(me.read(secs(1), Some(record("", 1))), take(1));
    // However old it may be: we see it for the first time.
    assert_eq!(me.read(secs(100), Some(record("b", 2))), Step::Wait);
    assert_eq!(me.read(secs(114), Some(record("b", 2))), Step::Wait);
    assert_eq!(me.read(secs(115), Some(record("b", 2))), take(2));
    // It was renewed at the last moment.
    assert_eq!(me.read(secs(115), Some(record("b", 3))), Step::Wait);
    let short = Record {
        duration: secs(1),
        ..record("b", 4)
    };
    assert_eq!(me.read(secs(116), Some(short.clone())), Step::Wait);
    assert_eq!(me.read(secs(120), Some(short)), Step::Wait);
}

#[test]
fn a_leader_stops_before_anybody_else_may_begin() {
    let mut me = Candidate::new("a".into());
    assert_eq!(me.tenure(secs(0)), None);
    me.wrote(secs(10), secs(11));
    let tenure = me.tenure(secs(12)).unwrap();
    assert_eq!((tenure.since, tenure.until), (secs(11), secs(20)));
    me.wrote(secs(18), secs(19));
    assert_eq!(me.tenure(secs(27)).unwrap().since, secs(11));
    assert_eq!(me.tenure(secs(28)), None);
    me.wrote(secs(29), secs(30));
    assert_eq!(me.tenure(secs(30)).unwrap().since, secs(30), "after a gap");
    me.wrote(secs(31), secs(50));
    assert_eq!(me.tenure(secs(50)), None, "the answer came too late");
}

#[test]
fn whoever_resigns_or_sees_another_holder_leads_no_more() {
    let mut me = Candidate::new("a".into());
    me.wrote(secs(1), secs(1));
    me.resign();
    assert_eq!(me.tenure(secs(1)), None);
    me.wrote(secs(2), secs(2));
    me.read(secs(3), Some(record("b", 9)));
    assert_eq!(me.tenure(secs(3)), None);
    assert!(matches!(
        me.read(secs(4), Some(record("a", 10))),
        Step::Renew { .. }
    ));
}

/// What a candidate is in the middle of.
enum Doing {
    Rest,
    Write(Step),
    Answer { sent: Duration, ok: bool },
}

/// What happens to one look at the Lease.
#[derive(Clone, Copy, Debug)]
struct Turn {
    who: usize,
    /// Pause before it.
    pause: u64,
    /// Between reading and writing: also how long a frozen process stood still there.
    frozen: u64,
    /// Between the write and its answer.
    answer: u64,
    /// The answer is lost.
    lost: bool,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let delay = prop_oneof![6 => 0..300_u64, 2 => 300..4_000_u64, 1 => 4_000..40_000_u64];
    let turn = (
        0..2_usize,
        0..3_000_u64,
        delay.clone(),
        delay,
        proptest::bool::weighted(0.1),
    );
    proptest::collection::vec(
        turn.prop_map(|(who, pause, frozen, answer, lost)| Turn {
            who,
            pause,
            frozen,
            answer,
            lost,
        }),
        1..200,
    )
}

proptest! {
    /// Two candidates on simulated time. Each does one thing at a time, and may stand still at any point of it.
    #[test]
    fn never_do_two_lead(turns in turns()) {
        let ms = Duration::from_millis;
        let mut lease: Option<Record> = None;
        let mut version = 0_u64;
        // Each candidate's own clock has another beginning.
        let epochs = [ms(0), ms(7_777)];
        let mut all = ["a", "b"].map(|name| Candidate::new(name.into()));
        // When each goes on with what.
        let mut doing = [(ms(0), Doing::Rest), (ms(0), Doing::Rest)];
        let mut queues = [Vec::new(), Vec::new()];
        for turn in turns.iter().rev() {
            queues[turn.who].push(*turn);
        }
        let mut current: [Option<Turn>; 2] = [None, None];
        loop {
            let next = (0..2).filter(|who| current[*who].is_some() || !queues[*who].is_empty())
                .min_by_key(|who| doing[*who].0);
            let Some(who) = next else { break };
            let now = doing[who].0;
            let own = |at: Duration| at + epochs[who];
            match std::mem::replace(&mut doing[who].1, Doing::Rest) {
                Doing::Rest => {
                    let turn = queues[who].pop();
                    let Some(turn) = turn else { current[who] = None; continue };
                    current[who] = Some(turn);
                    let step = all[who].read(own(now), lease.clone());
                    doing[who] = (now + ms(turn.frozen), Doing::Write(step));
                }
                Doing::Write(step) => {
                    let turn = current[who].unwrap();
                    let present = lease.as_ref().map(|l| l.version.clone());
                    let (wanted, transitions) = match step {
                        Step::Create => (None, 0),
                        Step::Take { version, transitions } | Step::Renew { version, transitions } => (Some(version), transitions),
                        Step::Wait => { doing[who] = (now + ms(turn.pause), Doing::Rest); continue }
                    };
                    let ok = wanted == present;
                    if ok {
                        version += 1;
                        lease = Some(Record { transitions, ..record(all[who].me(), version) });
                    }
                    doing[who] = (now + ms(turn.answer), Doing::Answer { sent: now, ok: ok && !turn.lost });
                }
                Doing::Answer { sent, ok } => {
                    let turn = current[who].unwrap();
                    if ok {
                        all[who].wrote(own(sent), own(now));
                    }
                    doing[who] = (now + ms(turn.pause), Doing::Rest);
                }
            }
            let lead: Vec<_> = (0..2).filter(|who| all[*who].tenure(now + epochs[*who]).is_some()).collect();
            prop_assert!(lead.len() < 2, "two lead at {now:?}");
        }
    }
}
