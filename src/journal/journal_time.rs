//! Times of the journal's clock, on which the ages of events and keys count.

use std::time::Duration;

use crate::clock::UnixMillis;

/// Milliseconds on the journal's clock. In a new journal, the clock starts at the time of the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalMillis(pub u64);

impl JournalMillis {
    /// Returns the time that is `duration` earlier, or 0 if the clock has not run for so long.
    pub fn before(self, duration: Duration) -> JournalMillis {
        JournalMillis(self.0.saturating_sub(duration.as_millis().min(u128::from(u64::MAX)) as u64))
    }
}

/// Times of the journal's clock and of the wall clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommitTimes {
    pub(super) journal: JournalMillis,
    pub(super) wall: UnixMillis,
}
