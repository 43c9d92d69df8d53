//! The differences between the wall clock and the journal's clock, by the time of the journal's clock. The difference changes
//! only when an operator or a time service sets the wall clock, so the list is short.

use std::collections::VecDeque;
use std::time::Duration;

use super::journal_time::{CommitTimes, JournalMillis};
use crate::clock::UnixMillis;

/// The last offsets of the wall clock, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct WallOffsets(VecDeque<WallOffset>);

/// Difference between the wall clock and the journal's clock from one time on.
#[derive(Clone, Copy, Debug)]
struct WallOffset {
    /// Time of the journal's clock at which this difference was first observed.
    since: JournalMillis,
    /// Time of the wall clock minus time of the journal's clock, in milliseconds.
    offset_ms: i128,
    /// The previous difference if a jump of the wall clock has changed it, otherwise `None`.
    jumped_from_ms: Option<i128>,
}

/// A jump of the wall clock by more than [`JUMP_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockJump {
    /// Time of the journal's clock at which the jump was first observed.
    pub(super) at: JournalMillis,
    /// Time of the wall clock minus time of the journal's clock before the jump, in milliseconds.
    previous_offset_ms: i128,
}

impl ClockJump {
    /// Returns the time that the wall clock would show without the jump. `now` is the current time of the journal's clock.
    pub(super) fn wall_without_jump(&self, now: JournalMillis) -> UnixMillis {
        UnixMillis((i128::from(now.0) + self.previous_offset_ms).clamp(0, i128::from(u64::MAX)) as u64)
    }
}

impl WallOffsets {
    /// Adds an observation of both clocks. Returns the jump of the wall clock since the previous observation; `None` if it has not
    /// jumped.
    pub(super) fn observe(&mut self, times: CommitTimes) -> Option<ClockJump> {
        self.add(times.journal, offset(times), |change| change.unsigned_abs() > u128::from(JUMP_MS))
    }

    /// Adds the first observation after a time in which the journal was closed. The journal's clock does not know the length of
    /// this time, so only a wall clock that has gone back has certainly jumped.
    pub(super) fn observe_opening(&mut self, times: CommitTimes) -> Option<ClockJump> {
        self.add(times.journal, offset(times), |change| change < -i128::from(JUMP_MS))
    }

    /// Adds the observations in a later segment. The journal may have been closed between the two segments.
    pub(super) fn extend(&mut self, later: &WallOffsets) {
        for (index, offset) in later.0.iter().enumerate() {
            let has_gone_back = |change: i128| change < -i128::from(JUMP_MS);
            let is_jump = |change| if index == 0 { has_gone_back(change) } else { offset.jumped_from_ms.is_some() };
            self.add(offset.since, offset.offset_ms, is_jump);
        }
    }

    /// Returns the last jump; `None` if the wall clock has not jumped.
    pub(super) fn last_jump(&self) -> Option<ClockJump> {
        self.0.iter().rev().find_map(WallOffset::jump)
    }

    fn add(&mut self, since: JournalMillis, offset_ms: i128, is_jump: impl Fn(i128) -> bool) -> Option<ClockJump> {
        let previous = self.0.back().map(|last| last.offset_ms);
        if previous.is_some_and(|previous| previous.abs_diff(offset_ms) <= TOLERANCE_MS) {
            return None;
        }
        if self.0.len() == MAX_OFFSETS {
            self.0.pop_front();
        }
        let added = WallOffset { since, offset_ms, jumped_from_ms: previous.filter(|previous| is_jump(offset_ms - previous)) };
        self.0.push_back(added);
        added.jump()
    }

    /// Returns the time of the journal's clock at which a window that ends now began. If the two clocks disagree, returns the later
    /// of the two times. `now` is the current time of both clocks.
    pub(super) fn before_either(&self, now: CommitTimes, window: Duration) -> JournalMillis {
        let window_ms = window.as_millis().min(u128::from(u64::MAX)) as i128;
        // The offset before the first observation is unknown. The first observed offset is the best guess.
        let starts = self.0.iter().map(|offset| i128::from(offset.since.0)).skip(1);
        let ranges = self.0.iter().zip(starts.map(Some).chain([None])).enumerate();
        let by_wall = ranges.filter_map(|(index, (WallOffset { since, offset_ms, .. }, next))| {
            let limit = i128::from(now.wall.0) - window_ms - offset_ms;
            let limit = next.map_or(limit, |next| limit.min(next - 1));
            (index == 0 || limit >= i128::from(since.0)).then_some(limit)
        });
        let latest = by_wall.max().unwrap_or(0).clamp(0, i128::from(now.journal.0)) as u64;
        now.journal.before(window).max(JournalMillis(latest))
    }
}

