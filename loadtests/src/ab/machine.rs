//! What the machine does beside: CPU time of processes, steal, and what other processes take, from `/proc`.
//!
//! The CPU time of a process is that of its threads in nanoseconds (`/proc/PID/task/*/schedstat`, first field), each thread's growth by
//! itself, so that one that ends takes nothing away. What an ended thread ran is missing there and is in the process' own sum
//! (`/proc/PID/stat`, in ticks of 10 ms), which is the check: where a thread has ended, or that is larger by more than its steps can explain,
//! the larger one is taken.
//!
//! Where there is no `/proc`, nothing is known, and the report says so.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Ticks of `/proc` per second: `USER_HZ`, which is 100 wherever this runs (proc(5)).
const TICKS: f64 = 100.0;
/// By how many ticks the two accounts of a process may differ: two ends, each rounded twice.
const ROUNDING: f64 = 4.0;
/// And by which share of the time, as they are not read at the same moment.
const SKEW: f64 = 0.01;

/// A process that is watched, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its id.
    pub pid: u32,
    /// When it began, which tells it from another one that gets its id later.
    started: u64,
}

impl Watched {
    /// The process of this id, if it runs.
    pub fn find(pid: u32) -> Option<Self> {
        let process = Process::read(pid)?;
        Some(Self {
            pid,
            started: process.started,
        })
    }

    fn read(self) -> Option<Process> {
        Process::read(self.pid).filter(|process| process.started == self.started)
    }

    /// Whether it still runs.
    pub fn lives(self) -> bool {
        self.read().is_some()
    }
}

/// A line of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// User and system time, that of ended threads included.
    ticks: u64,
    started: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// None of what has ended, too: a zombie runs no more. Fields are counted after the name, which may have anything in it.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        if matches!(*fields.first()?, "Z" | "X" | "x") {
            return None;
        }
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
            started: number(19)?,
        })
    }

    /// A thread of the kernel: what it does is done for all, the load among them.
    fn is_kernel(&self, pid: u32) -> bool {
        self.parent == 2 || pid == 2
    }
}

/// The line `cpu` of `/proc/stat`, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cpus {
    /// User, nice and system, without interrupts, which are the network's, and so ours.
    busy: u64,
    steal: u64,
    total: u64,
}

impl Cpus {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; time of guests is in the first two already.
        let numbers: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map_while(|number| number.parse().ok())
            .collect();
        (numbers.len() == 8).then(|| Self {
            busy: numbers[..3].iter().sum(),
            steal: numbers[7],
            total: numbers.iter().sum(),
        })
    }
}

/// Threads of a process with the nanoseconds that each has run.
type Threads = HashMap<u32, u64>;

fn threads(pid: u32) -> Option<Threads> {
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).ok()?;
    let threads = tasks.filter_map(|task| {
        let task = task.ok()?;
        // A thread may have ended since.
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ran = text.split_whitespace().next()?.parse().ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, ran))
    });
    Some(threads.collect())
}

/// The machine at a moment.
#[derive(Clone, Debug)]
pub struct Moment {
    cpus: Option<Cpus>,
    /// Ticks of everything that runs, by id and start.
    processes: HashMap<(u32, u64), u64>,
    /// The same of threads of the kernel.
    kernel: HashMap<(u32, u64), u64>,
    /// Those that are watched, in the order given; none of one that has ended.
    watched: Vec<Option<(Threads, u64)>>,
}

/// What happened between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Share of the machine's time that its host took.
    pub steal: Option<f64>,
    /// Share of it that went to processes that have no part in this.
    pub foreign: Option<f64>,
    /// Of the watched processes, in the order given; none of one that has ended.
    pub cpu: Vec<Option<Cpu>>,
}

/// CPU time of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cpu {
    /// Seconds.
    pub seconds: f64,
    /// True if threads ended meanwhile, so that it is in ticks of 10 ms.
    pub is_coarse: bool,
}

