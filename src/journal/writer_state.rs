//! Position of the writer in the journal.

use std::sync::Arc;

use super::disk::DiskFile;
use super::lock_file::OwnerRecord;
use super::segment::Segment;

/// Position of the writer in the journal.
pub(super) struct WriterState {
    /// The newest segment.
    pub(super) active: Arc<Segment>,
    /// Offset of the next commit, which is the start of a page.
    pub(super) offset: u64,
    /// Sequence of the next event.
    pub(super) next_seq: u64,
    /// The lock file, which publishes the durable watermark.
    pub(super) lock: Arc<dyn DiskFile>,
    /// Ordinal of the next segment.
    pub(super) next_ordinal: u64,
    /// The last record of the owner.
    pub(super) owner: OwnerRecord,
}
