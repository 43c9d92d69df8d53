//! Creates the file of the next segment, and the lock file if it is missing.

use std::io;
use std::sync::Arc;

use super::Shared;
use super::background::Spare;
use super::disk::{DiskFile, delete_after_rename};
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
    let renamed = match spare {
        Some(Spare { name: spare, file }) => match disk.rename(&spare, &name.segment_file()) {
            Ok(()) => Some(file),
            Err(_) => {
                discard(shared, &spare, &name.segment_file())?;
                None
            }
        },
        None => None,
    };
    let file = renamed.map_or_else(|| disk.create(&name.segment_file(), size), Ok)?;
    if !is_planted("missing directory sync") {
        shared.sync_dir()?;
    }
    state.next_ordinal += 1;
    Ok((name, file))
}

/// Deletes the spare file after a failed rename, which may have taken effect. If the writer cannot start a segment, it stores smaller
/// events in the previous segment. A file with the name `renamed` could supersede these events at the next startup, for example if a
/// page of the file cannot be read. If this name cannot be deleted, the journal therefore fails.
fn discard(shared: &Shared, spare: &str, renamed: &str) -> io::Result<()> {
    delete_after_rename(&*shared.disk, spare, renamed).inspect_err(|error| {
        tracing::error!(
            file = renamed,
            %error,
            "neither the rename nor the deletion of a file of the journal has succeeded, so the process exits; check the disk"
        );
        shared.health.set_failed();
        shared.listeners.notify_watchers();
    })?;
    shared.sync_dir()
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
