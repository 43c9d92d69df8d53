//! Creates the file of the next segment, and the lock file if it is missing.

use std::io;
use std::sync::Arc;

use super::Shared;
use super::background::Spare;
use super::disk::DiskFile;
use super::lock_file::{LOCK_FILE, LOCK_FILE_LEN};
use super::planted::is_planted;
use super::random::Random;
use super::segment_name::SegmentName;
use super::writer_state::WriterState;

/// Creates the file of the next segment with `size` bytes, or renames the spare file. The name of the file is durable once this
/// function has succeeded.
pub(super) fn create(
    shared: &Shared,
    state: &mut WriterState,
    random: &dyn Random,
    size: u64,
) -> io::Result<(SegmentName, Arc<dyn DiskFile>)> {
    restore_lock_file(shared, state)?;
    let name = SegmentName::new(state.next_ordinal, state.next_seq, random)?;
    let disk = &shared.disk;
    let spare = if size == shared.options.limits.segment_size { shared.background.take_spare() } else { None };
    let renamed = spare.and_then(|Spare { name: spare, file }| {
        let renamed = disk.rename(&spare, &name.segment_file()).inspect_err(|_| drop(disk.remove(&spare)));
        renamed.ok().map(|()| file)
    });
    let file = renamed.map_or_else(|| disk.create(&name.segment_file(), size), Ok)?;
    if !is_planted("missing directory sync") {
        shared.sync_dir()?;
    }
    state.next_ordinal += 1;
    Ok((name, file))
}

/// Creates the lock file again if an operator has deleted it. If the file cannot be opened for another reason, the writer still has
/// it open.
fn restore_lock_file(shared: &Shared, state: &mut WriterState) -> io::Result<()> {
    let opened = shared.disk.open(LOCK_FILE);
    if !opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    tracing::warn!("{LOCK_FILE}: the journal's lock file has been deleted, so hookhold creates it again");
    let file = shared.disk.create(LOCK_FILE, LOCK_FILE_LEN)?;
    state.owner.write(&*file)?;
    shared.sync_dir()?;
    state.lock = file;
    Ok(())
}
