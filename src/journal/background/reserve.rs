//! The reserve: a preallocated file whose space events may not use. It is given up so that a key file, or the copy of the
//! unconfirmed events, can be written on a full disk, and preallocated again when there is room.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Shared;
use super::super::disk::{Disk, is_full, write_atomically};

/// The reserve of an open journal.
pub(super) struct Reserve {
    missing: AtomicBool,
}

impl Reserve {
    pub(super) fn new(exists: bool) -> Reserve {
        Reserve { missing: AtomicBool::new(!exists) }
    }

    /// Writes a file, giving up the reserve if the disk is full.
    pub(super) fn write(&self, disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_with_reserve(disk, name, bytes, || {
            self.missing.store(true, Ordering::Relaxed);
            tracing::warn!("the disk is full: the journal's reserve is used for a key file; free some disk space");
        })
    }

    /// Preallocates a missing reserve. Without room it stays missing until the next check.
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

/// Writes a file. If the disk is full, gives up the reserve, calls `on_release` and tries once more.
pub(crate) fn write_with_reserve(disk: &dyn Disk, name: &str, bytes: &[u8], on_release: impl FnOnce()) -> io::Result<()> {
    write_atomically(disk, name, bytes).or_else(|error| {
        if !is_full(&error) {
            return Err(error);
        }
        release_reserve(disk).map_err(|_| error)?;
        on_release();
        write_atomically(disk, name, bytes)
    })
}

/// Gives up the reserve.
pub(crate) fn release_reserve(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(RESERVE_FILE)
}

/// Preallocates the reserve at a start, unless it exists at full size: after a power cut its name may exist without its space.
/// Returns true if it exists now.
pub(crate) fn restore_reserve(disk: &dyn Disk, size: u64) -> bool {
    if disk.list().is_ok_and(|files| files.iter().any(|(name, bytes)| name == RESERVE_FILE && *bytes >= size)) {
        return true;
    }
    drop(release_reserve(disk));
    disk.create(RESERVE_FILE, size).inspect_err(|error| tracing::warn!(%error, "no room for the journal's reserve")).is_ok()
}

const RESERVE_FILE: &str = "reserve";
