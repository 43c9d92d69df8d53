//! Stores the addresses of known senders in the journal's directory.

use std::io;

use crate::journal::Journal;
use crate::server::KnownSendersFile;

/// File in the directory of a journal.
pub(super) struct SendersFile(pub(super) Journal);

impl KnownSendersFile for SendersFile {
    fn read(&self, max: usize) -> io::Result<Vec<u8>> {
        self.0.read_senders(max)
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        self.0.write_senders(content)
    }
}
