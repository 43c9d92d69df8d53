//! Tests of `kill -9` at random moments. hookhold must not lose an event that it has acknowledged with a 2xx, and must not
//! store an event twice. A kill may cause only a bounded number of duplicates in Kafka.
//!
//! A kill counts as a kill during a commit only if the journal contains frames beyond the last published durable
//! watermark. Such frames prove that the kill happened after the writer had written the commit and before the writer
//! published the new watermark. A kill while the writer gathers the next commit, or while the server sends responses,
//! does not count.

#[path = "common/audit.rs"]
mod audit;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use audit::{Copies, FoundEvent};
use kafka::{Kafka, Record};
use load::{Ledger, Load, Order};
use process::{Home, Line, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// State of the load and of the journal after one kill of the process.
#[derive(Debug)]
struct Kill {
    /// Number of requests that had no response at the time of the kill.
    in_flight: u64,
    /// Number of events in the journal beyond the published durable watermark.
    unconfirmed: u64,
    /// Saved cursor of the topic.
    cursor: u64,
    /// Log end, which is the sequence of the next event.
    end: u64,
}

#[test]
fn events_answered_2xx_survive_thirty_kills_exactly_once() {
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3, &[]);
    let home = fixture::home(&[("stripe", TOPIC)], Some(&kafka.bootstrap()));
    let mut random = fastrand::Rng::with_seed(fixture::seed());
    let mut ledger = Ledger::new(&format!("{:08x}", random.u32(..)));
    let mut kills: Vec<Kill> = Vec::new();
    let during_commit = |kills: &[Kill]| kills.iter().filter(|kill| kill.unconfirmed > 0).count();
    while kills.len() < 30 || during_commit(&kills) < 20 || ledger.count(|count| count.accepted > 0) < 50_000 {
        assert!(kills.len() < MOST_KILLS, "only {} of {} kills hit a commit", during_commit(&kills), kills.len());
        if random.u8(0..3) == 0 {
            kill_during_start(&home, &mut random);
        }
        let process = home.start();
        let order = Order { duplicate_percent: 10, rate: None, seed: random.u64(..), ..fixture::order(&home, "stripe") };
        ledger = retry(&process, &order, ledger, &mut random);
        let load = Load::start(order, ledger);
        load.wait_until_accepted(random.u64(500..3500));
        if kills.len() % LIVES_PER_CURSOR == LIVES_PER_CURSOR - 1 {
            // Most lives are too short for a connection to Kafka.
            let acked = format!("hookhold_forward_acked_total{{topic=\"{TOPIC}\"}}");
            wait_until("Kafka acknowledges an event", || process.metric(&acked).is_some_and(|count| count > 0.0));
            let saved = kills[kills.len() - 1].cursor;
            wait_until("a cursor is saved under load", || saved_cursor(&home) > saved);
        }
        std::thread::park_timeout(Duration::from_micros(random.u64(0..20_000)));
        let in_flight = load.in_flight();
        drop(process);
        ledger = load.stop();
        kills.push(state_after_kill(&home, in_flight));
        let Kill { in_flight, unconfirmed, cursor, end } = &kills[kills.len() - 1];
        println!("kill {}: {in_flight} in flight, {unconfirmed} written but unconfirmed, cursor {cursor} of {end}", kills.len());
    }

    let process = home.start();
    let order = Order { rate: None, ..fixture::order(&home, "stripe") };
    ledger = retry(&process, &order, ledger, &mut random);
    assert_eq!(ledger.statuses.keys().collect::<Vec<_>>(), [&200], "{:?}", ledger.statuses);
    assert_eq!(ledger.count(|count| count.accepted == 0), 0, "every delivery was sent until it was answered");
    fixture::wait_until_forwarded(&process, TOPIC);
    let next = fixture::journal(&home).log_end().expect("the journal can be read");
    wait_until("the cursor is saved", || saved_cursor(&home) == next);
    fixture::stop(process);

    let duplicates = fixture::audit(&home, &ledger, &kafka, TOPIC);
    let ranges: Vec<_> = kills.iter().map(|kill| kill.cursor..kill.end).collect();
    let Copies { by_kill, unexplained } = audit::copies(kafka.records(TOPIC).iter().map(Record::seq), &ranges);
    assert_eq!((by_kill.iter().sum::<usize>(), unexplained), (duplicates, Vec::new()));
    let cursors: BTreeSet<u64> = kills.iter().map(|kill| kill.cursor).collect();
    assert!(cursors.len() >= 5, "cursors are saved under load: {cursors:?}");
    println!(
        "{} ids acknowledged by {} answers 2xx, {} of them sent more than once; {} kills, {} during a commit, {} requests cut; \
         {} recoveries copied a tail; duplicates in Kafka: {duplicates}, at most {} by one kill",
        ledger.count(|count| count.accepted > 0),
        ledger.statuses[&200],
        ledger.count(|count| count.sent > 1),
        kills.len(),
        during_commit(&kills),
        ledger.cut,
        home.log().matches("recovered the unconfirmed events").count(),
        by_kill.iter().max().expect("there were kills"),
    );
}

