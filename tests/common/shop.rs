//! Extends the test harness for the forwarder tests: adds a Kafka configuration, methods that control the forwarder, and the
//! fictional provider `shop`. The tests store deliveries of this provider.

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use hookhold::admin::AdminQueries;
use hookhold::clock::UnixMillis;
use hookhold::config::{Config, KafkaConfig};
use hookhold::event::Event;
use hookhold::forward::TopicSnapshot;
use hookhold::limits::JournalLimits;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, sign};
use hookhold::verify::{Verdict, Verifier};
use http::HeaderName;

use crate::disk::SimDisk;
use crate::harness::{self, Harness, TestClock};
use crate::kafka::wait_until;
use crate::support::{NOW, compile, delivery};

/// Arrival time of every delivery of the shop, in Unix milliseconds.
pub const AT: UnixMillis = UnixMillis(NOW * 1000);

/// Seed of the random bodies in [`Harness::store_many`].
pub const SEED: u64 = 7;

/// Returns a configuration with these librdkafka properties and limits of the journal.
pub fn config(properties: &[(&str, &str)], limits: JournalLimits) -> Config {
    // The test runner shows the log only when a test fails.
    let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::INFO).try_init();
    let headers = ["x-shop-id", "authorization", "cookie"].map(HeaderName::from_static).to_vec();
    let shop = Source { header_allow_list: headers, ..Shop::new("unused").0 };
    let mut config = harness::config(vec![shop]);
    config.journal.limits = JournalLimits { segment_size: 1 << 20, ..limits };
    let quick = [("topic.metadata.propagation.max.ms", "1000"), ("reconnect.backoff.max.ms", "500")];
    let properties = quick.iter().chain(properties).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config.kafka = Some(KafkaConfig { librdkafka: properties.collect(), ..KafkaConfig::default() });
    config
}

impl Harness {
    /// Opens a journal and configures a forwarder for the brokers in `bootstrap`. [`Harness::resume`] starts the forwarder.
    pub fn new(bootstrap: String) -> Harness {
        Harness::with_kafka(&[("bootstrap.servers", &bootstrap)])
    }

    /// Opens a journal and configures a forwarder with these librdkafka properties.
    pub fn with_kafka(properties: &[(&str, &str)]) -> Harness {
        Harness::with_limits(properties, JournalLimits::default())
    }

    /// Like [`Harness::with_kafka`], but with other limits of the journal.
    pub fn with_limits(properties: &[(&str, &str)], limits: JournalLimits) -> Harness {
        Harness::build(config(properties, limits), SimDisk::default(), TestClock::System)
    }

    /// Starts the forwarder of this harness and returns the harness.
    pub fn start(self) -> Harness {
        self.resume();
        self
    }

    /// Starts the forwarder.
    pub fn resume(&self) {
        assert!(self.service.forwarding().is_none());
        self.service.start_forwarding().expect("a thread can be started");
    }

    /// Stops the forwarder and leaves the journal open.
    pub fn stop(&self) {
        assert!(self.service.forwarding().is_some());
        self.service.stop_forwarding(Duration::from_secs(20));
    }

    /// Returns the state of a topic, or `None` before the forwarder has read the first event of the topic.
    pub fn topic(&self, topic: &str) -> Option<TopicSnapshot> {
        let status = self.service.forwarding().expect("the forwarder runs");
        assert!(status.running);
        status.topics.into_iter().find(|status| status.topic == topic)
    }

