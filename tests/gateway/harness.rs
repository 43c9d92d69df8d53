//! Extends the common harness with methods for the gateway tests. A test can start, pause and complete the delivery of each
//! sender separately.

#[path = "../common/harness.rs"]
mod common;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hookhold::answer::Answer;
use hookhold::clock::{Clock, UnixMillis};
use hookhold::config::KafkaConfig;
use hookhold::event::Delivery;
use hookhold::gateway::{Gateway, LiveSource};
use hookhold::in_flight::{InFlightBudget, InFlightCharge};
use hookhold::journal::Reader;
use hookhold::limits::{DedupeLimits, JournalLimits};
use hookhold::outcome::Outcome;
use hookhold::sender_standing::{DeliveryTerms, SenderStanding};
use hookhold::source::{Source, SourceDefaults};
use hookhold::verify::sign::{SampleOptions, sign};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::disk::{Gate, SimDisk, Step};
pub use common::Harness;
use common::TestClock;

/// Configuration of the gateway under test. A harness uses the same configuration after every restart.
#[derive(Clone)]
pub struct Plan {
    pub journal: JournalLimits,
    /// True if the journal retains every event until Kafka acknowledges the event. The harness never runs a forwarder, so a
    /// test simulates the acknowledgement.
    pub forwards: bool,
    /// Dedupe window of every source.
    pub window: Duration,
    /// Response deadline of every source. The gateway rejects new deliveries while a sync has been running for longer than this
    /// deadline.
    pub deadline: Duration,
    pub hot_keys: u64,
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Plan {
        let journal =
            JournalLimits { segment_size: SEGMENT, max_size: 1 << 30, max_backlog: 1 << 29, ..JournalLimits::default() };
        Plan { journal, forwards: false, window: 7 * DAY, deadline: Duration::from_secs(60), hot_keys: 1000, seed: 0 }
    }
}

/// The real gateway and the real journal on a simulated disk, with a clock that only the test advances.
impl Harness {
    pub fn new() -> Harness {
        Harness::with(Plan::default())
    }

    pub fn with(plan: Plan) -> Harness {
        let mut config = common::config(sources(&plan));
        config.journal.limits = plan.journal;
        config.dedupe = DedupeLimits { window: plan.window, hot_keys: plan.hot_keys, ..config.dedupe };
        config.kafka = plan.forwards.then(KafkaConfig::default);
        let clock = TestClock::stopped_at(UnixMillis(1_700_000_000_000));
        Harness::build(config, SimDisk::new(plan.seed), clock)
    }

    /// Returns a harness whose journal retains every event until Kafka acknowledges the event.
    pub fn forwarding(limits: JournalLimits) -> Harness {
        let journal = JournalLimits { segment_size: SEGMENT, ..limits };
        Harness::with(Plan { journal, forwards: true, ..Plan::default() })
    }

    /// Restarts the harness so that the existing dedupe keys are only in the key files. After the restart, the hot cache and
    /// the journal's memory contain none of these keys. Waits until the journal's background thread is idle, because a read by
    /// this thread could consume an error that the test injects.
    pub fn with_keys_on_disk(self) -> Harness {
        let segments = self.disk.names(".seg");
        let harness = self.restarted();
        let is_sealed = |names: &[String], segment: &String| names.contains(&segment.replace(".seg", ".topics"));
        harness.disk.wait_for(|names| segments.iter().all(|segment| !names.contains(segment) || is_sealed(names, segment)));
        // A rewritten segment has the ordinal of the segment that it replaces.
        let ordinal = |name: &String| name.split('-').next().map(str::to_owned);
        let is_new = |name: &String| segments.iter().all(|segment| ordinal(segment) != ordinal(name));
        let empty: Vec<_> = harness.disk.names(".seg").into_iter().filter(is_new).collect();
        let harness = harness.restarted_after(Harness::take_keys_for_merged);
        // The background thread deletes a segment without events as soon as the segment is sealed. After this deletion, the
        // thread has no further work.
        harness.disk.wait_for(|names| empty.iter().all(|segment| !names.contains(segment)));
        harness
    }

