//! Options of a journal.

use std::time::Duration;

use super::keys::{KeyLimits, MAX_RECENT_KEYS};
use crate::limits::{DedupeLimits, JournalLimits};

/// Options of a journal. All sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size limits and retention from the `[journal]` section of the configuration.
    pub limits: JournalLimits,
    /// Time for which the journal remembers a key after the arrival of its event.
    pub dedupe_window: Duration,
    /// Maximum size of all key files together.
    pub max_key_bytes: u64,
    /// Number of keys of sealed segments that may stay in memory, see [`KeyLimits::max_recent_keys`].
    pub max_recent_keys: u64,
    /// True if hookhold forwards events to Kafka. Every topic then pins its events until Kafka has acknowledged these events.
    pub forwards: bool,
}

impl Options {
    /// Returns the limits of the key index.
    pub(super) fn key_limits(&self) -> KeyLimits {
        let Options { dedupe_window: window, max_key_bytes: max_bytes, max_recent_keys, .. } = *self;
        KeyLimits { window, max_bytes, max_recent_keys }
    }
}

impl Default for Options {
    fn default() -> Options {
        let dedupe = DedupeLimits::default();
        Options {
            limits: JournalLimits::default(),
            dedupe_window: dedupe.window,
            max_key_bytes: dedupe.max_disk,
            max_recent_keys: MAX_RECENT_KEYS,
            forwards: false,
        }
    }
}
