//! Recognises segment files that are not a part of this journal: copies under another name, and segments of another journal. An
//! operator may have put them into the directory. The journal neither reads nor deletes them.

use std::io;

use super::disk::Disk;
use super::errors::in_file;
use super::lock_file::OwnerRecord;
use super::meta;
use super::scanned_segment::{ScannedSegment, SegmentFrames};
use super::segment_file::SegmentHeader;

/// Removes the segments that are not a part of this journal, and logs their names.
pub(super) fn remove(disk: &dyn Disk, segments: &mut Vec<ScannedSegment>, owner: Option<OwnerRecord>) -> io::Result<()> {
    segments.retain(|segment| {
        let is_ours = segment.header.as_ref().is_none_or(|header| header.place == segment.name.place());
        if !is_ours {
            tracing::error!(file = segment.name.segment_file(), "{MISPLACED}");
        }
        is_ours
    });
    let Some(newest) = owner.and_then(|owner| segments.iter().find(|segment| segment.name == owner.newest)) else {
        return Ok(());
    };
    let Some(hash_key) = newest.header.as_ref().map(|header| header.identity.hash_key) else { return Ok(()) };
    let is_other = |header: &SegmentHeader| header.identity.hash_key != hash_key;
    if !segments.iter().filter_map(|segment| segment.header.as_ref()).any(is_other) {
        return Ok(());
    }
    // If neither the meta file nor a header could be read, a startup has drawn a new hash key. The list then contains the older
    // segments. If that startup died before it wrote the record of the owner, its segments have the hash key of the meta file.
    let of_meta = meta::hash_key(disk);
    let is_other = |header: &SegmentHeader| is_other(header) && of_meta != Some(header.identity.hash_key);
    let frames = in_file(SegmentFrames::read(disk, newest), || newest.name.segment_file())?;
    let listed = frames.listed.unwrap_or_default();
    segments.retain(|segment| {
        let is_listed = segment.key_ids().any(|id| listed.iter().any(|listed| listed.name.id == id));
        let is_ours = is_listed || !segment.header.as_ref().is_some_and(is_other);
        if !is_ours {
            tracing::error!(file = segment.name.segment_file(), "{OTHER_JOURNAL}");
        }
        is_ours
    });
    Ok(())
}

const MISPLACED: &str = "expected a segment with the place in its name, found a copy of another segment, so hookhold does not read \
                         the file; move it to another directory";
const OTHER_JOURNAL: &str = "expected a segment of this journal, found one of another journal, so hookhold does not read the file; \
                             move it to another directory";
