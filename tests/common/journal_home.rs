//! A directory with a configuration, a secret and a journal, for tests of the verbs that read a journal. The test appends events to the
//! journal, so no gateway runs.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::config::Config;
use hookhold::event::Event;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Journal, Options};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;
use hookhold::verify::sign::{SampleOptions, sign};
use hookhold::verify::{Verdict, Verified, Verifier};
use serde_json::Value;

/// The directory of one test.
pub struct Harness {
    pub dir: tempfile::TempDir,
    pub config: Config,
    /// True if the journal forwards events. True in a new harness.
    pub forwards: bool,
}

impl Harness {
    /// Creates the directory, with a configuration that has the sources `stripe` and `github`.
    pub fn new() -> Harness {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0").unwrap();
        let sources = ["stripe", "github"].map(|name| {
            let secret = dir.path().join("secret");
            format!("[sources.{name}]\nprovider = {name:?}\nsecrets = [\"file:{}\"]\n", secret.display())
        });
        let text = format!("[journal]\ndir = {:?}\n{}", dir.path().join("journal"), sources.concat());
        std::fs::write(dir.path().join("hookhold.toml"), text).unwrap();
        let config = Config::load(&dir.path().join("hookhold.toml"), |_, _| None).unwrap();
        Harness { dir, config, forwards: true }
    }

    /// Opens the journal for writing.
    pub fn open(&self) -> Journal {
        self.open_with(Arc::new(SystemClock))
    }

    /// Opens the journal for writing with another clock.
    pub fn open_with(&self, clock: Arc<dyn Clock>) -> Journal {
        let disk = Arc::new(LocalDisk::create(&self.config.journal.dir).unwrap());
        let limits = JournalLimits { segment_size: 1 << 20, ..JournalLimits::default() };
        let options = Options { limits, forwards: self.forwards, ..Options::default() };
        Journal::open(disk, options, clock, Arc::new(Metrics::new())).unwrap()
    }

    /// Adds text to the end of the configuration file, and loads the file.
    pub fn configure(&mut self, more: &str) {
        let file = self.dir.path().join("hookhold.toml");
        let text = std::fs::read_to_string(&file).unwrap() + more;
        std::fs::write(&file, text).unwrap();
        self.config = Config::load(&file, |_, _| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    }

    /// Returns an event of `source` with the id `id` and the arrival time `at`.
    pub fn event(&self, source: &str, id: &str, at: u64) -> Event {
        let options = SampleOptions { id: id.into(), event_type: None, key: None, now: UnixMillis(at), tamper: None };
        self.signed(source, None, &options)
    }

    /// Returns an event of `source` with this body.
    pub fn event_with_body(&self, source: &str, id: &str, body: &[u8]) -> Event {
        let options = SampleOptions { id: id.into(), event_type: None, key: None, now: UnixMillis(AT), tamper: None };
        self.signed(source, Some(Bytes::copy_from_slice(body)), &options)
    }

    /// Returns an event of `source` with this type.
    pub fn event_of_type(&self, source: &str, id: &str, event_type: &str) -> Event {
        let event_type = Some(event_type.to_owned());
        self.signed(source, None, &SampleOptions { id: id.into(), event_type, key: None, now: UnixMillis(AT), tamper: None })
    }

    fn signed(&self, source: &str, body: Option<Bytes>, options: &SampleOptions) -> Event {
        let source = self.config.sources.iter().find(|one| &*one.name == source).unwrap();
        let sample = sign(source, body, options).expect("the source has a secret");
        let delivery = sample.into_delivery(SocketAddr::from(([127, 0, 0, 1], 4000)), options.now);
        match Verifier::new(source.clone()).verify(&delivery) {
            Ok(Verdict::Event(Verified { event, .. })) => event,
            Ok(Verdict::Batch(mut batch)) => batch.items.remove(0).event,
            other => panic!("the delivery is not an event: {other:?}"),
        }
    }

    /// Appends one event of `source` with the id `id` and the arrival time `at`, and returns the event's sequence.
    pub fn append(&self, journal: &Journal, source: &str, id: &str, at: u64) -> u64 {
        self.append_event(journal, &self.event(source, id, at))
    }

    /// Appends an event, and returns its sequence.
    pub fn append_event(&self, journal: &Journal, event: &Event) -> u64 {
        let (sender, completion) = channel();
        journal.append(event, Box::new(move |result| sender.send(result).unwrap())).unwrap();
        completion.recv().unwrap().unwrap().seq
    }

    /// Returns a command that runs `hookhold` with these arguments in the directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookhold"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    /// Runs a verb with `--format json`, and returns the printed objects. Panics if the verb fails.
    pub fn lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.command(&[args, &["--format", "json"]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the paths of the segment files.
    pub fn segments(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(&self.config.journal.dir).unwrap().map(|entry| entry.unwrap().path());
        let segments: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect();
        assert!(!segments.is_empty(), "the journal has segments");
        segments
    }
}

/// A wall clock that only the test advances.
pub struct WallClock(pub AtomicU64);

impl Clock for WallClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

/// Converts the output of a command to text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Changes one bit of the text `marker` in the first segment that contains it, as a failing disk does.
pub fn flip_a_bit_inside(marker: &str, segments: &[PathBuf]) {
    let holds = |path: &&PathBuf| find(path, marker).is_some();
    let path = segments.iter().find(holds).expect("a segment contains the marker");
    let mut bytes = std::fs::read(path).unwrap();
    bytes[find(path, marker).unwrap()] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn find(path: &Path, marker: &str) -> Option<usize> {
    std::fs::read(path).unwrap().windows(marker.len()).position(|window| window == marker.as_bytes())
}

/// Arrival time of the events, in Unix milliseconds: 2026-11-21T07:08:13.042Z.
pub const AT: u64 = 1_795_244_893_042;
