//! Defines how the background thread seals a full segment: it writes the key file and the summary file, then frees memory and
//! unused disk space.

use std::io;
use std::sync::atomic::Ordering;

use super::super::Shared;
use super::super::disk::write_atomically;
use super::super::frame::PAGE;
use super::super::keys::encode_key_file;
use super::super::planted::is_planted;
use super::super::segment::Segment;

/// Seals a segment and returns true. If a step fails, logs the error, keeps the segment's keys in memory and returns false.
pub(super) fn try_seal(shared: &Shared, segment: &Segment) -> bool {
    let sealed = seal(shared, segment);
    if let Err(error) = &sealed {
        let file = segment.name.segment_file();
        tracing::error!(segment = file, %error, "cannot seal a segment, so its keys stay in memory; check the disk");
    }
    sealed.is_ok()
}

/// Writes the key file and the summary file, and truncates the segment's file to the end of the last frame. The keys stay in
/// memory until a merge needs the room.
fn seal(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let (disk, name) = (&*shared.disk, segment.name);
    let summary = segment.summary();
    let entries = shared.keys.take_unsealed(name);
    let (header, keys) = encode_key_file(name.id, &entries, shared.keys.rebuilt(&segment.replaced));
    let write = || {
        shared.background.reserve.write(disk, &name.key_file(), &keys)?;
        write_atomically(disk, &name.summary_file(), &summary.encode(name))?;
        if is_planted("name of a key file not synced") { Ok(()) } else { shared.sync_dir() }
    };
    if let Err(error) = write() {
        shared.keys.restore_unsealed(name, entries);
        return Err(error);
    }
    shared.keys.seal(name, header);
    // Whole pages, because the file system rewrites a page that it cuts off, and a power cut could then destroy the page.
    let end = summary.end.next_multiple_of(PAGE);
    if disk.truncate(&name.segment_file(), end).is_ok() {
        segment.size.store(end, Ordering::Relaxed);
    }
    // Set the sealed state in the last step, because the file of a sealed segment may become another segment at any time.
    segment.set_sealed();
    Ok(())
}
