//! Starts the first segment for new events at startup. Once hookhold has synced this segment, the segment supersedes each event
//! of older segments whose sequence is at or above the first sequence of this segment.

use std::io;
use std::sync::Arc;

use super::super::background::release_reserve;
use super::super::disk::{Disk, DiskFile, is_full};
use super::super::errors::OpenError;
use super::super::frame::PAGE;
use super::super::frame::{FrameDraft, FrameKind};
use super::super::journal_time::CommitTimes;
use super::super::keys::KeyIndex;
use super::super::lock_file::{OwnerRecord, PUBLISHED_LEN, encode_watermark};
use super::super::options::Options;
use super::super::segment::{Segment, SegmentState};
use super::super::segment_file::{JournalIdentity, control_room, encode_header};
use super::super::segment_map::SegmentMap;
use super::super::segment_name::SegmentName;
use super::super::segment_summary::SegmentSummary;
use super::super::writer_state::WriterState;
use crate::event::LogId;

/// Content of the header and of the first commit.
pub(super) struct FirstSegment {
    pub(super) name: SegmentName,
    pub(super) log: LogId,
    pub(super) identity: JournalIdentity,
    pub(super) times: CommitTimes,
}

/// Starts the segment, and adds the segment to `segments`. If the disk is full, starts a small segment instead. If the
/// disk has no room even for a small segment, deletes the reserve and then starts the small segment. A small segment has room
/// for cursors, so hookhold can save acknowledgements and then delete old segments.
pub(super) fn start(
    disk: &dyn Disk,
    options: &Options,
    lock: Arc<dyn DiskFile>,
    FirstSegment { name, log, identity, times }: FirstSegment,
    segments: &SegmentMap,
    keys: &KeyIndex,
    owner: OwnerRecord,
) -> Result<WriterState, OpenError> {
    let next_seq = name.first_seq;
    let mut bytes = encode_header(name, log, identity, &[]);
    let cursors: Vec<_> = segments.cursors().into_iter().collect();
    let lists = [FrameDraft::segments(&segments.list(name, &[])), FrameDraft::key_files(&keys.list())];
    let mut control: Vec<FrameDraft> =
        [FrameDraft::cursors(&cursors, true, segments.backlog_end())].into_iter().chain(lists).collect();
    let lost = keys.lost_ranges();
    control.extend((!lost.is_empty()).then(|| FrameDraft::ranges(FrameKind::Lost, &lost)));
    let len = control.iter().map(|draft| draft.padded_len() as u64).sum();
    FrameDraft::commit(next_seq, 0, len, times).write_into(&mut bytes, log, next_seq, name.id);
    for draft in control {
        draft.write_into(&mut bytes, log, next_seq, name.id);
    }
    let end = bytes.len() as u64;
    let offset = end.next_multiple_of(PAGE);
    bytes.resize(offset as usize, 0);
    let small = offset + control_room(options.limits.segment_size);
    let create = |size| disk.create(&name.segment_file(), size).map(|file| (file, size));
    let or_small = |error: io::Error| if is_full(&error) { create(small) } else { Err(error) };
    let or_without_reserve = |error: io::Error| match is_full(&error) && release_reserve(disk).is_ok() {
        true => create(small),
        false => Err(error),
    };
    let start = || {
        let (file, size) = create(options.limits.segment_size.max(small)).or_else(or_small).or_else(or_without_reserve)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        disk.sync_dir()?;
        let owner = owner.next(log, name, size);
        owner.write(&*lock)?;
        // The whole page, because a part of a page that cannot be read cannot be written either.
        let mut page = vec![0; PAGE as usize];
        page[..PUBLISHED_LEN].copy_from_slice(&encode_watermark(log, next_seq));
        lock.write_at(&page, 0)?;
        Ok((file, size, owner))
    };
    let (file, size, owner) = start().map_err(|source| match is_full(&source) {
        true => OpenError::NoRoom { bytes: small },
        false => OpenError::Io { what: "cannot start the first segment of the journal".into(), source },
    })?;
    keys.set_list_recorded(true);
    let mut summary = SegmentSummary::empty(next_seq);
    (summary.end, summary.newest) = (end, times.journal);
    let active = Segment::new(name, file, size, summary, SegmentState::Unsealed);
    segments.add(active.clone());
    segments.set_saved(&cursors);
    Ok(WriterState { active, offset, next_seq, lock, next_ordinal: name.ordinal + 1, owner })
}
