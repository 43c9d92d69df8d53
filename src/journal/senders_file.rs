//! The file `senders` in the journal's directory. The server saves the addresses of known senders in it. The journal neither reads its
//! content nor needs the file.

use std::io;

use super::Journal;
use super::disk::{Disk, write_atomically};

/// Reads at most `max` bytes of the file `senders` in the directory `disk`. Another process may have the journal open. Fails with
/// [`io::ErrorKind::NotFound`] if there is no such file.
pub fn read_senders(disk: &dyn Disk, max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(SENDERS_FILE)?;
    let mut content = vec![0; max];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(content)
}

impl Journal {
    /// Replaces the file `senders`. After a crash or a power cut, the file has its old or its new content.
    pub fn write_senders(&self, content: &[u8]) -> io::Result<()> {
        if self.failed() {
            return Err(io::Error::other("expected a journal that works, found one that has failed"));
        }
        write_atomically(&*self.0.disk, SENDERS_FILE, content)
    }
}

/// Name of the file. The startup deletes its temporary copy after a crash, as for every file of the journal.
pub(super) const SENDERS_FILE: &str = "senders";
