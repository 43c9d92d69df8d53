//! The list of the older segments at the start of a segment, while a scan reads the frames of its commit. The list omits the segments
//! that are counted as lost. The frames after the list contain the list of the key files, and then the lost sequences. If a torn
//! commit contains the list and not the lost sequences, an older list must show the loss again. A list therefore counts only if no
//! damage follows it in its commit.

use super::frame::{self, FrameHeader, FrameKind, ListedSegment};

/// List whose commit the scan has not read completely.
#[derive(Default)]
pub(super) struct UnfinishedList {
    /// The list, and the offset after the last frame that belongs to it.
    list: Option<(Vec<ListedSegment>, u64)>,
    /// Offset after the last frame of the current commit.
    commit_end: u64,
}

impl UnfinishedList {
    /// Adds the next valid frame of the segment. Returns the list if this frame shows that the list counts.
    pub(super) fn add(&mut self, header: &FrameHeader, offset: u64, bytes: &[u8]) -> Option<Vec<ListedSegment>> {
        let end = offset + frame::padded(header.len) as u64;
        let followed = self.list.take().filter(|(_, list_end)| *list_end == offset).map(|(list, _)| list);
        match header.kind {
            FrameKind::KeyFiles => self.list = followed.map(|list| (list, end)),
            _ if followed.is_some() => return followed,
            FrameKind::Segments => self.list = frame::decode_segments(bytes).map(|list| (list, end)),
            FrameKind::Commit => {
                self.commit_end = frame::decode_commit(bytes).map_or(0, |commit| offset.saturating_add(commit.length));
            }
            _ => {}
        }
        self.list.take_if(|(_, list_end)| *list_end == self.commit_end).map(|(list, _)| list)
    }
}
