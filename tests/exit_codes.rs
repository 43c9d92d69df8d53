//! Tests the exit code of the real binary after a disk error. To simulate a broken disk, `strace` delays one fdatasync call and
//! then makes the call fail. hookhold must answer every waiting sender with 503 and exit with code 3. After a restart, hookhold
//! must treat a retry as a duplicate if and only if recovery found the event.

#[path = "common/ports.rs"]
mod ports;
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

/// Number of the fdatasync call that fails. `strace` counts the calls of each thread separately, starting at 1. If a test waits
/// for each response before it sends the next delivery, the journal writer calls fdatasync once per delivery.
const FAILING: usize = 6;
/// Delay before the fdatasync call fails, in the syntax of `strace`. The test sends its deliveries during this delay, but no
/// assertion depends on the length of the delay.
const WAITS: &str = "3s";
/// Number of deliveries whose responses wait for the failing fdatasync call.
const WAITING: usize = 30;

/// A gateway process under `strace`. Dropping the value kills the process with SIGKILL.
struct Traced(Child);

impl Traced {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a child can be signalled until it is waited for");
    }

    /// Waits until the gateway exits, and returns the exit code of the gateway. Returns `None` if a signal ended the process.
    fn code(&mut self) -> Option<i32> {
        wait_until("hookhold exits", || self.0.try_wait().expect("a child can be waited for").is_some());
        self.0.wait().expect("the process has exited").code()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_on_a_failing_disk(home: &Home) -> Traced {
    let dir = home.journal().parent().expect("the journal is inside the home").to_owned();
    let log = File::create(dir.join("log")).expect("target/ can be written to");
    let inject = format!("inject=fdatasync:error=EIO:delay_enter={WAITS}:when={FAILING}");
    // With -D, strace runs as a grandchild of the test and the gateway runs as a child, so the test receives the gateway's exit
    // code.
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
        assert!(ended.is_none(), "hookhold exited with {ended:?}; its log:\n{}", home.log());
        Line::try_open(home.hooks).is_some()
    });
    traced
}

/// Returns the bytes of a request that delivers the event `id` to the source `acme`. The signature is an HMAC over the body.
fn delivery(id: &str) -> Vec<u8> {
    let body = format!("{{\"id\":{id:?}}}");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC accepts keys of any length");
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

fn stored_ids(home: &Home) -> Vec<String> {
    let tail = home.verb(&["tail", "--from", "0", "--format", "json"]);
    assert_eq!(tail.status.code(), Some(0), "{tail:?}");
    let text = String::from_utf8(tail.stdout).expect("JSON is text");
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].as_str().map(str::to_owned);
    text.lines().map(|line| id(line).expect("every event here has an id")).collect()
}

#[test]
fn a_failed_sync_answers_503_and_exits_3() {
    let home = Home::new(&[("acme", SECRET)], CONFIG);
    let mut traced = start_on_a_failing_disk(&home);

    let acknowledged: Vec<String> = (1..FAILING).map(|number| format!("before_{number}")).collect();
    for id in &acknowledged {
        assert_eq!(deliver(&home, id).status, 200);
    }

    // The first delivery starts the fdatasync call that fails, and the other deliveries arrive during the delay. Each id occurs
    // twice, so half of the deliveries are duplicates.
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
    assert_eq!(traced.code(), Some(3), "log of hookhold:\n{}", home.log());
    assert!(home.log().contains("sync of the journal failed"), "{}", home.log());

    let _process = home.start();
    let found: BTreeSet<String> = stored_ids(&home).into_iter().collect();
    assert!(acknowledged.iter().all(|id| found.contains(id)), "every delivery that was answered 2xx is stored: {found:?}");
    for id in ids.iter().chain(&acknowledged) {
        assert_eq!(deliver(&home, id).status, 200, "{id}");
    }
    let stored = stored_ids(&home);
    assert_eq!(stored.iter().collect::<BTreeSet<_>>(), ids.iter().chain(&acknowledged).collect());
    assert_eq!(stored.len(), WAITING / 2 + acknowledged.len(), "each event is stored once: {stored:?}");
}

#[test]
fn a_failed_sync_at_shutdown_exits_with_3() {
    let home = Home::new(&[("acme", SECRET)], CONFIG);
    let mut traced = start_on_a_failing_disk(&home);
    for number in 1..FAILING {
        assert_eq!(deliver(&home, &number.to_string()).status, 200);
    }
    traced.signal(Signal::TERM);
    assert_eq!(traced.code(), Some(3), "log of hookhold:\n{}", home.log());
    assert!(home.log().contains("sync of the journal failed"), "{}", home.log());
    let _process = home.start();
    assert_eq!(stored_ids(&home).len(), FAILING - 1);
}

#[test]
fn a_failed_sync_exits_despite_a_hung_reload() {
    let home = Home::new(&[("acme", SECRET)], CONFIG);
    let mut traced = start_on_a_failing_disk(&home);
    let file = home.journal().with_file_name("hookhold.toml");
    fs::remove_file(&file).expect("the file belongs to the test");
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("target/ can be written to");
    traced.signal(Signal::HUP);
    // This call of `open` blocks until the reload opens the pipe for reading. The test writes nothing, so the reload hangs.
    let _never_written = File::options().write(true).open(&file).expect("the file belongs to the test");
    for number in 1..FAILING {
        assert_eq!(deliver(&home, &number.to_string()).status, 200);
    }
    assert_eq!(deliver(&home, "fails").status, 503);
    assert_eq!(traced.code(), Some(3), "log of hookhold:\n{}", home.log());
}

const SECRET: &str = "only for tests";
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
