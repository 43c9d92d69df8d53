//! Exponential pauses between attempts, with jitter, that never run out.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses that double from the first to the longest, before jitter.
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Starts with the first pause.
    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, pauses: pauses(first, longest) }
    }

    /// Returns the next pause.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.pauses.next().expect("built without a maximum number of pauses")
    }

    /// Starts again with the first pause.
    pub(super) fn reset(&mut self) {
        self.pauses = pauses(self.first, self.longest);
    }
}

fn pauses(first: Duration, longest: Duration) -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest).without_max_times();
    builder.with_jitter().with_jitter_seed(fastrand::u64(..)).build()
}
