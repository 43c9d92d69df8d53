//! Finds the segments that may contain the events of a period, so that a search by time does not read the others.
//!
//! The summary of a segment records only the time of the journal's clock, while an event records the wall clock's. So this module
//! reads the times of the first commit of each segment. Between two first commits, the wall clock has advanced like the journal's
//! clock, unless it has jumped. A jump may have been at any moment between them, so the bounds of a segment allow for both.

use std::io;
use std::ops::Range;

use super::disk::Disk;
use super::frame::{self, FrameKind, PAGE};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::journal_time::CommitTimes;
use super::scanned_frame::UNKNOWN_TIMES;
use super::segment_file::{self, SEGMENT_HEADER_LEN};
use super::segment_name::SegmentName;
use crate::clock::UnixMillis;

/// Bounds of the times at which the events of a segment were received, in Unix milliseconds. Both are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReceiveTimes {
    earliest: u64,
    latest: u64,
}

/// Returns the sequences of the segments that may contain events received in this period, from the first such segment to the last
/// one. The end is `u64::MAX` if the newest segment is among them.
pub(super) fn sequences(disk: &dyn Disk, since: Option<UnixMillis>, until: Option<UnixMillis>) -> io::Result<Range<u64>> {
    if since.is_none() && until.is_none() {
        return Ok(0..u64::MAX);
    }
    let segments: Vec<(u64, Option<CommitTimes>)> = segment_file::list(disk)?
        .into_iter()
        .map(|(name, size)| (name.first_seq, first_commit(disk, name, size).ok().flatten()))
        .collect();
    Ok(overlapping(&segments, since.map_or(0, |since| since.0), until.map_or(u64::MAX, |until| until.0)))
}

/// Returns the times of the first commit of a segment; `None` if the commit is damaged or has never been written.
fn first_commit(disk: &dyn Disk, name: SegmentName, size: u64) -> io::Result<Option<CommitTimes>> {
    let file = disk.open(&name.segment_file())?;
    let start = size.min(SEGMENT_HEADER_LEN + PAGE);
    let mut scanner = FrameScanner::new(file, name.id, SEGMENT_HEADER_LEN, start).skip_unreadable();
    let times = match scanner.step(|_| true)? {
        ScanStep::Frame(header) if header.kind == FrameKind::Commit => frame::decode_commit(scanner.frame()),
        _ => None,
    };
    Ok(times.map(|commit| commit.times).filter(|times| *times != UNKNOWN_TIMES))
}

/// Returns the sequences from the first to the last segment that may contain events of the period. `segments` contains the first
/// sequence of each segment and the times of its first commit, oldest segment first.
fn overlapping(segments: &[(u64, Option<CommitTimes>)], since: u64, until: u64) -> Range<u64> {
    let may_contain = |index: &usize| {
        let times = receive_times(segments[*index].1, segments.get(index + 1).map(|(_, times)| *times));
        times.latest >= since && times.earliest <= until
    };
    let (mut indexes, mut backwards) = (0..segments.len(), (0..segments.len()).rev());
    let (Some(first), Some(last)) = (indexes.find(may_contain), backwards.find(may_contain)) else { return 0..0 };
    segments[first].0..segments.get(last + 1).map_or(u64::MAX, |(first_seq, _)| *first_seq)
}

/// Returns the bounds for a segment whose first commit has these times. `next` contains the times of the next segment's first
/// commit; `None` for the newest segment.
fn receive_times(own: Option<CommitTimes>, next: Option<Option<CommitTimes>>) -> ReceiveTimes {
    let earliest = |wall: u64| wall.saturating_sub(MARGIN_MS);
    match (own, next) {
        (Some(own), Some(Some(next))) => {
            let passed = next.journal.0.saturating_sub(own.journal.0);
            ReceiveTimes {
                earliest: earliest(own.wall.0.min(next.wall.0.saturating_sub(passed))),
                latest: next.wall.0.max(own.wall.0.saturating_add(passed)).saturating_add(MARGIN_MS),
            }
        }
        (Some(own), None) => ReceiveTimes { earliest: earliest(own.wall.0), latest: u64::MAX },
        _ => ReceiveTimes { earliest: 0, latest: u64::MAX },
    }
}

/// Tolerance of the bounds. It exceeds the time for which a request may last, and the difference from which hookhold treats a change
/// of the clock as a jump.
const MARGIN_MS: u64 = 10 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::journal_time::JournalMillis;

    const HOUR: u64 = 3_600_000;

    /// Returns segments of 10 events each, whose first commits have these times in hours: of the journal's clock and of the wall clock.
    fn segments(hours: &[Option<(u64, u64)>]) -> Vec<(u64, Option<CommitTimes>)> {
        let times =
            |(journal, wall): (u64, u64)| CommitTimes { journal: JournalMillis(journal * HOUR), wall: UnixMillis(wall * HOUR) };
        (0..).step_by(10).zip(hours.iter().map(|hours| hours.map(times))).collect()
    }

    fn found(hours: &[Option<(u64, u64)>], since: u64, until: u64) -> Range<u64> {
        overlapping(&segments(hours), since * HOUR, until.saturating_mul(HOUR))
    }

    #[test]
    fn only_segments_of_the_period_are_read() {
        let steady: Vec<_> = (100..106).map(|hour| Some((hour, hour))).collect();
        assert_eq!(found(&steady, 0, u64::MAX), 0..u64::MAX);
        assert_eq!(overlapping(&segments(&steady), 102 * HOUR + HOUR / 2, 103 * HOUR + HOUR / 2), 20..40);
        assert_eq!(overlapping(&segments(&steady), 104 * HOUR + HOUR / 2, u64::MAX), 40..u64::MAX);
        assert_eq!(found(&steady, 200, u64::MAX), 50..u64::MAX, "the newest segment may still grow");
        assert_eq!(found(&steady, 0, 99), 0..0);
        assert_eq!(found(&[], 0, u64::MAX), 0..0);
    }

    #[test]
    fn a_jump_of_the_clock_hides_no_event() {
        // The clock is 10 hours fast in the first segment, and set right before the second one.
        let fast = [Some((100, 110)), Some((101, 101)), Some((102, 102))];
        assert_eq!(found(&fast, 111, 111), 0..u64::MAX, "the first segment, and the newest one, which may still grow");
        // The clock is 10 hours slow in the first segment.
        let slow = [Some((100, 90)), Some((101, 101)), Some((102, 102))];
        assert_eq!(found(&slow, 91, 91), 0..10);
        assert_eq!(found(&slow, 100, 100), 0..10, "it may have been set right at the start of the segment");
    }

    #[test]
    fn a_segment_with_unknown_times_is_read() {
        let unknown = [Some((100, 100)), None, Some((104, 104)), Some((105, 105))];
        assert_eq!(found(&unknown, 50, 60), 0..20, "the times of the first segment end at an unknown time");
        assert_eq!(found(&unknown, 104, 104), 0..30);
    }
}
