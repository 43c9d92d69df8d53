//! The reserve: a preallocated file that occupies disk space, so that new events cannot use this space. If the disk is full,
//! the journal deletes the reserve to make room for a key file, for the copy of unconfirmed events, or for the first segment
//! after startup. The journal preallocates the reserve again once the disk has room.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Shared;
use super::super::disk::{Disk, TEMPORARY_EXT, is_full, write_atomically};

/// Reserve of an open journal. The field `missing` is true while the file of the reserve does not exist.
pub(super) struct Reserve {
    missing: AtomicBool,
}

impl Reserve {
    pub(super) fn new(exists: bool) -> Reserve {
        Reserve { missing: AtomicBool::new(!exists) }
    }

    /// Writes `bytes` to the file `name`. If the disk is full, deletes the reserve and writes the file again.
    pub(super) fn write(&self, disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_with_reserve(disk, name, bytes, || {
            self.missing.store(true, Ordering::Relaxed);
            tracing::warn!(
                "key file: expected free disk space, found none, so the journal uses its reserve; free some disk space"
            );
        })
    }

    /// Preallocates the reserve if it is missing. If the disk has no room, the background thread tries again at its next
    /// periodic check.
    pub(super) fn restore(&self, shared: &Shared) {
        if !self.missing.load(Ordering::Relaxed) {
            return;
        }
        let exists = match shared.disk.create(RESERVE_FILE, shared.options.limits.segment_size) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
        };
        self.missing.store(!exists, Ordering::Relaxed);
    }
}

/// Writes `bytes` to the file `name`. If the disk is full, deletes the reserve, calls `on_release` and writes the file again. If the
/// file does not fit even then, preallocates the reserve again, because nothing uses its space.
pub(crate) fn write_with_reserve(disk: &dyn Disk, name: &str, bytes: &[u8], on_release: impl FnOnce()) -> io::Result<()> {
    write_atomically(disk, name, bytes).or_else(|error| {
        if !is_full(&error) {
            return Err(error);
        }
        let size = disk.list()?.iter().find(|(file, _)| file == RESERVE_FILE).map_or(0, |(_, size)| *size);
        release_reserve(disk).map_err(|_| error)?;
        on_release();
        write_atomically(disk, name, bytes).inspect_err(|_| {
            // The next startup deletes the temporary file, but until then the file would occupy the reserve's space.
            drop(disk.remove(&format!("{name}{TEMPORARY_EXT}")));
            drop(disk.create(RESERVE_FILE, size));
        })
    })
}

/// Deletes the reserve to free its disk space.
pub(crate) fn release_reserve(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(RESERVE_FILE)
}

/// Preallocates the reserve at startup, unless a reserve of at least `size` bytes exists. Replaces a smaller reserve, which a
/// power cut can leave. Returns true if the reserve exists when this function ends.
pub(crate) fn restore_reserve(disk: &dyn Disk, size: u64) -> bool {
    if disk.list().is_ok_and(|files| files.iter().any(|(name, bytes)| name == RESERVE_FILE && *bytes >= size)) {
        return true;
    }
    drop(release_reserve(disk));
    disk.create(RESERVE_FILE, size)
        .inspect_err(|error| tracing::warn!(%error, "cannot preallocate the journal's reserve; free some disk space"))
        .is_ok()
}

/// Name of the file of the reserve.
pub(crate) const RESERVE_FILE: &str = "reserve";
