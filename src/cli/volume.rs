//! The file system of the journal: what `check` and `run` say about it.

use std::io;
use std::path::{Path, PathBuf};

use hookhold::config::JournalConfig;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{FileSystem, FileSystemKind, file_system as file_system_of};

use super::UsageError;

/// Returns the file system on which the journal is, or will be once hookhold creates its directory.
pub(super) fn file_system(journal: &JournalConfig) -> io::Result<FileSystem> {
    file_system_of(&nearest_directory(journal)?)
}

/// Returns the journal's directory, or its nearest parent that exists.
pub(super) fn nearest_directory(journal: &JournalConfig) -> io::Result<PathBuf> {
    let whole = std::path::absolute(&journal.dir)?;
    Ok(whole.ancestors().find(|dir| dir.exists()).unwrap_or(&whole).to_owned())
}

/// Fails if the path of the journal's directory, or a part of it, is not a directory.
pub(super) fn check_directory(journal: &JournalConfig) -> Result<(), UsageError> {
    match nearest_directory(journal) {
        Ok(nearest) if !nearest.is_dir() => {
            let found = nearest.display();
            Err(UsageError(format!("journal.dir: expected a directory, found the file {found}; correct the path")))
        }
        _ => Ok(()),
    }
}

/// Returns the number of bytes that this process may still write to the file system of `dir`.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Opens the journal's directory, and logs a warning if its file system is not known to honour syncs.
pub(super) fn open(journal: &JournalConfig) -> io::Result<LocalDisk> {
    let disk = LocalDisk::create(&journal.dir)?;
    if let Some(warning) = warning(&file_system(journal)?) {
        tracing::warn!(dir = %journal.dir.display(), "{warning}");
    }
    Ok(disk)
}

/// Returns the error for a journal on a network file system; `None` if hookhold may start.
pub(super) fn error(journal: &JournalConfig, found: &FileSystem) -> Option<String> {
    let is_rejected = found.kind == FileSystemKind::Network && !journal.danger_network_filesystem;
    let name = &found.name;
    is_rejected.then(|| {
        format!(
            "journal.dir: expected a local file system, found {name}; move journal.dir to a local disk, or set \
             journal.danger_network_filesystem = true if a 2xx may promise no more than {name} does"
        )
    })
}

/// Returns the warning about a file system that is not known to honour syncs; `None` if it is known to honour them.
pub(super) fn warning(found: &FileSystem) -> Option<String> {
    let remedy = "move journal.dir to ext4 or XFS; on this file system, a power cut may destroy events that hookhold has \
                  answered with 2xx";
    (found.kind != FileSystemKind::Tested).then(|| format!("journal.dir: expected ext4 or XFS, found {}; {remedy}", found.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_file_system_prevents_the_start_unless_the_operator_accepts_the_danger() {
        let nfs = FileSystem { name: "nfs".into(), kind: FileSystemKind::Network };
        let ext4 = FileSystem { name: "ext4".into(), kind: FileSystemKind::Tested };
        let journal = |danger| JournalConfig { danger_network_filesystem: danger, ..JournalConfig::default() };
        let rejected = error(&journal(false), &nfs).expect("an error");
        assert!(rejected.contains("found nfs") && rejected.contains("danger_network_filesystem"), "{rejected}");
        assert_eq!(error(&journal(true), &nfs), None);
        assert_eq!(error(&journal(false), &ext4), None);
        assert!(warning(&nfs).is_some() && warning(&ext4).is_none());
    }
}