impl Moment {
    /// Now.
    pub fn now(watched: &[Watched]) -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let (mut processes, mut kernel) = (HashMap::new(), HashMap::new());
        for pid in pids {
            let Some(process) = Process::read(pid) else {
                continue;
            };
            let is_kernel = process.is_kernel(pid);
            let group = if is_kernel {
                &mut kernel
            } else {
                &mut processes
            };
            group.insert((pid, process.started), process.ticks);
        }
        Self {
            cpus: Cpus::read(),
            processes,
            kernel,
            watched: watched
                .iter()
                .map(|watched| {
                    let process = watched.read()?;
                    Some((threads(watched.pid)?, process.ticks))
                })
                .collect(),
        }
    }

    /// What happened since `before`, of the same `watched`. What others took is only known if all that takes part is watched.
    pub fn since(&self, before: &Self, watched: &[Watched], knows_all: bool) -> Usage {
        let cpu = self.watched.iter().zip(&before.watched);
        let cpu: Vec<_> = cpu
            .map(|(now, then)| Some(used(then.as_ref()?, now.as_ref()?)))
            .collect();
        let cpus = self
            .cpus
            .zip(before.cpus)
            .filter(|(now, then)| now.total > then.total);
        let share = |ticks: u64| {
            let (now, then) = cpus?;
            // Over a few ticks the accounts of processes may be ahead of that of the machine.
            Some((as_float(ticks) / as_float(now.total - then.total)).min(1.0))
        };
        let steal = cpus.and_then(|(now, then)| share(now.steal.saturating_sub(then.steal)));
        let foreign = cpus.filter(|_| knows_all && cpu.iter().all(Option::is_some));
        let foreign = foreign.and_then(|(now, then)| {
            let busy = now.busy.saturating_sub(then.busy);
            let (ours, others) = self.parted(before, watched);
            let ours = ours + self.of_kernel(before);
            // Processes that came and went are in the first alone, and so are those of other containers. It counts less than it
            // should where the kernel has interrupts in the time of processes, which the second does not mind.
            share(busy.saturating_sub(ours).max(others))
        });
        Usage {
            steal,
            foreign,
            cpu,
        }
    }

    /// Ticks of threads of the kernel.
    fn of_kernel(&self, before: &Self) -> u64 {
        let kernel = self.kernel.iter();
        let grown = |(key, now): (_, &u64)| {
            now.saturating_sub(before.kernel.get(key).copied().unwrap_or_default())
        };
        kernel.map(grown).sum()
    }

    /// Ticks of the processes that take part, this one included, and of all others.
    fn parted(&self, before: &Self, watched: &[Watched]) -> (u64, u64) {
        let (mut ours, mut others) = (0, 0);
        for (key, now) in &self.processes {
            let grown = now.saturating_sub(before.processes.get(key).copied().unwrap_or_default());
            let takes_part = key.0 == std::process::id()
                || watched
                    .iter()
                    .any(|watched| (watched.pid, watched.started) == *key);
            *(if takes_part { &mut ours } else { &mut others }) += grown;
        }
        (ours, others)
    }
}

