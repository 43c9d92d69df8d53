//! The journal's clock, which never runs backwards and does not follow a jump of the wall clock. While the journal is open, the
//! clock advances with the uptime of the machine. Every commit records the time of both clocks. At the next opening, the
//! journal's clock continues at the time of the last commit, plus the progress of the wall clock since then.
//!
//! The clock also detects jumps of the wall clock. A jump has no effect on this clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;

use super::Journal;
use super::journal_time::{CommitTimes, JournalMillis};
use super::planted::is_planted;
use super::wall_offsets::{ClockJump, WallOffsets};
use crate::clock::{Clock, UnixMillis};
use crate::metrics::JournalMetrics;

/// The clock of an open journal.
pub(super) struct JournalClock {
    clock: Arc<dyn Clock>,
    /// Time of the journal's clock when the machine started.
    origin: u64,
    wall_offsets: Mutex<WallOffsets>,
    jumps: IntCounter,
}

impl Journal {
    /// Returns the current time of the journal's clock, on which the first-seen times of keys count.
    pub fn now(&self) -> JournalMillis {
        self.0.time.now()
    }

    /// Returns the time at or before which a key must have been first seen to be older than `window`, by the journal's clock or by
    /// the wall clock.
    pub fn before_either_clock(&self, window: Duration) -> JournalMillis {
        self.0.time.before_either(window)
    }

    /// Returns the time that the wall clock would show without its last jump; `None` unless the wall clock has jumped by more than
    /// five minutes within [`DISAGREEMENT`]. During this time, hookhold cannot tell which clock is right.
    pub fn wall_time_without_jump(&self) -> Option<UnixMillis> {
        self.0.time.wall_without_jump()
    }
}

impl JournalClock {
    /// Starts the clock after the last commit of the journal; `None` starts the clock of a new journal. `wall_offsets`
    /// contains the offsets of the journal's commits. Counts the jumps of the wall clock in `metrics`.
    pub(super) fn continue_after(
        last: Option<CommitTimes>,
        wall_offsets: &WallOffsets,
        clock: &Arc<dyn Clock>,
        metrics: &JournalMetrics,
    ) -> JournalClock {
        let mut wall_offsets = wall_offsets.clone();
        let (wall, uptime) = (clock.now(), clock.uptime());
        let now = match last {
            Some(last) => last.journal.0.saturating_add(wall.since(last.wall).min(MAX_CLOSED_MS)),
            None => wall.0,
        };
        let times = CommitTimes { journal: JournalMillis(now), wall };
        let jump = wall_offsets.observe_opening(times);
        // The uptime may exceed the time of the wall clock on a machine without a battery.
        let origin = now.wrapping_sub(uptime.as_millis() as u64);
        let clock = JournalClock {
            clock: clock.clone(),
            origin,
            wall_offsets: Mutex::new(wall_offsets),
            jumps: metrics.clock_jumps.clone(),
        };
        jump.iter().for_each(|jump| clock.report(jump, times));
        clock
    }

    /// Returns the clock of the machine.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Returns the current time of the journal's clock.
    pub(super) fn now(&self) -> JournalMillis {
        if is_planted("wall-clock expiry") {
            return JournalMillis(self.clock.now().0);
        }
        JournalMillis(self.origin.wrapping_add(self.clock.uptime().as_millis() as u64))
    }

    /// Returns the uptime of the machine at a time of this clock.
    pub(super) fn uptime_at(&self, time: JournalMillis) -> Duration {
        Duration::from_millis(time.0.wrapping_sub(self.origin))
    }

    /// Returns the current times of both clocks. Logs and counts a jump of the wall clock.
    pub(super) fn times(&self) -> CommitTimes {
        let times = CommitTimes { journal: self.now(), wall: self.clock.now() };
        let jump = self.lock().observe(times);
        jump.iter().for_each(|jump| self.report(jump, times));
        times
    }

    /// Returns the time that the wall clock would show without its last jump; `None` unless the wall clock has jumped within
    /// [`DISAGREEMENT`].
    pub(super) fn wall_without_jump(&self) -> Option<UnixMillis> {
        let now = self.times().journal;
        let jump = self.lock().last_jump().filter(|jump| now.before(DISAGREEMENT) < jump.at)?;
        Some(jump.wall_without_jump(now))
    }

    /// Does the work of [`Journal::before_either_clock`].
    pub(super) fn before_either(&self, window: Duration) -> JournalMillis {
        let now = self.times();
        self.lock().before_either(now, window)
    }

    fn report(&self, jump: &ClockJump, times: CommitTimes) {
        self.jumps.inc();
        let (from, to) = (jump.wall_without_jump(times.journal).rfc3339(), times.wall.rfc3339());
        tracing::warn!(
            from,
            to,
            "the wall clock has jumped; hookhold deletes no event and no key because of this; compare this machine's clock with \
             a time server"
        );
    }

    fn lock(&self) -> MutexGuard<'_, WallOffsets> {
        self.wall_offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time after a jump during which hookhold cannot tell which clock is right. Most jumps are corrected within this time.
pub const DISAGREEMENT: Duration = Duration::from_secs(10 * 60);
/// Maximum progress of the journal's clock in milliseconds while the journal is closed, so that a wall clock that is wrong at
/// startup does not expire all keys.
const MAX_CLOSED_MS: u64 = 24 * 60 * 60 * 1000;