    /// Renames the key files of segments to names of merged files, because the journal loads the former into the memory. Also
    /// removes their filters, so that the journal must read the files even for a fresh key.
    fn take_keys_for_merged(&self) {
        for name in self.disk.names(".keys") {
            let mut bytes = self.disk.bytes(&name);
            if bytes[20..24] == [0; 4] || name.starts_with("merged-") {
                continue;
            }
            assert_eq!(bytes[20..24], [1, 0, 0, 0], "one block");
            let (_, id) = name.rsplit_once('-').expect("the name of a segment");
            // The first key of the block, and the length and the checksum of its filter.
            bytes[72..80].fill(0);
            bytes[84..92].fill(0);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..4096]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            self.disk.put_file(&format!("merged-{id}"), &bytes);
            self.disk.remove_file(&name);
        }
    }

    /// Replaces the gateway with a new gateway that uses the same journal and has an empty hot cache.
    pub fn with_empty_cache(mut self) -> Harness {
        let (sources, hot_keys) = (self.config().sources.clone(), self.config().dedupe.hot_keys);
        self.gateway = Arc::new(Gateway::new(sources, self.journal.clone(), hot_keys, &self.metrics));
        self
    }

    /// Holds every sync of a journal segment, and sends the event `another` to start a sync. Returns the gate that releases the
    /// syncs, and the sender of the event.
    pub async fn hold_sync(&self) -> (Gate, Sender) {
        let gate = self.disk.hold(Step::Sync, ".seg");
        let other = self.send("stripe", "another").await;
        gate.wait_for(1);
        (gate, other)
    }

    /// Sends one event per id, all in a single commit, and holds the sync of this commit. Returns the gate that releases the
    /// sync, and the senders.
    pub async fn hold_commit(&self, ids: &[String]) -> (Gate, Vec<Sender>) {
        assert!(!ids.is_empty());
        let (first_gate, first) = self.hold_sync().await;
        let mut senders = Vec::new();
        for id in ids {
            senders.push(self.send("stripe", id).await);
        }
        // The journal calls the closure after the first commit. The closure then holds the sync of the next commit.
        let (held, gate) = mpsc::sync_channel(1);
        let disk = Mutex::new(Some(self.disk.clone()));
        self.journal.on_commit(Box::new(move || {
            let disk = disk.lock().expect("no holder panics").take();
            disk.into_iter().for_each(|disk| held.send(disk.hold(Step::Sync, ".seg")).expect("the test waits for the gate"));
            false
        }));
        first_gate.release();
        let gate = gate.recv().expect("the first commit ends");
        assert_eq!(first.answer().await.outcome, Outcome::Stored);
        gate.wait_for(1);
        (gate, senders)
    }

    pub fn source(&self, name: &str) -> Arc<LiveSource> {
        self.gateway.live_source(&format!("/hooks/{name}")).expect("the source is in SOURCES")
    }

    /// Returns a delivery of the event with this id. The delivery is signed at the current time, in the format of the source's
    /// provider.
    pub fn delivery(&self, source: &str, id: &str) -> Delivery {
        self.signed(source, id, None)
    }

    /// Returns a delivery with this id and body. The delivery is signed at the current time, in the format of the source's
    /// provider.
    pub fn with_body(&self, source: &str, id: &str, body: impl Into<Bytes>) -> Delivery {
        self.signed(source, id, Some(body.into()))
    }

    fn signed(&self, source: &str, id: &str, body: Option<Bytes>) -> Delivery {
        let now = self.clock.now();
        let options = SampleOptions { id: id.into(), event_type: None, key: None, now, tamper: None };
        let sample = sign(&self.source(source).source, body, &options).expect("the source has a secret");
        sample.into_delivery(([192, 0, 2, 1], 443).into(), now)
    }

    /// Creates a sender for a complete delivery. The gateway receives the delivery when the test first polls the sender.
    pub fn start(&self, source: &str, delivery: Delivery, deadline: Instant) -> Sender {
        let (gateway, source) = (self.gateway.clone(), self.source(source));
        Sender(Box::pin(async move { receive(&gateway, &source, delivery, deadline).await }))
    }

    /// Sends a delivery and returns its sender, which waits for the answer.
    pub async fn send(&self, source: &str, id: &str) -> Sender {
        self.send_this(source, self.delivery(source, id)).await
    }

    pub async fn send_this(&self, source: &str, delivery: Delivery) -> Sender {
        let mut sender = self.start(source, delivery, far_away());
        sender.assert_waiting().await;
        sender
    }

    /// Sends a delivery and returns the answer.
    pub async fn deliver(&self, source: &str, id: &str) -> Answer {
        self.deliver_this(source, self.delivery(source, id)).await
    }

    pub async fn deliver_this(&self, source: &str, delivery: Delivery) -> Answer {
        self.start(source, delivery, far_away()).answer().await
    }

    /// Sends a delivery and returns its outcome.
    pub async fn outcome(&self, source: &str, id: &str) -> Outcome {
        self.deliver(source, id).await.outcome
    }

    /// Returns the ids of all stored events in journal order. For an event without an id, the list contains an empty string.
    pub fn stored_ids(&self) -> Vec<String> {
        let mut reader = self.journal.reader(0);
        std::iter::from_fn(|| next(&mut reader)).collect()
    }

    /// Returns the number of stored copies of the event with this id.
    pub fn copies(&self, id: &str) -> usize {
        self.stored_ids().iter().filter(|stored| *stored == id).count()
    }

    pub fn stored_after_answer(&self) -> u64 {
        self.metrics.deliveries.stored_after_answer.get()
    }

    pub fn keyless(&self, source: &str) -> u64 {
        self.metrics.deliveries.keyless.with_label_values(&[source]).get()
    }

    /// Refreshes the metrics as a Prometheus scrape does, then returns the value of `hookhold_success_rate` for a source.
    pub fn success_rate(&self, source: &str) -> f64 {
        self.gateway.update_metrics();
        self.metrics.deliveries.success_rate.with_label_values(&[source]).get()
    }

    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }
}

