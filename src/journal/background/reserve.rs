//! The reserve.

use std::io;
use std::sync::atomic::Ordering;

use super::super::disk::{is_full, write_whole};
use super::super::{RESERVE, Shared};

/// Gives up the reserve so that a key file can be written on a full disk; it is laid in again when there is room.
pub fn with_reserve(shared: &Shared, name: &str, bytes: &[u8], error: io::Error) -> io::Result<()> {
    if !is_full(&error) {
        return Err(error);
    }
    shared.disk.remove(RESERVE).map_err(|_| error)?;
    shared.keeper.reserve_missing.store(true, Ordering::Relaxed);
    tracing::warn!("the disk is full: the journal's reserve is used for a key file");
    write_whole(&*shared.disk, name, bytes)
}

/// Allocates the reserve where it is missing. Without room it stays away until the next look.
pub fn lay_in_reserve(shared: &Shared) {
    if !shared.keeper.reserve_missing.load(Ordering::Relaxed) {
        return;
    }
    let is_there = match shared.disk.create(RESERVE, shared.options.limits.segment_size) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
    };
    shared.keeper.reserve_missing.store(!is_there, Ordering::Relaxed);
}
