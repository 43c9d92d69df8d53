//! The frames of a commit that do not contain events: cursors, the lists of segments and key files, recorded releases, and the
//! sequences of lost events.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::commit_queue::PendingAppend;
use super::frame::{FrameDraft, FrameKind};
use super::segment::Segment;
use super::segment_file::SEGMENT_HEADER_LEN;
use super::writer_state::WriterState;

/// Frames of a commit that do not contain events.
#[derive(Default)]
pub(super) struct ControlFrames {
    pub(super) drafts: Vec<FrameDraft>,
    /// Cursors that this commit saves.
    pub(super) cursors: Vec<(Arc<str>, u64)>,
    /// Segments whose release this commit records.
    pub(super) releases: Vec<Arc<Segment>>,
    /// Version of the lost ranges that this commit records; `None` if it records none.
    pub(super) lost_version: Option<u64>,
}

impl ControlFrames {
    /// Returns the control frames of the next commit. The first commit of a segment contains all cursors, the lists of all older
    /// segments and of all key files, and all lost ranges. The segments in `releases` are not in the list, which records their
    /// release. `lost_version` is the version of the lost ranges that the segment records already.
    pub(super) fn next(
        shared: &Shared,
        state: &WriterState,
        lost_version: u64,
        save_cursors: bool,
        releases: &[Arc<Segment>],
        events: &VecDeque<PendingAppend>,
    ) -> ControlFrames {
        let is_new_segment = state.offset == SEGMENT_HEADER_LEN;
        let mut control = ControlFrames { releases: releases.to_vec(), ..ControlFrames::default() };
        control.cursors = cursors_to_save(shared, state.next_seq, save_cursors, is_new_segment, events);
        if is_new_segment {
            control.drafts.push(FrameDraft::cursors(&control.cursors, true, shared.segments.backlog_end()));
            control.drafts.push(FrameDraft::segments(&shared.segments.list(state.active.name, releases)));
            control.drafts.push(FrameDraft::key_files(&shared.keys.list()));
        } else {
            control.drafts.extend((!control.cursors.is_empty()).then(|| FrameDraft::cursors(&control.cursors, false, None)));
            if !releases.is_empty() {
                control.drafts.extend(release_frames(shared, releases));
            }
        }
        control.add_lost(shared, lost_version, is_new_segment);
        control
    }

    /// Returns the control frames of a commit that only records these releases. The commit also records new lost ranges, because
    /// the keys of lost events must be forgotten before their segment is deleted.
    pub(super) fn release(shared: &Shared, lost_version: u64, segments: Vec<Arc<Segment>>) -> ControlFrames {
        let drafts = release_frames(shared, &segments).into();
        let mut control = ControlFrames { drafts, releases: segments, ..ControlFrames::default() };
        control.add_lost(shared, lost_version, false);
        control
    }

    /// Adds the lost ranges if they have changed since `lost_version`, or if `is_due` is true.
    fn add_lost(&mut self, shared: &Shared, lost_version: u64, is_due: bool) {
        let version = shared.keys.lost_version();
        if is_due || version != lost_version {
            self.lost_version = Some(version);
            self.drafts.push(FrameDraft::ranges(FrameKind::Lost, &shared.keys.lost_ranges()));
        }
    }

    /// Returns the number of bytes that the frames will occupy.
    pub(super) fn len(&self) -> u64 {
        self.drafts.iter().map(|draft| draft.padded_len() as u64).sum()
    }
}

/// Returns an upper bound for the length of the control frames in the first commit of the next segment.
pub(super) fn first_control_len(shared: &Shared) -> u64 {
    let segments = shared.segments.segments().len() as u64;
    let keys = shared.keys.sizes();
    let key_files = (keys.asked_files + keys.recent_files) as u64;
    let lost = shared.keys.lost_ranges().len() as u64;
    let cursors: Vec<_> = shared.segments.cursors().into_iter().collect();
    FrameDraft::cursors(&cursors, true, shared.segments.backlog_end()).padded_len() as u64
        + 3 * 64
        + 32 * segments
        + 16 * key_files
        + 16 * lost
}

/// Returns the frames that record the release of these segments. The last list of the key files may be older than the key files of
/// these segments. Without the segments, only a new list shows that these key files must exist.
fn release_frames(shared: &Shared, segments: &[Arc<Segment>]) -> [FrameDraft; 2] {
    [FrameDraft::release(segments.iter().map(|segment| segment.name)), FrameDraft::key_files(&shared.keys.list())]
}

/// Returns the cursors for the next commit. The first commit of a segment contains all cursors. Every other commit contains the
/// moved cursors if `is_due` is true or if an event has a topic without a saved cursor.
fn cursors_to_save(
    shared: &Shared,
    next_seq: u64,
    mut is_due: bool,
    is_new_segment: bool,
    events: &VecDeque<PendingAppend>,
) -> Vec<(Arc<str>, u64)> {
    let segments = &shared.segments;
    if shared.options.forwards {
        for event in events {
            // Start the cursor at the first sequence of the commit, not at the event's own sequence. If this commit fails, a
            // later event of the topic may get a lower sequence than this event.
            is_due |= segments.start_cursor(&event.topic, next_seq);
        }
    }
    match (is_new_segment, is_due) {
        (true, _) => segments.cursors().into_iter().collect(),
        (false, true) => segments.moved_cursors(),
        (false, false) => Vec::new(),
    }
}
