//! Errors of the journal.

use std::io;

/// Reason why an append was rejected. The journal stores nothing of the event and does not call its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRejected {
    /// `max_size` or the disk is used up.
    #[error("the journal is full")]
    Full,
    /// The event's topic pins `max_backlog` bytes.
    #[error("the topic's backlog is full")]
    TopicFull,
    /// The queue for the writer would exceed [`MAX_QUEUED_BYTES`](super::MAX_QUEUED_BYTES).
    #[error("the journal's queue is full")]
    Overloaded,
    /// The journal is closing.
    #[error("the journal is closing")]
    Closing,
    /// A sync has failed, and the process is about to exit.
    #[error("the journal has failed")]
    Failed,
}

/// Reason why an accepted event is not known to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal had no room. The event is not stored.
    #[error("the journal is full")]
    Full,
    /// The write failed. The event is not stored, and its segment is abandoned.
    #[error("the write failed")]
    Write,
    /// The sync failed. Only recovery can decide whether the event is stored.
    #[error("the sync failed")]
    Sync,
}

/// Reason why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the journal open for writing.
    #[error("another hookhold is using this journal; stop it first")]
    Locked,
    /// The disk has no room for the copy of the unconfirmed events or for a small first segment.
    #[error("the journal cannot open without {bytes} free bytes on its disk; free some disk space")]
    NoRoom {
        /// Bytes that the start must write.
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

/// Adds the failed step to an I/O error.
pub(super) fn context<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Io { what: what(), source })
}

/// Adds the name of the file to an I/O error. The kind of the error stays the same.
pub(super) fn in_file<T>(result: io::Result<T>, file: impl FnOnce() -> String) -> io::Result<T> {
    result.map_err(|source| io::Error::new(source.kind(), format!("{}: {source}", file())))
}
