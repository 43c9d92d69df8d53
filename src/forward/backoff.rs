//! Computes pauses with exponential backoff and jitter, for any number of attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Sequence of pauses between attempts. Without jitter, each pause is twice as long as the previous pause, but at most
/// `longest`.
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Creates a sequence of pauses from `first` up to `longest` (both without jitter).
    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, pauses: pauses(first, longest) }
    }

    /// Returns the length of the next pause, with jitter.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.pauses.next().expect("the builder sets no maximum number of pauses")
    }

    /// Restarts the sequence of pauses at the first pause.
    pub(super) fn reset(&mut self) {
        self.pauses = pauses(self.first, self.longest);
    }
}

fn pauses(first: Duration, longest: Duration) -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest).without_max_times();
    builder.with_jitter().with_jitter_seed(fastrand::u64(..)).build()
}
