//! Starting, ending and listening to replicas while Rouse lives.

use std::fs;
use std::io::{self, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rouse::local::logs::{Output, Surface};
use rouse::local::manifest;
use rouse::local::process::{Exit, Launcher, Replica, SpawnError};
use tokio::time::{Instant, sleep};

use crate::support::{
    Case, Kept, assert_gone, command, nowhere, number_in, resident, runs, script, start,
};

pub(crate) fn all() -> Vec<Case> {
    crate::cases![
        the_programs_own_end_is_reported,
        environment_folder_and_stdin_are_set,
        the_limit_of_open_files_is_the_one_asked_for,
        mistakes_are_reported_before_anything_starts,
        what_only_exec_can_tell_comes_back_at_once,
        terminate_lets_the_program_end_itself,
        terminate_kills_after_the_grace,
        terminate_is_idempotent,
        everything_the_program_started_is_killed,
        what_the_program_leaves_behind_is_killed,
        orphans_are_reaped_while_the_program_runs,
        dropping_a_replica_kills_it,
        the_tail_of_stderr_is_bounded_and_readable,
        lines_are_whole_and_prefixed,
        a_flood_of_output_costs_no_memory,
        a_reader_that_is_stuck_does_not_stop_the_program,
        starting_is_fast,
        the_tokens_example_answers,
    ]
}

async fn the_programs_own_end_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("exit 0", Exit::Code(0)),
        ("exit 3", Exit::Code(3)),
        ("exit 137", Exit::Code(137)),
        ("kill -TERM $$", Exit::Signal(15)),
        ("kill -KILL $$", Exit::Signal(9)),
        ("kill -SEGV $$", Exit::Signal(11)),
    ] {
        let replica = start(text, folder.path());
        assert_eq!(replica.wait().await, expected, "{text}");
        assert_eq!(replica.wait().await, expected, "{text}, asked again");
        assert!(!runs(replica.shim_pid().unwrap()));
    }
}

async fn environment_folder_and_stdin_are_set() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::default();
    let output = Output::start(kept.clone(), Surface::default()).unwrap();
    let mut spec = script("cat; echo \"$A $PWD ${PATH:+inherited}\"", folder.path());
    spec.env = vec![("A".to_owned(), "a b".to_owned())];
    let replica = Replica::spawn(&Launcher::this_program(), &spec, output.replica("m", 1)).unwrap();
    assert_eq!(replica.wait().await, Exit::Code(0));
    output.finish(Duration::from_secs(1));
    let here = folder.path().canonicalize().unwrap();
    assert_eq!(
        kept.text(),
        format!("m/1 | a b {} inherited\n", here.display())
    );
}

async fn the_limit_of_open_files_is_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = Launcher::this_program().open_files(Some(77));
    let spec = script("exit $(ulimit -Sn)", folder.path());
    let replica = Replica::spawn(&launcher, &spec, nowhere()).unwrap();
    assert_eq!(replica.wait().await, Exit::Code(77));
}

async fn mistakes_are_reported_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text"), "").unwrap();
    let spawn = |spec| Replica::spawn(&Launcher::this_program(), &spec, nowhere()).unwrap_err();

    let error = spawn(command(&["no-such-program"], folder.path()));
    assert!(matches!(error, SpawnError::NotFound { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "command \"no-such-program\" not found: it is in no folder of PATH"
    );
    let error = spawn(command(&["./none"], folder.path()));
    assert!(matches!(error, SpawnError::NotFound { .. }), "{error:?}");
    let error = spawn(command(&["./text"], folder.path()));
    assert!(
        matches!(error, SpawnError::NotExecutable { .. }),
        "{error:?}"
    );
    let error = spawn(command(&["sh"], &folder.path().join("none")));
    assert!(matches!(error, SpawnError::WorkingDir { .. }), "{error:?}");
}

async fn what_only_exec_can_tell_comes_back_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run");
    fs::write(&file, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let begin = Instant::now();
    let spec = command(&["./run"], folder.path());
    let replica = Replica::spawn(&Launcher::this_program(), &spec, nowhere()).unwrap();
    let exit = replica.wait().await;
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "took {:?}",
        begin.elapsed()
    );
    let Exit::NotStarted(reason) = &exit else {
        panic!("{exit:?}")
    };
    assert!(reason.contains("No such file or directory"), "{reason}");
    assert!(!runs(replica.shim_pid().unwrap()));
}

