//! Errors of the journal.

use std::io;

/// Why an append was rejected. Nothing of the event is stored, and its completion is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRejected {
    /// `max_size` or the disk is used up.
    #[error("the journal is full")]
    Full,
    /// The event's topic pins `max_backlog` bytes.
    #[error("the topic's backlog is full")]
    TopicFull,
    /// More than [`MAX_QUEUED_BYTES`](super::MAX_QUEUED_BYTES) wait for the writer.
    #[error("the journal's queue is full")]
    Overloaded,
    /// The journal is closing.
    #[error("the journal is closing")]
    Closing,
    /// A sync has failed; the process is about to exit.
    #[error("the journal has failed")]
    Failed,
}

/// Why an accepted event is not known to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal had no room for it: certainly not stored.
    #[error("the journal is full")]
    Full,
    /// The write failed: not stored, and its segment is abandoned.
    #[error("the write failed")]
    Write,
    /// The sync failed: unknown; recovery decides.
    #[error("the sync failed")]
    Sync,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open for writing.
    #[error("another hookhold is using this journal; stop it first")]
    Locked,
    /// The disk has no room for the copy of the unconfirmed events or for a small first segment.
    #[error("the journal cannot open without {bytes} free bytes on its disk; free some disk space")]
    NoRoom {
        /// Bytes that must be written.
        bytes: u64,
    },
    /// A file could not be read or written.
    #[error("{what}")]
    Io {
        /// The failed step, with the name of the file.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Adds to an I/O error what was being done.
pub(super) fn context<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Io { what: what(), source })
}