/// Starts hookhold and kills the process at a random moment of the startup, because a crash can interrupt recovery at any step.
fn kill_during_start(home: &Home, random: &mut fastrand::Rng) {
    let process = home.launch();
    std::thread::park_timeout(Duration::from_micros(random.u64(0..40_000)));
    drop(process);
}

/// Sends deliveries again after a restart. First sends deliveries that have had a 2xx response, including the newest, and
/// asserts that hookhold recognises these deliveries as duplicates. Then sends all deliveries that have had no 2xx response.
fn retry(process: &process::Process, order: &Order, ledger: Ledger, random: &mut fastrand::Rng) -> Ledger {
    let accepted = ledger.numbers(|count| count.accepted > 0);
    if accepted.is_empty() {
        return ledger;
    }
    let newest = accepted.iter().rev().take(128).copied();
    let retried: BTreeSet<usize> = newest.chain((0..128).map(|_| accepted[random.usize(0..accepted.len())])).collect();
    let count = retried.len();
    let ledger = Load::send_again(order.clone(), ledger, retried.into_iter().collect());
    let outcome = |outcome: &str| process.deliveries().get(&("stripe".to_owned(), outcome.to_owned())).copied().unwrap_or(0);
    assert_eq!(
        (outcome("duplicate"), outcome("stored")),
        (count as u64, 0),
        "each delivery acknowledged before the kill is a duplicate after it"
    );
    let cut = ledger.numbers(|count| count.accepted == 0);
    Load::send_again(order.clone(), ledger, cut)
}

/// Returns the saved cursor of the topic, or 0 if the journal contains none.
fn saved_cursor(home: &Home) -> u64 {
    fixture::saved_topic(home, TOPIC).and_then(|topic| topic.cursor).unwrap_or(0)
}

fn state_after_kill(home: &Home, in_flight: u64) -> Kill {
    let lock = std::fs::read(home.journal().join("lock")).expect("the journal has a lock file");
    let published = u64::from_le_bytes(lock[8..16].try_into().expect("8 bytes"));
    let end = fixture::journal(home).log_end().expect("the journal can be read");
    let cursor = saved_cursor(home);
    let unconfirmed = end.checked_sub(published).expect("the journal still holds every durable event");
    Kill { in_flight, unconfirmed, cursor, end }
}

#[test]
fn an_answer_is_sent_only_after_its_sync() {
    let home = fixture::home(&[("stripe", TOPIC)], None);
    let traced = Traced::start(&home);
    wait_until("hookhold is ready", || Line::try_open(home.hooks).is_some());
    let (id, port) = ("evt_traced", home.hooks.port());
    let answer = Line::open(home.hooks).ask(&load::request(&fixture::source(&home, "stripe"), id.into()));
    assert_eq!(answer.status, 200);
    let trace = traced.end();
    let steps = Steps::of(&trace, id, port);
    assert_eq!(steps.violation(), None, "{trace}");

    let [write, sync, answer] =
        [&steps.write, &steps.sync, &steps.answer].map(|step| step.clone().expect("every step was found"));
    assert!(write.end <= sync.start && sync.end <= answer.start);
    let early = Steps { answer: Some(write.end..write.end + 1), ..steps };
    assert_eq!(early.violation(), Some("answered before the sync had returned"), "planted");
    let unsynced: String = trace.lines().filter(|line| !line.contains("fdatasync")).map(|line| format!("{line}\n")).collect();
    assert_eq!(Steps::of(&unsynced, id, port).violation(), Some("no sync after the write"), "planted");
}

/// A `hookhold run` process under strace.
struct Traced {
    hookhold: Child,
    file: PathBuf,
}