/// What a process used: see the module.
fn used(before: &(Threads, u64), now: &(Threads, u64)) -> Cpu {
    let grown = now
        .0
        .iter()
        .map(|(thread, ran)| ran.saturating_sub(before.0.get(thread).copied().unwrap_or_default()));
    let exact = as_float(grown.sum()) / 1e9;
    let coarse = as_float(now.1.saturating_sub(before.1)) / TICKS;
    let has_ended = before.0.keys().any(|thread| !now.0.contains_key(thread));
    let is_coarse = has_ended || coarse > exact * (1.0 + SKEW) + ROUNDING / TICKS;
    Cpu {
        seconds: if is_coarse { coarse.max(exact) } else { exact },
        is_coarse,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ticks and nanoseconds of a slice stay far below 2^53"
)]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let line = "4242 (a) R (b) c) S 7 4242 4242 0 -1 4194304 500 0 0 0 150 25 9 9 20 0 3 0 98765 1000 10 18446744073709551615 1 1";
        let process = Process::parse(line).unwrap();
        assert_eq!(
            (process.parent, process.ticks, process.started),
            (7, 175, 98_765)
        );
        for gone in [
            line.replace(") S 7", ") Z 7"),
            String::new(),
            "1 (a".to_owned(),
            "1 (a) S x".to_owned(),
        ] {
            assert_eq!(Process::parse(&gone), None, "{gone}");
        }
    }

    #[test]
    fn the_machine_is_read() {
        let text = "cpu  100 20 30 1000 5 7 8 9 50 60\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let cpus = Cpus::parse(text).unwrap();
        assert_eq!((cpus.busy, cpus.steal, cpus.total), (150, 9, 1_179));
        assert_eq!(Cpus::parse("cpu  1 2 3\n"), None);
    }

    #[test]
    fn shares_are_of_the_whole_machine_and_without_those_that_take_part() {
        let moment = |busy, steal, total, own: u64, server: u64, other: u64| Moment {
            cpus: Some(Cpus { busy, steal, total }),
            processes: [
                ((std::process::id(), 1), own),
                ((4_000_000, 5), server),
                ((4_000_001, 5), other),
            ]
            .into(),
            kernel: [((3, 0), busy / 45)].into(),
            watched: vec![Some(([(1, server * 10_000_000)].into(), server))],
        };
        let server = [Watched {
            pid: 4_000_000,
            started: 5,
        }];
        let (then, now) = (
            moment(0, 0, 0, 0, 0, 0),
            moment(450, 10, 1_000, 200, 200, 20),
        );
        let usage = now.since(&then, &server, true);
        assert_eq!(usage.steal, Some(0.01));
        // 50 of them are in no process that still runs, 10 of which are the kernel's.
        assert_eq!(usage.foreign, Some(0.04));
        assert_eq!(
            usage.cpu,
            [Some(Cpu {
                seconds: 2.0,
                is_coarse: false
            })]
        );
        let seen = moment(410, 0, 1_000, 200, 200, 30);
        assert_eq!(seen.since(&then, &server, true).foreign, Some(0.03));
        assert_eq!(
            now.since(&then, &server, false).foreign,
            None,
            "who takes part is not known"
        );
        let mut ended = now;
        ended.watched = vec![None];
        let usage = ended.since(&then, &server, true);
        assert_eq!((usage.foreign, usage.cpu), (None, vec![None]));
    }

    #[test]
    fn what_ended_threads_ran_is_in_the_sum_of_the_process() {
        let before = ([(1, 1_000_000_000), (2, 5_000_000_000)].into(), 600);
        let now = ([(1, 1_500_000_000), (3, 100_000_000)].into(), 660);
        assert_eq!(
            used(&before, &now),
            Cpu {
                seconds: 0.6,
                is_coarse: true
            },
            "one that ended is told however little it ran"
        );
        let now = ([(1, 1_500_000_000), (2, 5_000_000_000)].into(), 652);
        assert_eq!(
            used(&before, &now),
            Cpu {
                seconds: 0.5,
                is_coarse: false
            },
            "within the steps"
        );
        let now = ([(1, 1_500_000_000)].into(), 800);
        assert_eq!(
            used(&before, &now),
            Cpu {
                seconds: 2.0,
                is_coarse: true
            }
        );
    }

    #[test]
    fn this_process_is_found_and_its_work_counted() {
        let me = Watched::find(std::process::id()).unwrap();
        assert!(me.lives() && Watched::find(u32::MAX).is_none());
        let other = Watched {
            started: me.started + 1,
            ..me
        };
        assert!(!other.lives(), "another process of the same id");
        let before = Moment::now(&[me]);
        // Work until the kernel has noticed it.
        let mut usage = Usage::default();
        for _ in 0..1_000_000 {
            usage = Moment::now(&[me]).since(&before, &[me], true);
            if usage.cpu[0].is_some_and(|cpu| cpu.seconds > 0.02) {
                break;
            }
        }
        assert!(
            usage.cpu[0].is_some_and(|cpu| cpu.seconds > 0.02),
            "{usage:?}"
        );
        assert!(
            usage
                .foreign
                .is_some_and(|share| (0.0..=1.0).contains(&share)),
            "{usage:?}"
        );
    }

    proptest! {
        #[test]
        fn no_thread_that_ends_makes_it_less_than_nothing(
            before in prop::collection::hash_map(0..9_u32, 0..10_000_000_000_u64, 0..9),
            now in prop::collection::hash_map(0..9_u32, 0..10_000_000_000_u64, 0..9),
            ticks in (0..1_000_u64, 0..1_000_u64),
        ) {
            let cpu = used(&(before, ticks.0), &(now, ticks.1));
            prop_assert!(cpu.seconds >= 0.0 && cpu.seconds.is_finite());
        }
    }
}
