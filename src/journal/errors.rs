//! Errors of the journal.

use std::io;

/// Reason why the journal rejected an append. The journal does not store the event and never calls the completion of the
/// append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRejected {
    /// The disk is full, or the journal has reached `max_size`.
    #[error("journal: expected free space for the event, found none; free some disk space or raise journal.max_size")]
    Full,
    /// The event's topic would pin more bytes than `max_backlog` or than its share of `max_size`.
    #[error(
        "max_backlog: expected room in the topic's backlog or in its share of max_size, found none; see \
         hookhold_forward_blocked, or raise max_backlog and max_size"
    )]
    TopicFull,
    /// The queue for the writer would exceed [`MAX_QUEUED_BYTES`](super::MAX_QUEUED_BYTES).
    #[error("journal: expected free space in the writer's queue, found none; retry later")]
    Overloaded,
    /// The events of the batch would together never fit into the journal.
    #[error("journal: expected a batch that fits into the journal, found a larger one; raise max_size and max_backlog")]
    BatchTooLarge,
    /// The journal is closing.
    #[error("the journal is closing")]
    Closing,
    /// A sync has failed or a journal thread has panicked, and the process is about to exit.
    #[error("the journal has failed; see the log for the cause")]
    Failed,
}

/// Reason why an accepted event was not stored, or may not have been stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal had no room. The event is not stored.
    #[error("journal: expected free space for the event, found none; free some disk space or raise journal.max_size")]
    Full,
    /// The write failed. The event is not stored, and the writer abandons the segment.
    #[error("the write to the journal failed; check the disk")]
    Write,
    /// The sync failed. Only recovery can determine whether the event is stored.
    #[error("the sync of the journal failed; check the disk")]
    Sync,
}

/// Reason why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the journal open for writing.
    #[error("expected a journal that no process has open, found one that another hookhold uses; stop that process")]
    Locked,
    /// The disk has no room for the copy of the unconfirmed events or for a small first segment.
    #[error("expected at least {bytes} free bytes and a free inode on the journal's disk, found fewer; free some disk space")]
    NoRoom {
        /// Required free space on the disk, in bytes.
        bytes: u64,
    },
    /// An I/O operation failed.
    #[error("{what}")]
    Io {
        /// Description of the failed step.
        what: String,
        /// I/O error that made the step fail.
        #[source]
        source: io::Error,
    },
}

/// Adds a description of the failed step to an I/O error.
pub(super) fn context<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Io { what: what(), source })
}

/// Adds the name of the file to an I/O error. Preserves the kind of the error.
pub(super) fn in_file<T>(result: io::Result<T>, file: impl FnOnce() -> String) -> io::Result<T> {
    result.map_err(|source| io::Error::new(source.kind(), format!("{}: {source}", file())))
}

/// Returns `None` for a file that cannot be read, because the segments contain everything that the other files contain, and
/// each frame contains everything that the header contains. Fails if the file has another format.
pub(super) fn if_readable<T>(result: io::Result<Option<T>>, file: impl Fn() -> String) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => in_file(Err(error), file),
        Err(error) => {
            tracing::error!(file = file(), %error, "cannot read a file of the journal, so hookhold continues without it; check the disk");
            Ok(None)
        }
        found => found,
    }
}