impl Traced {
    fn start(home: &Home) -> Traced {
        let dir = home.journal().parent().expect("the journal is inside the home").to_owned();
        let file = dir.join("trace");
        let calls = "trace=pwrite64,pwritev,fdatasync,fsync,write,writev,sendto,sendmsg";
        let mut strace = Command::new("strace");
        // With `-D`, hookhold is a child of the test process, and strace is a child of hookhold.
        strace.args(["-D", "-f", "-yy", "-s", "4096", "-e", calls, "-e", "signal=none", "-o"]).arg(&file);
        strace.args([env!("CARGO_BIN_EXE_hookhold"), "run"]).current_dir(&dir);
        strace.stderr(File::create(dir.join("log")).expect("target/ can be written to"));
        Traced { hookhold: strace.spawn().expect("strace can be run (Debian: strace)"), file }
    }

    /// Stops hookhold, waits until strace has written the complete trace, and returns the trace.
    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.hookhold), Signal::TERM).expect("hookhold is our child");
        assert_eq!(self.hookhold.wait().expect("hookhold is our child").code(), Some(0));
        let id = self.hookhold.id().to_string();
        let is_last = |line: &str| line.strip_prefix(&id).is_some_and(|rest| rest.trim() == "+++ exited with 0 +++");
        let mut text = String::new();
        wait_until("the trace is complete", || {
            text = std::fs::read_to_string(&self.file).unwrap_or_default();
            text.ends_with('\n') && text.lines().last().is_some_and(is_last)
        });
        text
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.hookhold.kill();
        let _ = self.hookhold.wait();
    }
}

/// Indices of the trace lines of one system call, from the first line of the call to the last.
type Span = std::ops::Range<usize>;

/// Trace lines of the system calls that wrote an event, synced the event's file and sent the 200 response.
#[derive(Clone, Debug)]
struct Steps {
    write: Option<Span>,
    sync: Option<Span>,
    answer: Option<Span>,
}

impl Steps {
    fn of(trace: &str, id: &str, port: u16) -> Steps {
        let calls = calls(trace);
        let write = calls.iter().find(|(_, call)| call.starts_with("pwrite") && call.contains(id) && call.contains(".seg"));
        let file = write.map(|(_, call)| call.split(['<', '>']).nth(1).expect("-yy shows the file"));
        let sync = calls.iter().find(|(span, call)| {
            let succeeded = call.starts_with("fdatasync(") && call.ends_with("= 0");
            succeeded && file.is_some_and(|file| call.contains(file)) && write.is_some_and(|(write, _)| write.end <= span.start)
        });
        let ours = format!(":{port}->");
        let answer = calls.iter().find(|(_, call)| {
            let sends = ["write(", "writev(", "sendto(", "sendmsg("].iter().any(|name| call.starts_with(name));
            sends && call.contains(&ours) && call.contains("HTTP/1.1 200")
        });
        let span = |call: Option<&(Span, String)>| call.map(|(span, _)| span.clone());
        Steps { write: span(write), sync: span(sync), answer: span(answer) }
    }

    /// Returns a description of the first violation of the order (write, sync, response), or `None` if the order is correct.
    fn violation(&self) -> Option<&'static str> {
        match (&self.write, &self.sync, &self.answer) {
            (None, _, _) => Some("the event was not written"),
            (_, None, _) => Some("no sync after the write"),
            (_, _, None) => Some("not answered"),
            (_, Some(sync), Some(answer)) => (answer.start < sync.end).then_some("answered before the sync had returned"),
        }
    }
}

/// Returns all system calls in a trace, each with its trace lines. If another thread interrupts a call, strace splits the call
/// into two lines. This function joins the two lines.
fn calls(trace: &str) -> Vec<(Span, String)> {
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let (thread, call) = line.split_once(' ').expect("a thread and its call");
        let call = call.trim_start();
        if let Some(call) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (number, call));
        } else if let Some(rest) = call.strip_prefix("<... ") {
            let (start, call) = begun.remove(thread).expect("a resumed call was begun");
            let (_, rest) = rest.split_once(" resumed>").expect("strace marks a resumed call");
            calls.push((start..number + 1, format!("{call}{rest}")));
        } else {
            calls.push((number..number + 1, call.to_owned()));
        }
    }
    assert!(!calls.is_empty(), "the trace is empty");
    calls
}

