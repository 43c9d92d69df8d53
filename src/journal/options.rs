//! Options.

use std::time::Duration;

use crate::limits::{DedupeLimits, JournalLimits};

/// How a journal is kept. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes and retention, as in `[journal]`.
    pub limits: JournalLimits,
    /// Keys are remembered this long after their first event.
    pub dedupe_window: Duration,
    /// All key files together may occupy this much.
    pub max_key_bytes: u64,
    /// True when events are passed on to Kafka: every lane then pins its events until they are acknowledged.
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
