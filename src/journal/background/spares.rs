//! Spares.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::Shared;
use super::super::disk::DiskFile;
use super::super::segment::Segment;
use super::super::segment_file::{PAGE, SPARE};
use crate::limits::JournalLimits;

/// Usually the file of a deleted segment. The next segment is written over it, which needs no new blocks: that takes a third off a sync.
pub struct Spare {
    /// Its present name.
    pub name: String,
    /// Open for writing, `segment_size` long, the first page zeroed and synced.
    pub file: Arc<dyn DiskFile>,
}

/// After the writer has found no room nobody may be sending: `/readyz` tells balancers so, and only an event would make the
/// writer try again. So the keeper does, and lays the file ready.
pub fn begin_again(shared: &Shared) {
    if !shared.no_room.load(Ordering::Relaxed) {
        return;
    }
    let Some(_room) = shared.keeper.find_room(shared, shared.options.limits.segment_size) else { return };
    if shared.keeper.spare_bytes(shared) == 0 {
        let name = format!("next{SPARE}");
        let Ok(file) = shared.disk.create(&name, shared.options.limits.segment_size) else { return };
        shared.keeper.set_spare(Spare { name, file });
    }
    shared.no_room.store(false, Ordering::Relaxed);
    tracing::info!("there is room for new events again");
}

/// Makes the file of a segment that has left the catalog the spare one, if it fits beside the others, or deletes it.
pub fn lay_aside(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let JournalLimits { segment_size, max_size, .. } = shared.options.limits;
    let (name, size) = (segment.name.spare(), segment.size.load(Ordering::Relaxed));
    let has_room = shared.catalog.bytes() + segment_size <= max_size;
    let suits = size <= segment_size && has_room && shared.keeper.spare_bytes(shared) == 0;
    if !suits {
        return shared.disk.remove(&segment.name.segment());
    }
    let lay = || {
        let file = shared.disk.recycle(&segment.name.segment(), &name, segment_size)?;
        // Before the first byte changes, the old name must be gone for good.
        shared.disk.sync_dir()?;
        file.write_at(&[0; PAGE as usize], 0)?;
        file.sync()?;
        io::Result::Ok(Spare { name: name.clone(), file })
    };
    match lay() {
        Ok(spare) => {
            shared.keeper.set_spare(spare);
            Ok(())
        }
        Err(_) => shared.disk.remove(&name).or_else(|_| shared.disk.remove(&segment.name.segment())),
    }
}