    /// Returns the name of the reason why a topic is blocked, or `None` if the topic is not blocked.
    pub fn blocked(&self, topic: &str) -> Option<&'static str> {
        self.topic(topic)?.blocked.map(|blocked| blocked.reason)
    }

    /// Waits until a topic is blocked for the reason `reason`.
    pub fn wait_until_blocked(&self, topic: &str, reason: &str) {
        wait_until(&format!("{topic} is blocked: {reason}"), || self.blocked(topic) == Some(reason));
    }

    /// Changes one byte in the stored frame of the event whose body contains `marker`, as a failing disk does.
    pub fn corrupt(&self, marker: &str) {
        let find = |bytes: &[u8]| bytes.windows(marker.len()).position(|window| window == marker.as_bytes());
        let segments = self.disk.names(".seg").into_iter();
        let hit = segments.filter_map(|name| Some((find(&self.disk.bytes(&name))?, name))).next();
        let (at, segment) = hit.expect("a segment contains the marker");
        self.disk.corrupt(&segment, at..at + 1, |_| b'?');
    }

    /// Refreshes the metrics as a Prometheus scrape does, then returns the value of the time series `series`, or `None` if the
    /// series does not exist.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.service.render_metrics();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Waits until Kafka has acknowledged `count` events of a topic.
    pub fn wait_until_acked(&self, topic: &str, count: u64) {
        let series = format!("hookhold_forward_acked_total{{topic=\"{topic}\"}}");
        let enough = || self.metric(&series).is_some_and(|acked| acked >= count as f64);
        wait_until(&format!("{topic} has {count} acknowledgements"), enough);
    }

    /// Appends an event to the journal, waits until the event is durable and returns the sequence of the event.
    pub fn append(&self, event: Event) -> u64 {
        self.append_all([event].into_iter())[0]
    }

    /// Appends the event of one shop delivery to the journal, waits until the event is durable and returns the sequence
    /// of the event.
    pub fn store(&self, topic: &str, id: &str, body: impl Into<Bytes>) -> u64 {
        self.append(Shop::new(topic).event(Some(id), Some("order.paid"), body, &[]))
    }

    /// Appends `count` events with random bodies of `size` bytes, waits until all events are durable and returns the
    /// sequences of the events in ascending order.
    pub fn store_many(&self, topic: &str, count: usize, size: usize) -> Vec<u64> {
        let (shop, mut random) = (Shop::new(topic), fastrand::Rng::with_seed(SEED));
        let body = |random: &mut fastrand::Rng| std::iter::repeat_with(|| random.u8(..)).take(size).collect::<Vec<u8>>();
        self.append_all((0..count).map(|n| shop.event(Some(&format!("evt_{n}")), Some("order.paid"), body(&mut random), &[])))
    }

    fn append_all(&self, events: impl Iterator<Item = Event>) -> Vec<u64> {
        let (done, completions) = mpsc::channel();
        for event in events {
            let done = done.clone();
            self.journal
                .append(&event, Box::new(move |result| done.send(result).expect("the test receives")))
                .expect("the journal has room");
        }
        drop(done);
        let mut seqs: Vec<u64> = completions.iter().map(|result| result.expect("the disk works").seq).collect();
        seqs.sort();
        seqs
    }
}

/// A fictional provider that signs only the body of a delivery and sends the id, the event type and the signature in
/// headers.
pub struct Shop(Source);

impl Shop {
    pub fn new(topic: &str) -> Shop {
        let entry = format!("topic = {topic:?}\n{RECIPE}");
        Shop(compile(&entry, &[("secret", "sesame")]).unwrap_or_else(|diagnostics| panic!("{diagnostics}")))
    }

    /// Signs a delivery, verifies it as the gateway does, and returns the resulting event. If `id` is `None`, the delivery has
    /// no id, no content type and no event time.
    pub fn event(&self, id: Option<&str>, kind: Option<&str>, body: impl Into<Bytes>, more: &[(&str, &str)]) -> Event {
        let options = SampleOptions { id: String::new(), event_type: None, key: None, now: AT, tamper: None };
        let sample = sign(&self.0, Some(body.into()), &options).expect("the source has a secret");
        let mut delivery = delivery(sample.body, more);
        let signature = sample.headers["x-shop-signature"].to_str().ok();
        let fields = [("x-shop-id", id), ("x-shop-event", kind), ("x-shop-signature", signature)];
        let named = id.map(|_| [("content-type", "application/json"), ("x-shop-time", "1699999999042")]);
        for (name, value) in
            fields.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(named.into_iter().flatten())
        {
            delivery.headers.insert(name, value.parse().expect("a header value"));
        }
        delivery.received_at = AT;
        let verdict = Verifier::new(self.0.clone()).verify(&delivery).unwrap_or_else(|rejection| panic!("{rejection:?}"));
        let Verdict::Event(verified) = verdict else { panic!("the recipe has no challenge") };
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
