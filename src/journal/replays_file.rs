//! The file `replays` in the journal's directory. `hookhold replay` notes in it what it has sent. The journal neither reads its content
//! nor needs the file.

use std::io;

use super::disk::{Disk, write_atomically};

/// Reads at most `max` bytes of the file `replays`. Returns nothing if there is no such file.
pub fn read_replays(disk: &dyn Disk, max: usize) -> io::Result<Vec<u8>> {
    let file = match disk.open(REPLAYS_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut content = vec![0; max];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(content)
}

/// Replaces the file `replays`. After a crash or a power cut, the file has its old or its new content.
pub fn write_replays(disk: &dyn Disk, content: &[u8]) -> io::Result<()> {
    write_atomically(disk, REPLAYS_FILE, content)
}

/// Name of the file. The startup deletes its temporary copy after a crash, as for every file of the journal.
pub(super) const REPLAYS_FILE: &str = "replays";