#[test]
fn the_audit_finds_every_planted_violation() {
    let frame = |seq: u64| {
        let id = format!("evt_{seq}");
        FoundEvent { log: "00000000000000aa".into(), seq, body: load::body(&id), id }
    };
    let frames: Vec<FoundEvent> = (0..4).map(frame).collect();
    let accepted: BTreeSet<String> = frames.iter().map(|frame| frame.id.clone()).collect();
    let duplicated = [&frames[..], &frames[1..2]].concat();
    assert_eq!(audit::violations(&accepted, &frames, Some(&duplicated)), [""; 0], "a duplicate record is no violation");

    let finds = |frames: &[FoundEvent], records: &[FoundEvent], planted: &str| {
        let found = audit::violations(&accepted, frames, Some(records));
        assert!(found.iter().any(|violation| violation.contains(planted)), "{planted:?} was planted, found: {found:?}");
    };
    finds(&frames[1..], &frames[1..], "answered 2xx but not stored: evt_0");
    finds(&[&frames[..], &[FoundEvent { seq: 4, ..frame(2) }]].concat(), &frames, "stored 2 times: evt_2");
    finds(&frames, &frames[1..], "stored but not in Kafka: evt_0");
    finds(&[&[FoundEvent { body: load::body("evt_1"), ..frame(0) }], &frames[1..]].concat(), &frames, "another body: evt_0");
    for altered in [
        FoundEvent { log: "00000000000000ab".into(), ..frame(1) },
        FoundEvent { seq: 9, ..frame(1) },
        FoundEvent { seq: 2, ..frame(1) },
    ] {
        finds(&frames, &[&frames[..], &[altered]].concat(), "in Kafka but not in the journal: evt_1");
    }
    finds(
        &frames,
        &[&frames[..], &[FoundEvent { body: "{}".into(), ..frame(1) }]].concat(),
        "in Kafka but not in the journal: evt_1",
    );
}

#[test]
fn the_audit_finds_duplicates_that_no_kill_explains() {
    let copies = |seqs: &[u64]| audit::copies(seqs.iter().copied(), &[1..3, 2..5]);
    let explained = Copies { by_kill: vec![2, 1], unexplained: Vec::new() };
    assert_eq!(copies(&[0, 1, 2, 1, 2, 2, 3, 4]), explained);
    for (seqs, event) in [(&[0, 1, 2, 0][..], 0), (&[1, 1, 1], 1), (&[2, 2, 2, 2], 2), (&[5, 5], 5)] {
        assert_eq!(copies(seqs).unexplained, [event]);
    }
}

#[test]
fn the_load_records_every_rejection_and_lost_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let home = fixture::home(&[("stripe", TOPIC)], None);
    let address = listener.local_addr().expect("bound above");
    let order = Order { address, connections: 1, duplicate_percent: 0, rate: None, ..fixture::order(&home, "stripe") };
    let load = Load::start(order, Ledger::new("noted"));
    answer(&listener, &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 503 Later\r\n\r\n", ""]);
    answer(&listener, &["HTTP/1.1 200"]);
    let mut last = listener.accept().expect("the sender reconnects").0;
    drop(listener);
    answer_on(&mut last, &["HTTP/1.1 204 None\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"]);
    drop(last);
    let ledger = load.stop();

    let (accepted, sent): (Vec<u32>, Vec<u32>) = ledger.all().map(|(_, count)| (count.accepted, count.sent)).unzip();
    assert_eq!((accepted, sent), (vec![1, 0, 0, 0, 1, 0], vec![1; 6]));
    assert_eq!(ledger.statuses, BTreeMap::from([(200, 1), (204, 1), (503, 1)]));
    assert_eq!(ledger.cut, 3);
    assert!(ledger.has_failures());
}

/// Accepts one connection, sends the next response in `answers` after each request, and closes the connection.
fn answer(listener: &TcpListener, answers: &[&str]) {
    answer_on(&mut listener.accept().expect("the sender connects").0, answers);
}

fn answer_on(stream: &mut TcpStream, answers: &[&str]) {
    for answer in answers {
        let mut request = BufReader::new(&*stream);
        let fields = request.by_ref().lines().map(|line| line.expect("text")).take_while(|line| !line.is_empty());
        let length = fields.filter_map(|field| Some(field.strip_prefix("content-length: ")?.parse::<usize>().expect("a number")));
        let length = length.last().expect("the request has a length");
        request.read_exact(&mut vec![0; length]).expect("the request has a body");
        stream.write_all(answer.as_bytes()).expect("the sender reads");
    }
}

const TOPIC: &str = "webhooks.stripe";
/// Number of kills after which the test gives up. On a busy machine, commits take only a small part of the time, so about one
/// kill in ten hits a commit (12 of 120 kills while another build was running).
const MOST_KILLS: usize = 300;
/// One life of the process in this number lasts until a cursor is saved.
const LIVES_PER_CURSOR: usize = 5;