async fn terminate_lets_the_program_end_itself() {
    let folder = tempfile::tempdir().unwrap();
    let replica = start(
        "trap 'exit 7' TERM; echo 1 >ready; while :; do sleep 0.01; done",
        folder.path(),
    );
    number_in(&folder.path().join("ready")).await;
    assert_eq!(
        replica.terminate(Duration::from_secs(5)).await,
        Exit::Code(7)
    );
    // At once after the start, when the program may not be running yet: nothing of it stays.
    let replica = start("sleep 1000", folder.path());
    assert_eq!(
        replica.terminate(Duration::from_secs(5)).await,
        Exit::Signal(15)
    );
}

async fn terminate_kills_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let replica = start(
        "trap '' TERM; echo 1 >ready; while :; do sleep 0.01; done",
        folder.path(),
    );
    number_in(&folder.path().join("ready")).await;
    let begin = Instant::now();
    assert_eq!(
        replica.terminate(Duration::from_millis(100)).await,
        Exit::Signal(9)
    );
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(100) && took < Duration::from_secs(1),
        "took {took:?}"
    );
}

async fn terminate_is_idempotent() {
    let folder = tempfile::tempdir().unwrap();
    let replica = start(
        "trap '' TERM; echo 1 >ready; while :; do sleep 0.01; done",
        folder.path(),
    );
    number_in(&folder.path().join("ready")).await;
    let long = Duration::from_secs(30);
    let (one, two) = tokio::join!(
        replica.terminate(long),
        replica.terminate(Duration::from_millis(20))
    );
    assert_eq!((one, two), (Exit::Signal(9), Exit::Signal(9)));
    assert_eq!(replica.terminate(long).await, Exit::Signal(9));
    replica.kill_now();
    assert_eq!(replica.exit(), Some(Exit::Signal(9)));
}

/// A script with a child in its group, one in a session of its own and one whose parent has ended.
pub(crate) const FAMILY: &str = "sleep 1000 & echo $! >child
    setsid sh -c 'echo $$ >session; sleep 1000; :' &
    sh -c 'setsid sleep 1000 & echo $! >orphan'
    echo $$ >program; wait";

async fn everything_the_program_started_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let replica = start(FAMILY, folder.path());
    let pids = family(folder.path()).await;
    assert_eq!(replica.pid(), Some(pids[0]));
    replica.kill_now();
    assert_eq!(replica.wait().await, Exit::Signal(9));
    // All are reaped before the end is reported.
    assert!(!pids.iter().any(|pid| runs(*pid)));
}

pub(crate) async fn family(folder: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    for file in ["program", "child", "session", "orphan"] {
        pids.push(number_in(&folder.join(file)).await);
    }
    pids
}

async fn what_the_program_leaves_behind_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let replica = start(
        "sleep 1000 & echo $! >child; setsid sleep 1000 & echo $! >session; exit 4",
        folder.path(),
    );
    assert_eq!(replica.wait().await, Exit::Code(4));
    let child = number_in(&folder.path().join("child")).await;
    let session = number_in(&folder.path().join("session")).await;
    assert!(!runs(child) && !runs(session));
}

async fn orphans_are_reaped_while_the_program_runs() {
    let folder = tempfile::tempdir().unwrap();
    let text = "for i in 1 2 3; do sh -c 'sleep 0.01 & echo $! >orphan'; sleep 0.02; done; echo 1 >done; sleep 1000";
    let replica = start(text, folder.path());
    number_in(&folder.path().join("done")).await;
    let orphan = number_in(&folder.path().join("orphan")).await;
    let begin = Instant::now();
    while fs::exists(format!("/proc/{orphan}")).unwrap() {
        assert!(begin.elapsed() < Duration::from_secs(2), "a zombie stays");
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(replica.exit(), None);
}

async fn dropping_a_replica_kills_it() {
    let folder = tempfile::tempdir().unwrap();
    let replica = start(FAMILY, folder.path());
    let mut pids = family(folder.path()).await;
    pids.extend(replica.shim_pid());
    drop(replica);
    assert_gone(&pids).await;
}

async fn the_tail_of_stderr_is_bounded_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let text = "for i in $(seq 100); do echo $i >&2; done; head -c 100000 /dev/zero | tr '\\0' x >&2; echo >&2
        echo 1 >ready; sleep 1000";
    let replica = start(text, folder.path());
    number_in(&folder.path().join("ready")).await;
    sleep(Duration::from_millis(50)).await;
    let tail = replica.stderr_tail();
    assert_eq!(tail.len(), 20);
    assert_eq!((tail[0].as_str(), tail[18].as_str()), ("82", "100"));
    assert_eq!(tail[19].chars().count(), 4097);

    let replica = start("echo why >&2; exit 1", folder.path());
    replica.wait().await;
    assert_eq!(
        replica.stderr_tail(),
        ["why"],
        "known at the latest with the end"
    );
}

