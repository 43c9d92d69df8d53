//! Checks that this process still owns the journal. An operator may have moved the directory, or another process may have opened the
//! journal although this process has it open, for example on a file system without working locks.

use std::io;

use super::Shared;
use super::lock_file::{LOCK_FILE, OwnerRecord};
use super::planted::is_planted;

/// Returns true if this process still owns the journal. Otherwise, marks the journal as failed, so that the process exits.
pub(super) fn check(shared: &Shared) -> bool {
    if is_planted("unchecked lock") {
        return true;
    }
    let lost = match loss(shared) {
        Ok(lost) => lost,
        Err(error) => {
            tracing::warn!(%error, "cannot check that this process still owns the journal; check the disk");
            None
        }
    };
    if let Some(reason) = lost {
        tracing::error!(
            "{reason}, so the process exits; start hookhold only once for a directory, and stop it before you move it"
        );
        shared.health.set_failed();
        shared.listeners.notify_watchers();
    }
    lost.is_none()
}

/// Returns the reason why this process no longer owns the journal; `None` if it owns the journal. A missing lock file is no such
/// reason, because the lock belongs to the directory.
fn loss(shared: &Shared) -> io::Result<Option<&'static str>> {
    if !shared.disk.is_in_place()? {
        return Ok(Some("the path of the journal's directory no longer leads to the directory that this process has locked"));
    }
    let record = match shared.disk.open(LOCK_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => OwnerRecord::read(&*file?),
    };
    let is_other = record.is_some_and(|record| record.log != shared.log);
    Ok(is_other.then_some("another process has opened the journal"))
}
