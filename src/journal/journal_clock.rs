//! The journal's clock, which never runs backwards and does not follow a jump of the wall clock. While the journal is open, the
//! clock advances with the uptime of the machine. Every commit records the time of both clocks. At the next opening, the
//! journal's clock continues at the time of the last commit, plus the progress of the wall clock since then.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, UnixMillis};

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

/// The clock of an open journal.
pub(super) struct JournalClock {
    clock: Arc<dyn Clock>,
    /// Time of the journal's clock when the machine started.
    origin: u64,
}

impl JournalClock {
    /// Starts the clock after the last commit of the journal; `None` starts the clock of a new journal.
    pub(super) fn continue_after(last: Option<CommitTimes>, clock: Arc<dyn Clock>) -> JournalClock {
        let (wall, uptime) = (clock.now(), clock.uptime());
        let now = match last {
            Some(last) => last.journal.0 + wall.since(last.wall).min(MAX_CLOSED_MS),
            None => wall.0,
        };
        // The uptime may exceed the time of the wall clock on a machine without a battery.
        JournalClock { clock, origin: now.wrapping_sub(uptime.as_millis() as u64) }
    }

    /// Returns the current time of the journal's clock.
    pub(super) fn now(&self) -> JournalMillis {
        JournalMillis(self.origin.wrapping_add(self.clock.uptime().as_millis() as u64))
    }

    /// Returns the current times of both clocks.
    pub(super) fn times(&self) -> CommitTimes {
        CommitTimes { journal: self.now(), wall: self.clock.now() }
    }
}

/// Maximum progress of the journal's clock in milliseconds while the journal is closed, so that a wall clock that is wrong at
/// startup does not expire all keys.
const MAX_CLOSED_MS: u64 = 24 * 60 * 60 * 1000;
