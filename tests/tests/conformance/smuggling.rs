//! Request smuggling: thousands of byte streams on whose meaning readers of HTTP/1 disagree, sent through both listeners to
//! three servers that have nothing in common, each of which says what it has seen.
//!
//! What must hold for every stream and every server: the requests that the server sees are the ones that our strict reader
//! found and that were answered by the server, in that order, with that method, that target and those bytes of body. So
//! nothing of a refused message arrives, and no request that stands inside a body is ever taken for one. And since all
//! servers are held against one reading, they agree with each other.

mod client;
mod corpus;
mod reading;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use tokio::{sync::Semaphore, task::JoinSet};

use self::{
    client::{Answers, talk},
    corpus::{Case, corpus, mark},
    reading::{End, Reading, read},
    upstream::{Record, Seen, Upstream},
};
use crate::{
    Place,
    expected::{Exception, assert_only},
};

/// Where a server does not see what others see, and that is as it should be.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        name: "nginx answers 400 to a method that is not of capital letters",
        reason: "RFC 9110 allows it; nginx knows no such method",
    },
    Exception {
        name: "nginx answers 400 to a zero byte in a target",
        reason: "RFC 3986 allows %00; nginx maps targets to files",
    },
    Exception {
        name: "nginx answers 400 to a target above the root",
        reason: "RFC 3986 allows it; nginx maps targets to files",
    },
    Exception {
        name: "nginx answers 400 to a percent sign before no number",
        reason: "a target passes as it is: what it means is the model's business",
    },
    Exception {
        name: "nginx answers 400 to an empty Host",
        reason: "RFC 9110 allows it where there is no authority, as in HTTP/1.0; nginx wants a name",
    },
    Exception {
        name: "go answers 400 to a percent sign before no number",
        reason: "a target passes as it is: what it means is the model's business",
    },
    Exception {
        name: "go answers 400 to a trailer that is no trailer",
        reason: "the field Trailer passes as it is, and names Content-Length; no trailer of that name follows",
    },
];
/// Of so many cases CI has time for one. A prime, so that it goes through every combination of what the groups are made of.
const STEP: usize = 7;
/// Connections at once.
const AT_ONCE: usize = 24;
/// Findings that are printed in full, of each kind.
const SHOWN: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_upstream_sees_what_our_reader_declares_and_nothing_else() {
    let place = Place::new();
    let cases = Arc::new(corpus(if Place::full() { 1 } else { STEP }));
    let readings: Arc<Vec<_>> = Arc::new(cases.iter().map(|case| read(&case.bytes)).collect());
    tell(&cases, &readings);

    let mut findings = Findings::default();
    for listener in 0..2 {
        // A server for each listener, so that what one of them sends cannot be taken for the other's.
        let upstreams = [
            Upstream::hyper().await,
            Upstream::nginx(&place).await,
            Upstream::go(&place).await,
        ];
        let mut first: Option<Vec<Answers>> = None;
        for upstream in &upstreams {
            let listeners = place.listen(upstream.address).await;
            let (name, address) = listeners.both()[listener];
            let answers = send_all(address, &cases, &readings).await;
            // Nothing is on its way any more once the programs are gone.
            drop(listeners);
            let records = upstream.records();
            let of_case = sort(&records, cases.len());
            println!(
                "{name} before {}: {} requests seen, {} of them broken off",
                upstream.name,
                records.len(),
                records.iter().filter(|(_, whole)| !whole).count()
            );
            let way = format!("{name} before {}", upstream.name);
            for record in &of_case.strangers {
                findings.add(format!("{way}: a request of no case"), || {
                    format!("{record:?}")
                });
            }
            for (id, case) in cases.iter().enumerate() {
                if let Some(first) = &first {
                    let (reading, answers) = (&readings[id], &answers[id]);
                    differ(upstream.name, case, reading, &first[id], answers, |what| {
                        findings.add(what, || {
                            format!("{:?}", String::from_utf8_lossy(&case.bytes))
                        });
                    });
                }
                for what in judge(case, &readings[id], &answers[id], &of_case.cases[id]) {
                    findings.add(format!("{way}: {}: {what}", case.group), || {
                        format!(
                            "{:?}\nread: {:?}\nanswers: {:?}\nseen: {:?}",
                            String::from_utf8_lossy(&case.bytes),
                            readings[id],
                            answers[id],
                            of_case.cases[id]
                        )
                    });
                }
            }
            first.get_or_insert(answers);
        }
    }
    findings.print();
    assert_only("smuggling", &findings.names(), EXCEPTIONS);
}

/// Where an upstream refuses what hyper takes.
fn differ(
    upstream: &str,
    case: &Case,
    reading: &Reading,
    hyper: &Answers,
    other: &Answers,
    mut tell: impl FnMut(String),
) {
    let answers = hyper.all.iter().zip(&other.all);
    for (request, (hyper, other)) in reading.requests.iter().zip(answers) {
        if hyper.seen != other.seen {
            let why = oddity(case, request);
            tell(format!("{upstream} answers {} to {why}", other.status));
        }
    }
}

