//! Determines which segments are missing or released, and which events of older segments are superseded: from the order of the
//! segments, from the list at the start of the newest segment, and from the record of the owner.

use std::io;

use super::frame::ListedSegment;
use super::lock_file::{LockEvidence, OwnerRecord};
use super::scanned_segment::ScannedSegment;
use super::segment_name::SegmentName;

/// Compares the segments with the newest readable list. Removes each segment whose release is recorded, and returns the names of
/// these segments. Also returns the listed segments that are missing although their release is not recorded.
pub(super) fn compare_with_list(segments: &mut Vec<ScannedSegment>) -> (Vec<SegmentName>, Vec<ListedSegment>) {
    let Some(at) = segments.iter().rposition(|segment| segment.frames.listed.is_some()) else { return Default::default() };
    let newest = segments[at].name.place();
    let listed = segments[at].frames.listed.clone().unwrap_or_default();
    // A list or a record may name the segment that an existing segment replaces, so only the places count.
    let recorded: Vec<_> = segments[at..].iter().flat_map(|segment| &segment.frames.released).map(|name| name.place()).collect();
    let is_recorded = |name: SegmentName| recorded.contains(&name.place());
    let is_listed = |name: SegmentName| listed.iter().any(|listed| listed.name.place() == name.place());
    let is_expected = |name: SegmentName| (name.place() >= newest || is_listed(name)) && !is_recorded(name);
    let released = segments.iter().map(|segment| segment.name).filter(|name| !is_expected(*name)).collect();
    let exists = |name: SegmentName| segments.iter().any(|existing| existing.name.place() == name.place());
    let is_missing =
        |listed: &&ListedSegment| listed.next_seq > listed.name.first_seq && !is_recorded(listed.name) && !exists(listed.name);
    let missing: Vec<ListedSegment> = listed.iter().filter(is_missing).copied().collect();
    segments.retain(|segment| is_expected(segment.name));
    // The frames of failed commits above these sequences stay superseded, even if the segment with their successors is lost.
    for segment in segments.iter_mut() {
        let lost = missing.iter().filter(|lost| segment.name.place() < lost.name.place()).map(|lost| lost.name.first_seq);
        let itself = listed.iter().find(|listed| listed.name.place() == segment.name.place()).map(|listed| listed.next_seq);
        let superseded_from = lost.chain(itself).fold(segment.superseded_from, u64::min);
        // A listed segment must contain every event up to the listed end.
        segment.is_followed |= itself.is_some();
        segment.frames.events.retain(|frame| frame.header.seq < superseded_from);
        segment.superseded_from = superseded_from;
    }
    (released, missing)
}

/// The newest segment of the last opening, which is missing or has lost its content.
#[derive(Clone, Copy)]
pub(super) struct LostNewest {
    /// Record that names the segment.
    pub(super) owner: OwnerRecord,
    /// Sequence after the last event of the segments that exist. Segments between them and the newest one may be missing as well,
    /// because only the newest segment lists them.
    pub(super) from: u64,
    /// Sequence below which the lost events are known to have been durable.
    pub(super) known_end: u64,
}

impl LostNewest {
    /// Returns the loss if the newest segment of the last opening is missing, or has lost its content. The bound of the returned
    /// record is at most the first sequence of each newer segment. `has_list` reads a segment, and returns true if the list at its
    /// start is readable.
    ///
    /// The journal never deletes the newest segment with a synced commit. A newer segment may exist nevertheless: the process may
    /// have died before it has synced the first commit of this segment, or the record may be older than this segment. In the latter
    /// case, the list of the newer segment shows what is missing. Interrupted openings may also have left segments after the bound.
    pub(super) fn find(
        evidence: &LockEvidence,
        segments: &[ScannedSegment],
        has_list: impl Fn(&ScannedSegment) -> io::Result<bool>,
    ) -> io::Result<Option<LostNewest>> {
        let Some(owner) = evidence.owner else { return Ok(None) };
        if segments.iter().any(|segment| segment.name.place() == owner.newest.place()) {
            return Ok(None);
        }
        let newer = || segments.iter().filter(|segment| segment.name.ordinal >= owner.newest.ordinal);
        for segment in newer().filter(|segment| segment.name.first_seq < owner.bound) {
            if segment.summary.is_some() || has_list(segment)? {
                return Ok(None);
            }
        }
        let from = owner.newest.first_seq;
        let bound = newer().map(|segment| segment.name.first_seq).fold(owner.bound, u64::min).max(from);
        let known_end = evidence.watermark.unwrap_or(from).clamp(from, bound);
        Ok(Some(LostNewest { owner: OwnerRecord { bound, ..owner }, from, known_end }))
    }

    /// Determines where the loss starts. `segments` contains the frames of all unsealed segments.
    pub(super) fn start_after(&mut self, segments: &[ScannedSegment]) {
        let older = segments.iter().filter(|segment| segment.name.first_seq < self.owner.bound);
        self.from = older.map(ScannedSegment::end).max().unwrap_or(0).min(self.from);
    }
}

/// Determines for each segment at which sequence a newer segment supersedes its events. A lost segment supersedes events as well.
pub(super) fn find_superseded(segments: &mut [ScannedSegment], mut lost_newest: Option<SegmentName>) {
    let (mut superseded_from, mut follower) = (u64::MAX, None);
    for segment in segments.iter_mut().rev() {
        if let Some(lost) = lost_newest.take_if(|lost| lost.ordinal > segment.name.ordinal) {
            (superseded_from, follower) = (superseded_from.min(lost.first_seq), Some(lost.ordinal));
        }
        segment.is_followed = follower.is_none_or(|ordinal| ordinal == segment.name.ordinal + 1);
        follower = Some(segment.name.ordinal);
        let sealed_end = segment.summary.as_ref().map_or(u64::MAX, |summary| summary.next_seq);
        segment.superseded_from = superseded_from.min(sealed_end);
        superseded_from = superseded_from.min(segment.name.first_seq);
    }
}
