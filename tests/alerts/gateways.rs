//! The gateways of the tests, and deliveries to them.

use std::sync::Arc;

use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::source::Source;
use hookhold::verify::sign::{Sample, SampleOptions, Tamper, sign};

use crate::fixture;
use crate::kafka::Kafka;
use crate::load::{Ledger, Load, Order};
use crate::process::{Home, Line, post};

/// Creates a `Home` with one source for each pair of a source's name and its topic.
pub fn home(sources: &[(&str, &str)], kafka: Option<&Kafka>, first: &str) -> Home {
    Home::new(&[("secret", SECRET)], &(first.to_owned() + &config(sources, kafka)))
}

/// Returns a configuration with these sources. hookhold notices a missing topic sooner than by default.
pub fn config(sources: &[(&str, &str)], kafka: Option<&Kafka>) -> String {
    let text = fixture::config(sources, kafka.map(Kafka::bootstrap).as_deref());
    text.replace("[kafka]\n", "[kafka]\n\"topic.metadata.propagation.max.ms\" = 1000\nreconnect.backoff.max.ms = 500\n")
}

/// Starts a load of `rate` deliveries per second to a source.
pub fn load(home: &Home, source: &str, rate: u32) -> Load {
    let order = Order { connections: 4, duplicate_percent: 0, rate: Some(rate), ..fixture::order(home, source) };
    Load::start(order, Ledger::new(source))
}

/// Sends deliveries to one source. Each has an id of its own.
pub struct Sender<'a> {
    home: &'a Home,
    source: Arc<Source>,
    sent: usize,
}

impl Sender<'_> {
    pub fn new<'a>(home: &'a Home, source: &str) -> Sender<'a> {
        Sender { home, source: fixture::source(home, source), sent: 0 }
    }

    /// Sends genuine deliveries, and asserts that hookhold accepts them.
    pub fn send(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.deliver(None, SystemClock.now()), 200, "{}", self.home.log());
        }
    }

    /// Sends deliveries that were changed after they had been signed, and asserts that hookhold rejects them.
    pub fn forge(&mut self, count: usize) {
        (0..count).for_each(|_| assert_eq!(self.deliver(Some(Tamper::Body), SystemClock.now()), 401));
    }

    /// Sends deliveries with a genuine signature that is an hour old, and asserts that hookhold rejects them.
    pub fn send_stale(&mut self, count: usize) {
        let before = UnixMillis(SystemClock.now().0 - 60 * 60 * 1000);
        (0..count).for_each(|_| assert_eq!(self.deliver(None, before), 401));
    }

    /// Sends a genuine delivery with this id and body, and with these further header fields.
    pub fn send_body(&mut self, id: &str, body: &[u8], fields: &[(&str, &str)]) {
        let sample = self.sample(id, Some(Bytes::copy_from_slice(body)), None, SystemClock.now());
        assert_eq!(self.post(&sample, fields), 200);
    }

    fn deliver(&mut self, tamper: Option<Tamper>, now: UnixMillis) -> u16 {
        self.sent += 1;
        let sample = self.sample(&format!("evt_{}_{}", self.source.name, self.sent), None, tamper, now);
        self.post(&sample, &[])
    }

    fn sample(&self, id: &str, body: Option<Bytes>, tamper: Option<Tamper>, now: UnixMillis) -> Sample {
        let options = SampleOptions { id: id.to_owned(), event_type: None, key: None, now, tamper };
        sign(&self.source, body, &options).expect("the source has a secret")
    }

    fn post(&self, sample: &Sample, fields: &[(&str, &str)]) -> u16 {
        let signed = sample.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let headers: Vec<(String, String)> = signed.chain(fields).collect();
        Line::open(self.home.hooks).ask(&post(&sample.target, &headers, &sample.body)).status
    }
}

/// Secret of every source.
pub const SECRET: &str = "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0";
