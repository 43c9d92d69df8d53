//! A journal on the disk with a forwarder behind it, and a shop whose deliveries fill it.

use std::os::unix::fs::FileExt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::{SystemClock, UnixMillis};
use hookhold::event::Event;
use hookhold::forward::{self, Forwarder, Settings, TopicSnapshot};
use hookhold::journal::disk::{Disk, LocalDisk};
use hookhold::journal::{Journal, Options};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, sign};
use hookhold::verify::{Verdict, Verifier};
use http::HeaderName;

use crate::kafka::wait_until;
use crate::support::{NOW, compile, delivery};

/// When every delivery arrives.
pub const AT: UnixMillis = UnixMillis(NOW * 1000);

/// Of the bodies of [`Harness::keep_many`].
pub const SEED: u64 = 7;

/// A journal and a forwarder; both can be stopped and started again.
pub struct Harness {
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    settings: Settings,
    forwarder: Option<Forwarder>,
    dir: tempfile::TempDir,
}

impl Harness {
    pub fn new(bootstrap: String) -> Harness {
        let dir = directory();
        Harness::with(local(&dir), dir, bootstrap)
    }

    /// A harness whose journal lies on this disk; it cannot be reopened.
    pub fn on(disk: Arc<dyn Disk>, bootstrap: String) -> Harness {
        Harness::with(disk, directory(), bootstrap)
    }

    fn with(disk: Arc<dyn Disk>, dir: tempfile::TempDir, bootstrap: String) -> Harness {
        // Shown only when a test fails.
        let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::INFO).try_init();
        let mut settings = Settings::default();
        settings.headers.insert("shop".into(), ["x-shop-id", "authorization", "cookie"].map(HeaderName::from_static).to_vec());
        let (journal, metrics) = open(disk);
        let harness = Harness { journal, metrics, settings, forwarder: None, dir };
        let quick = harness.set("topic.metadata.propagation.max.ms", "1000").set("reconnect.backoff.max.ms", "500");
        quick.set("bootstrap.servers", &bootstrap)
    }

    pub fn set(mut self, name: &str, value: &str) -> Harness {
        self.settings.librdkafka.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn start(mut self) -> Harness {
        self.resume();
        self
    }

    pub fn resume(&mut self) {
        assert!(self.forwarder.is_none());
        let (journal, settings) = (self.journal.clone(), self.settings.clone());
        self.forwarder = Some(forward::start(journal, settings, self.metrics.clone(), Arc::new(SystemClock)));
    }

    pub fn stop(&mut self) {
        self.forwarder.take().expect("it runs").stop(Duration::from_secs(20));
    }

    /// Closes the journal and opens it again, as the next process would; counters begin anew.
    pub fn reopen(&mut self) {
        assert!(self.forwarder.is_none());
        self.journal.close();
        (self.journal, self.metrics) = open(local(&self.dir));
    }

    /// How a lane fares; `None` before its first event was read.
    pub fn lane(&self, topic: &str) -> Option<TopicSnapshot> {
        let status = self.forwarder.as_ref().expect("it runs").status();
        assert!(status.running);
        status.topics.into_iter().find(|lane| lane.topic == topic)
    }

    /// The reason why a lane is blocked.
    pub fn blocked(&self, topic: &str) -> Option<&'static str> {
        self.lane(topic)?.blocked.map(|blocked| blocked.reason)
    }

    /// Changes a byte of the event whose body holds `marker`, as a disk may.
    pub fn rot(&self, marker: &str) {
        let files = std::fs::read_dir(self.dir.path()).expect("the journal's directory");
        let find = |bytes: &[u8]| bytes.windows(marker.len()).position(|window| window == marker.as_bytes());
        let hit =
            files.map(|file| file.expect("a file").path()).find_map(|path| Some((find(&std::fs::read(&path).ok()?)?, path)));
        let (at, path) = hit.expect("some segment holds the marker");
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("a segment");
        file.write_all_at(b"?", at as u64).expect("a written byte");
    }

    /// The value of the series that `series` names in full, as a scrape would see it.
    pub fn metric(&self, series: &str) -> Option<f64> {
        self.forwarder.as_ref().expect("it runs").measure();
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    pub fn wait_until_acked(&self, topic: &str, count: u64) {
        let series = format!("hookhold_forward_acked_total{{topic=\"{topic}\"}}");
        let enough = || self.metric(&series).is_some_and(|acked| acked >= count as f64);
        wait_until(&format!("{topic} has {count} acknowledgements"), enough);
    }

    /// Keeps an event; returns its sequence once it is durable.
    pub fn append(&self, event: Event) -> u64 {
        self.append_all([event].into_iter())[0]
    }

    pub fn keep(&self, topic: &str, id: &str, body: impl Into<Bytes>) -> u64 {
        self.append(Shop::new(topic).event(Some(id), Some("order.paid"), body, &[]))
    }

    /// Keeps events with random bodies of this size; returns their sequences, ascending, once all are durable.
    pub fn keep_many(&self, topic: &str, count: usize, size: usize) -> Vec<u64> {
        let (shop, mut random) = (Shop::new(topic), fastrand::Rng::with_seed(SEED));
        let body = |random: &mut fastrand::Rng| std::iter::repeat_with(|| random.u8(..)).take(size).collect::<Vec<u8>>();
        self.append_all((0..count).map(|n| shop.event(Some(&format!("evt_{n}")), Some("order.paid"), body(&mut random), &[])))
    }

    fn append_all(&self, events: impl Iterator<Item = Event>) -> Vec<u64> {
        let (tell, told) = mpsc::channel();
        for event in events {
            let tell = tell.clone();
            self.journal.append(&event, Box::new(move |end| tell.send(end).expect("we listen"))).expect("the journal has room");
        }
        drop(tell);
        let mut seqs: Vec<u64> = told.iter().map(|end| end.expect("the disk works").seq).collect();
        seqs.sort();
        seqs
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.stop(Duration::ZERO);
        }
        self.journal.close();
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory under target/")
}