async fn lines_are_whole_and_prefixed() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::default();
    let output = Output::start(kept.clone(), Surface::default()).unwrap();
    let text = "for i in $(seq 50); do printf 'half '; printf 'whole\\n'; echo 'half whole' >&2; done; printf 'half whole'";
    let spec = script(text, folder.path());
    let spawn = |number| {
        Replica::spawn(
            &Launcher::this_program(),
            &spec,
            output.replica("m", number),
        )
        .unwrap()
    };
    let replicas: Vec<_> = (0..3).map(spawn).collect();
    for replica in &replicas {
        replica.wait().await;
    }
    output.finish(Duration::from_secs(1));
    let text = kept.text();
    assert_eq!(text.lines().count(), 303);
    for line in text.lines() {
        assert!(
            ["m/0 | half whole", "m/1 | half whole", "m/2 | half whole"].contains(&line),
            "{line:?}"
        );
    }
}

/// A terminal that nobody reads.
struct Stuck;

impl Write for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        loop {
            std::thread::park();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn a_flood_of_output_costs_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    for stuck in [false, true] {
        let writer: Box<dyn Write + Send> = if stuck {
            Box::new(Stuck)
        } else {
            Box::new(io::sink())
        };
        let output = Output::start(writer, Surface::default()).unwrap();
        // Lines of every length and one without an end.
        let spec = script(
            "yes & yes >&2 & head -c 1000000000 /dev/zero",
            folder.path(),
        );
        let replica =
            Replica::spawn(&Launcher::this_program(), &spec, output.replica("m", 0)).unwrap();
        sleep(Duration::from_millis(300)).await;
        let before = resident();
        sleep(Duration::from_secs(1)).await;
        let grown = resident().saturating_sub(before);
        assert!(grown < 4096, "grew by {grown} KiB");
        replica.kill_now();
        replica.wait().await;
    }
}

async fn a_reader_that_is_stuck_does_not_stop_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::start(Stuck, Surface::default()).unwrap();
    let spec = script(
        "for i in $(seq 20000); do echo a line that nobody reads; done; exit 5",
        folder.path(),
    );
    let replica = Replica::spawn(&Launcher::this_program(), &spec, output.replica("m", 0)).unwrap();
    let begin = Instant::now();
    assert_eq!(replica.wait().await, Exit::Code(5));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "took {:?}",
        begin.elapsed()
    );
}

async fn starting_is_fast() {
    let folder = tempfile::tempdir().unwrap();
    let (mut calls, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let begin = Instant::now();
        let replica = start("exec sleep 1000", folder.path());
        calls.push(begin.elapsed());
        while replica.pid().is_none() {
            sleep(Duration::from_micros(100)).await;
        }
        starts.push(begin.elapsed());
        if calls.len() == 20 {
            let shim = fs::read_to_string(format!("/proc/{}/status", replica.shim_pid().unwrap()))
                .unwrap();
            let memory: Vec<_> = shim
                .lines()
                .filter(|line| line.starts_with("VmRSS") || line.starts_with("Rss"))
                .collect();
            println!("shim: {memory:?}");
        }
    }
    calls.sort();
    starts.sort();
    println!(
        "spawn call p50 {:?}, program started p50 {:?}",
        calls[10], starts[10]
    );
    // Generous: other work may share the machine.
    assert!(starts[10] < Duration::from_millis(100));
}

async fn the_tokens_example_answers() {
    if std::process::Command::new("node")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("no node on this machine: left out");
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tokens/tokens.yaml");
    let workload = manifest::load(&[file]).unwrap().workloads.remove(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let spec = manifest::expand(
        &workload.container,
        &manifest::port_variables(&workload.container, |_| port),
    );
    let replica = Replica::spawn(&Launcher::this_program(), &spec, nowhere()).unwrap();
    let begin = Instant::now();
    while !get(port, "/health").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{:?} {:?}",
            replica.exit(),
            replica.stderr_tail()
        );
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        replica.terminate(workload.termination_grace).await,
        Exit::Code(0)
    );
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
