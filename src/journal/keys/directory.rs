//! The key files of a directory, as their names and headers describe them. Never changes a file.

use std::collections::HashSet;
use std::io;

use super::super::disk::Disk;
use super::header::{KeyFileHeader, KeyFileName};

/// Key files of a directory.
#[derive(Default)]
pub(crate) struct KeyDirectory {
    /// Files that contain keys which no other file replaces.
    pub(super) files: Vec<FoundKeyFile>,
    /// Files that a merged file replaces. An interrupted merge leaves them.
    pub(super) replaced: Vec<KeyFileName>,
    /// Files without a valid header, each with a description of what it has.
    pub(super) damaged: Vec<(KeyFileName, String)>,
    /// Ids of the segments and merged files whose keys are in a valid file.
    ids: HashSet<u64>,
}

/// A key file with a valid header.
pub(super) struct FoundKeyFile {
    pub(super) name: KeyFileName,
    pub(super) header: KeyFileHeader,
}

impl KeyDirectory {
    /// Reads the headers of all key files, one file at a time. A damaged or unreadable file does not make this function fail.
    pub(crate) fn read(disk: &dyn Disk) -> io::Result<KeyDirectory> {
        let (mut files, mut damaged) = (Vec::new(), Vec::new());
        let names = disk.list()?.into_iter().filter_map(|(file, _)| KeyFileName::parse(&file));
        for name in names {
            let opened = match disk.open(&name.to_string()) {
                // Another process may have deleted the file after a merge.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(|error| error.to_string()),
            };
            match opened.and_then(|file| KeyFileHeader::read(&*file, name.id())) {
                Ok(header) => files.push(FoundKeyFile { name, header }),
                Err(found) => damaged.push((name, found)),
            }
        }
        let named: HashSet<u64> = files.iter().flat_map(|file| file.header.replaced.iter().copied()).collect();
        let ids = named.iter().copied().chain(files.iter().map(|file| file.name.id())).collect();
        let (replaced, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| named.contains(&file.name.id()));
        let replaced = replaced
            .iter()
            .map(|file| file.name)
            .chain(damaged.iter().map(|(name, _)| *name))
            .filter(|name| named.contains(&name.id()));
        let replaced = replaced.collect();
        damaged.retain(|(name, _)| !named.contains(&name.id()));
        Ok(KeyDirectory { files, replaced, damaged, ids })
    }

    /// Returns true if a valid file contains the keys of the segment with this id.
    pub(crate) fn has_keys_of(&self, segment: u64) -> bool {
        self.ids.contains(&segment)
    }

    /// Returns true if the file with this id exists, and has no valid header.
    pub(super) fn is_damaged(&self, id: u64) -> bool {
        self.damaged.iter().any(|(name, _)| name.id() == id)
    }
}
