//! Options of a journal.

use std::time::Duration;

use crate::limits::{DedupeLimits, JournalLimits};

/// Options of a journal. All sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes and retention, from section `[journal]`.
    pub limits: JournalLimits,
    /// Time for which a key is remembered after its first event.
    pub dedupe_window: Duration,
    /// Maximum size of all key files together.
    pub max_key_bytes: u64,
    /// True if events are forwarded to Kafka. Every topic then pins its events until Kafka has acknowledged these events.
    pub forwards: bool,
}

impl Default for Options {
    fn default() -> Options {
        let dedupe = DedupeLimits::default();
        Options {
            limits: JournalLimits::default(),
            dedupe_window: dedupe.window,
            max_key_bytes: dedupe.max_disk,
            forwards: false,
        }
    }
}
