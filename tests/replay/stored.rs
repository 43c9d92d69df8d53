//! Stores genuine events in the journal of a [`Home`], without a gateway. The verifier constructs each event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use hookhold::clock::{SystemClock, UnixMillis};
use hookhold::event::Event;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Journal, Options};
use hookhold::limits::JournalLimits;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, sign};
use hookhold::verify::{Verdict, Verifier};

use crate::fixture;
use crate::process::Home;

/// The values that a test chooses for an event.
pub struct Stored {
    pub source: &'static str,
    pub id: String,
    pub kind: &'static str,
    /// Ordering key of the event.
    pub customer: String,
    /// Time of receipt, in Unix milliseconds.
    pub at: u64,
    note: usize,
}

impl Stored {
    /// Creates the values of event number `n`. Every seventh event has the same key, and the times are one second apart.
    pub fn new(source: &'static str, n: usize) -> Stored {
        let (id, customer) = (format!("evt_{n}"), format!("cus_{}", n % 7));
        Stored { source, id, kind: "invoice.paid", customer, at: FIRST_AT + 1000 * n as u64, note: 10 }
    }

    pub fn of_type(self, kind: &'static str) -> Stored {
        Stored { kind, ..self }
    }

    /// Makes the body longer by this number of bytes, which do not shrink when they are compressed.
    pub fn with_note(self, note: usize) -> Stored {
        Stored { note, ..self }
    }

    pub fn body(&self) -> String {
        let mut random = fastrand::Rng::with_seed(self.at);
        let note: String = std::iter::repeat_with(|| random.alphanumeric()).take(self.note).collect();
        let Stored { id, kind, customer, .. } = self;
        format!(
            r#"{{"id":"{id}","type":"{kind}","created":1700000000,"data":{{"object":{{"id":"{customer}","note":"{note}"}}}}}}"#
        )
    }

    fn event(&self, source: &Source, verifier: &Verifier) -> Event {
        let now = UnixMillis(self.at);
        let options = SampleOptions { id: self.id.clone(), event_type: None, key: None, now, tamper: None };
        let signed = sign(source, Some(Bytes::from(self.body())), &options).expect("the source has a secret");
        let delivery = signed.into_delivery(([192, 0, 2, 1], 443).into(), now);
        let verdict = verifier.verify(&delivery).unwrap_or_else(|rejection| panic!("{rejection:?}"));
        let Verdict::Event(verified) = verdict else { panic!("the delivery is not a challenge") };
        verified.event
    }
}

/// A journal that is open for writing.
pub struct StoredWriter {
    journal: Journal,
    sources: BTreeMap<String, (Arc<Source>, Verifier)>,
}

impl StoredWriter {
    /// Opens the journal of `home`, or creates it.
    pub fn open(home: &Home) -> StoredWriter {
        StoredWriter::with_limits(home, JournalLimits { segment_size: 8 << 20, ..JournalLimits::default() })
    }

    /// Like [`StoredWriter::open`], but the journal deletes its oldest events soon.
    pub fn open_small(home: &Home) -> StoredWriter {
        let limits = JournalLimits { segment_size: 256 << 10, max_size: 2 << 20, ..JournalLimits::default() };
        StoredWriter::with_limits(home, limits)
    }

    fn with_limits(home: &Home, limits: JournalLimits) -> StoredWriter {
        let disk = LocalDisk::create(&home.journal()).expect("target/ can be written to");
        let options = Options { limits, ..Options::default() };
        let journal = Journal::open(Arc::new(disk), options, Arc::new(SystemClock), Arc::default())
            .expect("no other process has the journal open");
        let sources = fixture::sources(home).into_iter();
        let verifiable = sources.map(|source| (source.name.to_string(), (source.clone(), Verifier::new((*source).clone()))));
        StoredWriter { journal, sources: verifiable.collect() }
    }

    /// Stores the events, and waits until they are durable.
    pub fn append(&self, events: &[Stored]) -> &StoredWriter {
        self.append_each(events.iter())
    }

    /// Like [`StoredWriter::append`], for events that need not be in memory at the same time.
    pub fn append_all(&self, events: impl Iterator<Item = Stored>) -> &StoredWriter {
        self.append_each(events)
    }

    fn append_each<E: std::borrow::Borrow<Stored>>(&self, events: impl Iterator<Item = E>) -> &StoredWriter {
        let (done, completions) = mpsc::channel();
        let mut count = 0;
        for stored in events {
            let stored = stored.borrow();
            let (source, verifier) = &self.sources[stored.source];
            let done = done.clone();
            let completion = Box::new(move |result| done.send(result).expect("the test receives"));
            self.journal.append(&stored.event(source, verifier), completion).expect("the journal has room");
            count += 1;
            if count % MAX_WAITING == 0 {
                completions.iter().take(MAX_WAITING).for_each(|result| assert!(result.is_ok(), "the disk works"));
            }
        }
        drop(done);
        completions.iter().for_each(|result| assert!(result.is_ok(), "the disk works"));
        self
    }

    pub fn close(&self) {
        self.journal.close();
    }
}

/// Time of receipt of event number 0.
const FIRST_AT: u64 = 1_795_176_000_000;
/// Number of events that the writer accepts before the test waits for their commits.
const MAX_WAITING: usize = 500;
