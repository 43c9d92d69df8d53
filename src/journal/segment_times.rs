//! Finds the segments that may contain the events of a period, so that a search by time does not read the others.
//!
//! The summary of a segment records only the time of the journal's clock, while an event records the wall clock's. So this module
//! reads the times of the first commit of each segment. Between two first commits, the wall clock has advanced like the journal's
//! clock, unless it has jumped. A jump may have been at any moment between them, so the bounds of a segment allow for both. The newest
//! segment has no bounds, so every search reads it.

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

/// Returns the sequences of the segments that may contain events received in this period, in order. The last range has no end.
pub(super) fn sequences(disk: &dyn Disk, since: Option<UnixMillis>, until: Option<UnixMillis>) -> io::Result<Vec<Range<u64>>> {
    if since.is_none() && until.is_none() {
        return Ok(vec![ALL]);
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

/// Returns the sequences of the segments that may contain events of the period. `segments` contains the first sequence of each segment
/// and the times of its first commit, oldest segment first.
fn overlapping(segments: &[(u64, Option<CommitTimes>)], since: u64, until: u64) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for pair in segments.windows(2) {
        let [(first_seq, own), (end, next)] = [pair[0], pair[1]];
        let times = receive_times(own, next);
        if times.latest < since || times.earliest > until {
            continue;
        }
        match found.last_mut().filter(|range| range.end == first_seq) {
            Some(range) => range.end = end,
            None => found.push(first_seq..end),
        }
    }
    let newest = segments.last().map_or(0, |(first_seq, _)| *first_seq);
    match found.last_mut().filter(|range| range.end == newest) {
        Some(range) => range.end = ALL.end,
        None => found.push(newest..ALL.end),
    }
    found
}

/// Returns the bounds for a segment whose first commit has the times `own`. `next` contains the times of the next segment's first
/// commit.
fn receive_times(own: Option<CommitTimes>, next: Option<CommitTimes>) -> ReceiveTimes {
    let (Some(own), Some(next)) = (own, next) else { return ReceiveTimes { earliest: 0, latest: u64::MAX } };
    let passed = next.journal.0.saturating_sub(own.journal.0);
    ReceiveTimes {
        earliest: own.wall.0.min(next.wall.0.saturating_sub(passed)).saturating_sub(MARGIN_MS),
        latest: next.wall.0.max(own.wall.0.saturating_add(passed)).saturating_add(MARGIN_MS),
    }
}

/// All sequences.
const ALL: Range<u64> = 0..u64::MAX;
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

    fn found(hours: &[Option<(u64, u64)>], since: u64, until: u64) -> Vec<Range<u64>> {
        overlapping(&segments(hours), since * HOUR, until.saturating_mul(HOUR))
    }

    /// Returns one range without an end.
    fn newest_from(seq: u64) -> Vec<Range<u64>> {
        std::iter::once(seq..u64::MAX).collect()
    }

    /// Returns the given range and the newest of `count` segments.
    fn with_newest(range: Range<u64>, count: u64) -> Vec<Range<u64>> {
        vec![range, (count - 1) * 10..u64::MAX]
    }

    #[test]
    fn only_segments_of_the_period_and_the_newest_one_are_read() {
        let steady: Vec<_> = (100..106).map(|hour| Some((hour, hour))).collect();
        assert_eq!(found(&steady, 0, u64::MAX), [ALL]);
        assert_eq!(overlapping(&segments(&steady), 102 * HOUR + HOUR / 2, 103 * HOUR + HOUR / 2), with_newest(20..40, 6));
        assert_eq!(overlapping(&segments(&steady), 104 * HOUR + HOUR / 2, u64::MAX), newest_from(40));
        assert_eq!(found(&steady, 200, u64::MAX), newest_from(50));
        assert_eq!(found(&steady, 0, 99), newest_from(50));
        assert_eq!(found(&[], 0, u64::MAX), [ALL]);
    }

    #[test]
    fn a_jump_of_the_clock_hides_no_event() {
        // The clock is 10 hours fast in the first segment, and set right before the second one.
        let fast = [Some((100, 110)), Some((101, 101)), Some((102, 102)), Some((103, 103))];
        assert_eq!(found(&fast, 111, 111), with_newest(0..10, 4));
        // The clock is 10 hours slow in the first segment.
        let slow = [Some((100, 90)), Some((101, 101)), Some((102, 102)), Some((103, 103))];
        assert_eq!(found(&slow, 91, 91), with_newest(0..10, 4));
        assert_eq!(found(&slow, 100, 100), with_newest(0..10, 4), "it may have been set right at the start of the segment");
    }

    #[test]
    fn a_segment_with_unknown_times_is_read() {
        let unknown = [Some((100, 100)), None, Some((104, 104)), Some((105, 105)), Some((106, 106))];
        assert_eq!(found(&unknown, 50, 60), with_newest(0..20, 5), "the first segment ends at an unknown time");
        assert_eq!(found(&unknown, 104, 104), with_newest(0..30, 5));
    }
}