impl WallOffset {
    fn jump(&self) -> Option<ClockJump> {
        self.jumped_from_ms.map(|previous_offset_ms| ClockJump { at: self.since, previous_offset_ms })
    }
}

/// Returns the time of the wall clock minus the time of the journal's clock, in milliseconds.
fn offset(times: CommitTimes) -> i128 {
    i128::from(times.wall.0) - i128::from(times.journal.0)
}

/// Maximum number of offsets. If the wall clock is set more often, hookhold forgets the oldest offsets.
const MAX_OFFSETS: usize = 64;
/// Maximum difference of two offsets that count as the same, in milliseconds. A thread may be interrupted for so long between
/// its reads of the two clocks.
const TOLERANCE_MS: u128 = 1000;
/// Change of the wall clock that counts as a jump, in milliseconds. A smaller change is usual after a start, when the machine
/// sets its clock from the network.
const JUMP_MS: u64 = 5 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn times(journal: u64, wall: u64) -> CommitTimes {
        CommitTimes { journal: JournalMillis(journal), wall: UnixMillis(wall) }
    }

    fn offsets(observed: &[(u64, u64)]) -> WallOffsets {
        let mut offsets = WallOffsets::default();
        for (journal, wall) in observed {
            offsets.observe(times(*journal, *wall));
        }
        offsets
    }

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn a_window_ends_by_the_journals_clock_if_the_wall_clock_goes_back() {
        let offsets = offsets(&[(100_000, 100_000), (110_000, 5_000)]);
        assert_eq!(offsets.before_either(times(150_000, 45_000), WINDOW), JournalMillis(90_000));
        assert_eq!(offsets.before_either(times(200_000, 95_000), WINDOW), JournalMillis(140_000));
    }

    #[test]
    fn a_window_ends_by_the_wall_clock_if_it_is_further_on() {
        let offsets = offsets(&[(100_000, 100_000), (110_000, 160_000)]);
        let start = offsets.before_either(times(120_000, 170_000), WINDOW);
        assert_eq!(start, JournalMillis(109_999), "a key from before the jump is more than 60 s old on the wall clock");
        let start = offsets.before_either(times(110_000, 160_000), WINDOW + Duration::from_secs(1));
        assert_eq!(start, JournalMillis(99_000), "this key is 61 s old on the wall clock");
    }

    #[test]
    fn the_number_of_offsets_is_limited() {
        let mut offsets = WallOffsets::default();
        for step in 0..1000 {
            offsets.observe(times(step, step * 2_000));
        }
        assert_eq!(offsets.0.len(), MAX_OFFSETS);
        let mut all = offsets.clone();
        all.extend(&offsets);
        assert_eq!(all.0.len(), MAX_OFFSETS);
        assert_eq!(all.before_either(times(2_000, 0), WINDOW), JournalMillis(0));
    }

    #[test]
    fn an_interruption_between_two_reads_is_no_jump() {
        let mut offsets = offsets(&[(0, 50_000)]);
        offsets.observe(times(10_000, 60_900));
        assert_eq!(offsets.0.len(), 1);
        offsets.observe(times(20_000, 71_100));
        assert_eq!((offsets.0.len(), offsets.last_jump()), (2, None), "a step of a second is no jump, either");
    }

    #[test]
    fn only_a_clock_that_goes_back_has_jumped_while_the_journal_was_closed() {
        let first = offsets(&[(1_000, 1_000_000)]);
        let later = |journal, wall| {
            let mut both = first.clone();
            both.extend(&offsets(&[(journal, wall)]));
            both.last_jump()
        };
        assert_eq!(later(2_000, 9_000_000), None, "the machine may have been off");
        let jump = later(2_000, 500_000).expect("the clock has gone back");
        assert_eq!(jump.wall_without_jump(JournalMillis(3_000)), UnixMillis(1_002_000));
        let mut both = first.clone();
        both.extend(&offsets(&[(2_000, 9_000_000), (3_000, 19_000_000)]));
        assert_eq!(both.last_jump().map(|jump| jump.at), Some(JournalMillis(3_000)), "a jump while the journal was open");
    }
}
