//! Seals full segments: writes their key file and topic file.

use std::io;
use std::sync::atomic::Ordering;

use super::super::Shared;
use super::super::disk::write_whole;
use super::super::keys::KeyFile;
use super::super::segment::Segment;
use super::reserve::with_reserve;

pub fn seal_or_complain(shared: &Shared, segment: &Segment) -> bool {
    let sealed = seal(shared, segment);
    if let Err(error) = &sealed {
        tracing::error!(segment = segment.name.segment(), %error, "a segment could not be sealed; its keys stay in memory");
    }
    sealed.is_ok()
}

/// Writes the key file and the lane file, then lets the keys leave memory and gives back the unused end of the file.
fn seal(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let (disk, name) = (&*shared.disk, segment.name);
    let keys = shared.keys.of_segment(name);
    let table = segment.table();
    let bytes = KeyFile::encode(name, &keys);
    write_whole(disk, &name.keys(), &bytes).or_else(|error| with_reserve(shared, &name.keys(), &bytes, error))?;
    write_whole(disk, &name.lanes(), &table.encode(name))?;
    disk.sync_dir()?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the key file cannot be read back");
    shared.keys.seal(name, Some(KeyFile::open(disk, name)?.ok_or_else(damaged)?));
    if disk.truncate(&name.segment(), table.end).is_ok() {
        segment.size.store(table.end, Ordering::Relaxed);
    }
    // Last: from now on its file may become another segment.
    segment.sealed.store(true, Ordering::Release);
    Ok(())
}
