//! A disk that fails under the real binary. `strace` makes one fdatasync wait and then fail, as a broken disk does: everybody
//! who waits gets 503, the process ends with exit code 3, and the next start and the retries agree about what is kept.

#[path = "common/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Child, Command};

use hmac::{Hmac, KeyInit, Mac};
use process::{Answer, Home, Line, post, wait_until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use sha2::Sha256;

/// The sync that fails, counted by the tracer for each thread: the writer's come one for each delivery that is alone.
const FAILING: usize = 6;
/// While it waits, everything below arrives. Nothing here depends on how long that takes.
const WAITS: &str = "3s";
const WAITING: usize = 30;

/// The gateway under a tracer; ended by `kill -9` if the test does not get that far.
struct Traced(Child);

impl Traced {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a child can be signalled until it is waited for");
    }

    /// The exit code, once it has ended.
    fn code(&mut self) -> Option<i32> {
        wait_until("hookhold has ended", || self.0.try_wait().expect("a child can be waited for").is_some());
        self.0.wait().expect("it has ended").code()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_on_a_failing_disk(home: &Home) -> Traced {
    let dir = home.journal().parent().expect("it lies in the home").to_owned();
    let log = File::create(dir.join("log")).expect("target/ can be written to");
    let inject = format!("inject=fdatasync:error=EIO:delay_enter={WAITS}:when={FAILING}");
    // With -D the tracer is the child, and the gateway keeps its place: its exit code is seen here.
    let child = Command::new("strace")
        .args(["-D", "-f", "-qq", "-e", "trace=fdatasync", "-e", &inject, "-o", "/dev/null"])
        .args([env!("CARGO_BIN_EXE_hookhold"), "run"])
        .current_dir(dir)
        .stderr(log)
        .spawn()
        .expect("strace starts: tests/run installs it");
    let mut traced = Traced(child);
    wait_until("hookhold is ready", || {
        let ended = traced.0.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "hookhold has ended with {ended:?}; it said:\n{}", home.log());
        Line::try_open(home.hooks).is_some()
    });
    traced
}

/// A delivery to the source `acme`, whose scheme is one HMAC over the body.
fn delivery(id: &str) -> Vec<u8> {
    let body = format!("{{\"id\":{id:?}}}");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key length will do");
    mac.update(body.as_bytes());
    post(
        "/hooks/acme",
        &[("acme-signature".into(), base16ct::lower::encode_string(&mac.finalize().into_bytes()))],
        body.as_bytes(),
    )
}

fn deliver(home: &Home, id: &str) -> Answer {
    Line::open(home.hooks).ask(&delivery(id))
}

fn kept_ids(home: &Home) -> Vec<String> {
    let tail = home.verb(&["tail", "--from", "0", "--format", "json"]);
    assert_eq!(tail.status.code(), Some(0), "{tail:?}");
    let text = String::from_utf8(tail.stdout).expect("JSON is text");
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].as_str().map(str::to_owned);
    text.lines().map(|line| id(line).expect("every event here has an id")).collect()
}

#[test]
fn a_failed_sync_answers_503_to_all_who_wait_and_ends_with_exit_code_3() {
    let home = Home::new(&[("acme", SECRET)], CONFIG);
    let mut traced = start_on_a_failing_disk(&home);

    let acknowledged: Vec<String> = (1..FAILING).map(|number| format!("before_{number}")).collect();
    for id in &acknowledged {
        assert_eq!(deliver(&home, id).status, 200);
    }

    // The first begins the sync that fails; the others come while it waits, some of them as repeats of it.
    let ids: Vec<String> = (0..WAITING).map(|number| format!("waiting_{}", number / 2)).collect();
    let mut waiting: Vec<Line> = ids.iter().map(|_| Line::open(home.hooks)).collect();
    for (line, id) in waiting.iter_mut().zip(&ids) {
        line.send(&delivery(id));
    }
    for line in &mut waiting {
        let answer = line.answer();
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("\r\nretry-after: "), "{}", answer.head);
    }
    assert_eq!(traced.code(), Some(3), "it said:\n{}", home.log());
    assert!(home.log().contains("sync of the journal failed"), "{}", home.log());

    let _process = home.start();
    let found: BTreeSet<String> = kept_ids(&home).into_iter().collect();
    assert!(acknowledged.iter().all(|id| found.contains(id)), "what was answered 2xx is kept: {found:?}");
    for id in ids.iter().chain(&acknowledged) {
        assert_eq!(deliver(&home, id).status, 200, "{id}");
    }
    let kept = kept_ids(&home);
    assert_eq!(kept.iter().collect::<BTreeSet<_>>(), ids.iter().chain(&acknowledged).collect());
    assert_eq!(kept.len(), WAITING / 2 + acknowledged.len(), "each of them once: {kept:?}");
}

#[test]
fn a_sync_that_fails_at_the_very_end_ends_with_exit_code_3() {
    let home = Home::new(&[("acme", SECRET)], CONFIG);
    let mut traced = start_on_a_failing_disk(&home);
    for number in 1..FAILING {
        assert_eq!(deliver(&home, &number.to_string()).status, 200);
    }
    traced.signal(Signal::TERM);
    assert_eq!(traced.code(), Some(3), "it said:\n{}", home.log());
    assert!(home.log().contains("sync of the journal failed"), "{}", home.log());
    let _process = home.start();
    assert_eq!(kept_ids(&home).len(), FAILING - 1);
}

#[test]
fn work_that_never_ends_does_not_hold_up_the_end_after_a_failed_sync() {
    let home = Home::new(&[("acme", SECRET)], CONFIG);
    let mut traced = start_on_a_failing_disk(&home);
    let file = home.journal().with_file_name("hookhold.toml");
    fs::remove_file(&file).expect("it is ours");
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("target/ can be written to");
    traced.signal(Signal::HUP);
    // Opened once the reload has opened the other end, which it then reads in vain.
    let _never_written = File::options().write(true).open(&file).expect("it is ours");
    for number in 1..FAILING {
        assert_eq!(deliver(&home, &number.to_string()).status, 200);
    }
    assert_eq!(deliver(&home, "fails").status, 503);
    assert_eq!(traced.code(), Some(3), "it said:\n{}", home.log());
}

const SECRET: &str = "nobody knows it";
const CONFIG: &str = r#"
server.request_deadline = "1m"
server.drain_delay = "0s"
[sources.acme]
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Acme-Signature" }
content = ["body"]
event.id = ["json:/id"]
secrets = ["file:acme"]
"#;
