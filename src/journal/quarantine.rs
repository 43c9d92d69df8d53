//! Copies damaged bytes aside before the journal deletes or overwrites the segment that contains them, so that an operator can
//! examine them.

use std::io;
use std::ops::Range;

use super::disk::{Disk, write_atomically};
use super::segment_name::SEGMENT_EXT;

/// Copies a damaged range of the file `name` to a file of its own, at most [`MAX_COPY`] bytes. Does nothing if all copies
/// together would exceed [`MAX_COPIES`].
pub(super) fn copy(disk: &dyn Disk, name: &str, range: &Range<u64>) {
    if let Err(error) = try_copy(disk, name, range) {
        tracing::warn!(file = name, from = range.start, %error, "cannot copy the damaged bytes to a file of their own");
    }
}

fn try_copy(disk: &dyn Disk, name: &str, range: &Range<u64>) -> io::Result<()> {
    let copy = format!("{}.{}{DAMAGED_EXT}", name.trim_end_matches(SEGMENT_EXT), range.start);
    let copies: Vec<_> = disk.list()?.into_iter().filter(|(file, _)| file.ends_with(DAMAGED_EXT)).collect();
    let len = (range.end - range.start).min(MAX_COPY);
    let bytes: u64 = copies.iter().map(|(_, bytes)| bytes).sum();
    if copies.iter().any(|(file, _)| *file == copy) || bytes + len > MAX_COPIES {
        return Ok(());
    }
    let mut damaged = vec![0; len as usize];
    let read = disk.open(name)?.read_at(&mut damaged, range.start)?;
    write_atomically(disk, &copy, &damaged[..read])
}

/// Extension of a file with damaged bytes.
const DAMAGED_EXT: &str = ".damaged";
/// Maximum size of one copy in bytes.
const MAX_COPY: u64 = 1 << 20;
/// Maximum total size of all copies in bytes.
const MAX_COPIES: u64 = 64 << 20;