fn local(dir: &tempfile::TempDir) -> Arc<dyn Disk> {
    Arc::new(LocalDisk::create(dir.path()).expect("a directory"))
}

fn open(disk: Arc<dyn Disk>) -> (Journal, Arc<Metrics>) {
    let metrics = Arc::<Metrics>::default();
    let limits = JournalLimits { segment_size: 1 << 20, ..JournalLimits::default() };
    let options = Options { limits, forwards: true, ..Options::default() };
    let journal = Journal::open(disk, options, Arc::new(SystemClock), metrics.clone()).expect("a journal");
    (journal, metrics)
}

/// A provider that signs its bodies and puts everything else into headers.
pub struct Shop(Source);

impl Shop {
    pub fn new(topic: &str) -> Shop {
        let entry = format!("topic = {topic:?}\n{RECIPE}");
        Shop(compile(&entry, &[("secret", "sesame")]).unwrap_or_else(|mistakes| panic!("{mistakes}")))
    }

    /// A verified delivery of this shop; one without an id has no content type and no time either.
    pub fn event(&self, id: Option<&str>, kind: Option<&str>, body: impl Into<Bytes>, more: &[(&str, &str)]) -> Event {
        let options = SampleOptions { id: String::new(), event_type: None, key: None, now: AT, tamper: None };
        let sample = sign(&self.0, Some(body.into()), &options);
        let mut delivery = delivery(sample.body, more);
        let signature = sample.headers["x-shop-signature"].to_str().ok();
        let facts = [("x-shop-id", id), ("x-shop-event", kind), ("x-shop-signature", signature)];
        let named = id.map(|_| [("content-type", "application/json"), ("x-shop-time", "1699999999042")]);
        for (name, value) in facts.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(named.into_iter().flatten())
        {
            delivery.headers.insert(name, value.parse().expect("a header value"));
        }
        delivery.received_at = AT;
        let believed = Verifier::new(self.0.clone()).verify(&delivery).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let Verdict::Event(verified) = believed else { panic!("no handshake is built here") };
        verified.event
    }
}

const RECIPE: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Shop-Signature" }
content = ["body"]
[event]
id = ["header:X-Shop-Id"]
type = ["header:X-Shop-Event"]
type_prefix = "com.shop."
key = ["header:X-Shop-Customer"]
time = [{ from = "header:X-Shop-Time", unit = "ms" }]
"#;