/// What is odd about a request that an upstream refuses.
fn oddity(case: &Case, request: &Seen) -> String {
    let capitals = |b: u8| b.is_ascii_uppercase() || matches!(b, b'-' | b'_');
    let text = String::from_utf8_lossy(&case.bytes);
    let target = &request.target;
    if target.contains("%zz") {
        "a percent sign before no number".to_owned()
    } else if !request.method.bytes().all(capitals) {
        "a method that is not of capital letters".to_owned()
    } else if target.contains("%00") {
        "a zero byte in a target".to_owned()
    } else if target.starts_with("/%2e%2e/") {
        "a target above the root".to_owned()
    } else if text.contains("Trailer: Content-Length") {
        "a trailer that is no trailer".to_owned()
    } else if case.group == "hosts" {
        "an empty Host".to_owned()
    } else {
        let target: String = target.chars().filter(|c| !c.is_ascii_digit()).collect();
        format!("{} {target} of {}", request.method, case.group)
    }
}

/// What is wrong with the way of a case.
fn judge(case: &Case, reading: &Reading, answers: &Answers, records: &[Record]) -> Vec<String> {
    let mut wrong = Vec::new();
    if answers.stuck {
        wrong.push("an answer or the end did not come".to_owned());
    }
    let answered: Vec<_> = reading
        .requests
        .iter()
        .zip(&answers.all)
        .filter(|(_, answer)| answer.seen)
        .map(|(request, _)| request)
        .collect();
    let whole: Vec<_> = records
        .iter()
        .filter(|(_, whole)| *whole)
        .map(|(seen, _)| seen)
        .collect();
    if answered != whole {
        wrong.push("it saw other requests than were declared and answered".to_owned());
    }
    let mut beyond = answers.all.iter().skip(reading.requests.len());
    if beyond.any(|answer| answer.seen) {
        wrong.push("it answered more requests than were declared".to_owned());
    }
    if whole.len() < records.len() && !matches!(reading.end, End::InBody | End::BodyRefused) {
        wrong.push("it saw a body broken off that is whole".to_owned());
    }
    let declared = |target: &str| {
        reading
            .requests
            .iter()
            .any(|request| request.target == target)
    };
    if records
        .iter()
        .any(|(seen, _)| seen.target.ends_with("hidden") && !declared(&seen.target))
    {
        wrong.push("it saw what is hidden in a body".to_owned());
    }
    for (request, answer) in reading.requests.iter().zip(&answers.all) {
        if !answer.seen && (case.good || answer.status / 100 != 4) {
            wrong.push(format!("{} answered {}", request.method, answer.status));
        }
    }
    if case.good && (reading.end != End::Clean || answers.all.len() != reading.requests.len()) {
        wrong.push("not all of a good connection was answered".to_owned());
    }
    if let (End::Refused(refusal), Some(last)) =
        (reading.end, answers.all.get(reading.requests.len()))
        && last.status != refusal.status
    {
        wrong.push(format!(
            "refused with {} instead of {}",
            last.status, refusal.status
        ));
    }
    wrong
}

/// Sends every case.
async fn send_all(
    address: SocketAddr,
    cases: &Arc<Vec<Case>>,
    readings: &Arc<Vec<Reading>>,
) -> Vec<Answers> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for id in 0..cases.len() {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is open");
        let (cases, readings) = (Arc::clone(cases), Arc::clone(readings));
        tasks.spawn(async move {
            let reading = &readings[id];
            let refused = matches!(reading.end, End::Refused(_) | End::BodyRefused);
            let count = reading.requests.len();
            let answers = talk(address, &cases[id].bytes, count, refused).await;
            drop(permit);
            (id, answers)
        });
    }
    let mut all = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (id, answers) = done.expect("it does not panic");
        all.insert(id, answers);
    }
    all.into_values().collect()
}

/// Records by case.
struct Sorted {
    cases: Vec<Vec<Record>>,
    /// Of no case.
    strangers: Vec<Record>,
}

fn sort(records: &[Record], count: usize) -> Sorted {
    let mut sorted = Sorted {
        cases: vec![Vec::new(); count],
        strangers: Vec::new(),
    };
    for record in records {
        match id(&record.0).and_then(|id| sorted.cases.get_mut(id)) {
            Some(case) => case.push(record.clone()),
            None => sorted.strangers.push(record.clone()),
        }
    }
    sorted
}

/// The case of a request.
fn id(seen: &Seen) -> Option<usize> {
    let from = seen.target.find('c').map(|at| &seen.target[at + 1..])?;
    let digits = &from[..from.find('.')?];
    let id = digits.parse().ok()?;
    seen.target.contains(&mark(id)).then_some(id)
}

/// Prints how many cases there are and what the reader makes of them.
fn tell(cases: &[Case], readings: &[Reading]) {
    let mut groups = BTreeMap::<_, [usize; 4]>::new();
    for (case, reading) in cases.iter().zip(readings) {
        let counts = groups.entry(case.group).or_default();
        counts[0] += 1;
        counts[1] += reading.requests.len();
        counts[2] += usize::from(matches!(reading.end, End::Refused(_) | End::BodyRefused));
        counts[3] += usize::from(case.good);
    }
    for (group, [cases, requests, refused, good]) in groups {
        println!(
            "{group}: {cases} connections ({good} good, {refused} refused at some point) with {requests} whole requests"
        );
    }
    println!("{} connections", cases.len());
}

/// What was found, by its name, with a few examples of each.
#[derive(Default)]
struct Findings(BTreeMap<String, (usize, Vec<String>)>);

impl Findings {
    fn add(&mut self, name: String, example: impl FnOnce() -> String) {
        let (count, examples) = self.0.entry(name).or_default();
        *count += 1;
        if examples.len() < SHOWN {
            examples.push(example());
        }
    }

    fn print(&self) {
        for (name, (count, examples)) in &self.0 {
            println!("{name}: {count} times");
            for example in examples {
                println!("{example}\n");
            }
        }
    }

    fn names(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }
}
