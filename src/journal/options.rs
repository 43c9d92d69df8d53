//! Options.

use std::time::Duration;

/// How a journal is kept. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// All segments together may occupy this much.
    pub max_size: u64,
    /// What is passed on is kept this long for replay.
    pub retain: Duration,
    /// One segment; an event that does not fit gets a segment of its own.
    pub segment_size: u64,
    /// What one lane may hold back, with everything that lies in the segments that it holds.
    pub max_backlog: u64,
    /// Keys are remembered this long after their first event.
    pub dedupe_window: Duration,
    /// All key files together may occupy this much.
    pub max_key_bytes: u64,
    /// True when events are passed on to Kafka: every lane then pins its events until they are acknowledged.
    pub forwards: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_size: 20 << 30,
            retain: Duration::from_secs(3 * 24 * 3600),
            segment_size: 64 << 20,
            max_backlog: 10 << 30,
            dedupe_window: Duration::from_secs(7 * 24 * 3600),
            max_key_bytes: 10 << 30,
            forwards: false,
        }
    }
}
