//! Stores the addresses of known senders in the journal's directory. A process that takes over reads the file before it has the journal.

use std::io;
use std::sync::{Arc, OnceLock};

use crate::journal::disk::Disk;
use crate::journal::{Journal, read_senders};
use crate::server::KnownSendersFile;

/// File in the directory of a journal.
pub(super) struct SendersFile {
    disk: Arc<dyn Disk>,
    journal: OnceLock<Journal>,
}

impl SendersFile {
    pub(super) fn new(disk: Arc<dyn Disk>) -> SendersFile {
        SendersFile { disk, journal: OnceLock::new() }
    }

    /// Allows writes, because this process has opened the journal.
    pub(super) fn set_journal(&self, journal: Journal) {
        let _ = self.journal.set(journal);
    }
}

impl KnownSendersFile for SendersFile {
    fn read(&self, max: usize) -> io::Result<Vec<u8>> {
        read_senders(&*self.disk, max)
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        let journal = self.journal.get().ok_or_else(|| io::Error::other("expected an open journal, found none yet"))?;
        journal.write_senders(content)
    }
}