fn next(reader: &mut Reader) -> Option<String> {
    let stored = reader.next().expect("the segment can be read")?;
    Some(stored.event.id().map(str::to_owned).unwrap_or_default())
}

/// A sender that waits for the answer to its delivery. Dropping the sender simulates a closed connection.
pub struct Sender(Pin<Box<dyn Future<Output = Answer> + Send>>);

impl Sender {
    /// Polls the sender once and returns the answer, or `None` if the answer is not ready.
    pub async fn poll_once(&mut self) -> Option<Answer> {
        poll_fn(|context| match self.0.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    pub async fn assert_waiting(&mut self) {
        let answer = self.poll_once().await;
        assert!(answer.is_none(), "answered too early: {answer:?}");
    }

    pub async fn answer(self) -> Answer {
        self.0.await
    }

    /// Runs the sender as a task of its own.
    pub fn spawned(self) -> JoinHandle<Answer> {
        tokio::spawn(self.0)
    }
}

/// Waits for the answers to all senders and returns the outcomes.
pub async fn outcomes(senders: Vec<Sender>) -> Vec<Outcome> {
    assert!(!senders.is_empty());
    let mut outcomes = Vec::new();
    for sender in senders {
        outcomes.push(sender.answer().await.outcome);
    }
    outcomes
}

/// Waits until `reached` returns true. Calls `reached` in a loop, because the condition depends on another thread.
pub fn until(reached: impl Fn() -> bool) {
    while !reached() {
        std::thread::yield_now();
    }
}

/// Passes a delivery to the gateway. The memory for bodies has no limit.
pub async fn receive(gateway: &Arc<Gateway>, source: &Arc<LiveSource>, delivery: Delivery, deadline: Instant) -> Answer {
    let [server, address] = [usize::MAX, usize::MAX].map(InFlightBudget::new);
    let mut charge = InFlightCharge::new(&server, &address);
    polled_at(deadline, gateway.receive(source, delivery, terms(deadline), &mut charge, |_, _| ())).await
}

/// Waits for `answer`, and polls it at the deadline.
async fn polled_at(deadline: Instant, answer: impl Future<Output = Answer>) -> Answer {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        () = sleep_until(deadline) => answer.await,
    }
}

/// Returns the terms for a delivery from an unknown address.
pub fn terms(deadline: Instant) -> DeliveryTerms {
    DeliveryTerms { standing: SenderStanding::Unknown, deadline }
}

/// Returns a deadline that only a failing test reaches.
pub fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Compiles every entry in [`SOURCES`] into a source. All sources have the same secret.
pub fn sources(plan: &Plan) -> Vec<Source> {
    let defaults = SourceDefaults {
        providers: Default::default(),
        public_url: None,
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: plan.deadline,
        window: plan.window,
    };
    let (window, body_window) = (plan.window.as_millis(), plan.window.min(Duration::from_secs(600)).as_millis());
    let compile = |(name, entry): &(&str, &str)| {
        let mut entry = format!("dedupe.window = \"{window}ms\"\n{entry}");
        if *name == "opted" {
            // The journal retains every key for the longest window of any source, including body windows. A body window that
            // exceeds `plan.window` would therefore prolong the retention of every key.
            entry += &format!("\ndedupe.body = \"{body_window}ms\"");
        }
        common::source(name, "whsec_only_for_tests", &entry, &defaults)
    };
    SOURCES.iter().map(compile).collect()
}

const SOURCES: &[(&str, &str)] = &[
    ("stripe", "provider = \"stripe\"\nreply.ok = { status = 202, content_type = \"text/plain\", body = \"thanks\" }"),
    ("stripe-eu", "provider = \"stripe\""),
    ("github", "provider = \"github\""),
    ("slack", "provider = \"slack\""),
    ("bare", "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"body\"]"),
    ("opted", "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"body\"]"),
    (
        "picky",
        "provider = \"stripe\"\ntypes = [\"invoice.*\", \"charge.failed\"]\n\
         reply.ok = { status = 202, content_type = \"text/plain\", body = \"thanks\" }\n\
         limits.switches_off_at = { percent = 5, within = \"30m\" }",
    ),
    (
        "timed",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"timestamp\", \".\", \"body\"]\n\
         timestamp = { from = \"header:T\" }",
    ),
    (
        "batch",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"body\"]\nsplit = true\n\
         event = { batch = \"\", id = \"json:/id\", type = \"json:/type\" }\nmax_items = 600\n\
         reply.ok = { status = 202, content_type = \"text/plain\", body = \"thanks\" }",
    ),
    (
        "whole-batch",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"body\"]\n\
         event = { batch = \"\", id = \"json:/id\", type = \"json:/type\" }",
    ),
    (
        "picky-batch",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"body\"]\nsplit = true\n\
         event = { batch = \"\", id = \"json:/id\", type = \"json:/type\" }\ntypes = [\"invoice.*\"]",
    ),
    (
        "timed-batch",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"timestamp\", \".\", \"body\"]\n\
         timestamp = { from = \"header:T\" }\nsplit = true\nevent = { batch = \"\", id = \"json:/id\" }",
    ),
    (
        "rare-batch",
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }\ncontent = [\"body\"]\nsplit = true\n\
         event = { batch = \"\", id = \"json:/id\" }\nmax_rate = \"1/h\"",
    ),
];

pub const DAY: Duration = Duration::from_secs(86_400);
/// Smallest valid segment size in bytes.
pub const SEGMENT: u64 = 64 << 10;
