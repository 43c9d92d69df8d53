//! Why the journal rejects.

use std::io;

/// Why an event was not taken. Nothing of it is kept, and nobody waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRejected {
    /// `max_size` or the disk is used up.
    #[error("the journal is full")]
    Full,
    /// The event's lane is at `max_backlog`.
    #[error("the lane's backlog is full")]
    TopicFull,
    /// More than [`MAX_QUEUED`] bytes wait for the writer.
    #[error("the journal's queue is full")]
    Overloaded,
    /// The journal is closing.
    #[error("the journal is closing")]
    Closing,
    /// A sync has failed; the process is about to end.
    #[error("the journal has failed")]
    Failed,
}

/// Why an event that had been taken is not known to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There was no room for it: certainly not kept.
    #[error("the journal is full")]
    Full,
    /// It could not be written: not kept, its segment is abandoned.
    #[error("the write failed")]
    Write,
    /// It could not be synced: unknown; recovery decides.
    #[error("the sync failed")]
    Sync,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open for writing.
    #[error("another hookhold is using this journal")]
    Locked,
    /// The events that a crash left unsure must be copied, and a small segment begun; they do not fit on the disk.
    #[error("no room for {bytes} bytes that must be written before the journal can open: free some disk space")]
    NoRoom {
        /// What is needed.
        bytes: u64,
    },
    /// A file could not be read or written.
    #[error("{what}")]
    Io {
        /// What was being done, to which file.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

pub fn context<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Io { what: what(), source })
}
