//! Reads the rejected deliveries in the journal's directory, for the admin API and for the verbs. Works while another process
//! writes them.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::journal::RejectionFiles;
use crate::journal::disk::Disk;
use crate::rejections::RejectedDelivery;

/// Calls `each` with every rejected delivery in `disk`, in the order in which they were written. Returns the number of damaged
/// entries, which it skips. A file that cannot be read counts as one.
pub fn read_rejections(disk: Arc<dyn Disk>, mut each: impl FnMut(RejectedDelivery)) -> io::Result<u64> {
    let (files, mut damaged, mut ids) = (RejectionFiles::new(disk), 0, HashSet::new());
    for file in files.list()? {
        let mut entries = match files.entries(file.ordinal) {
            Ok(entries) => entries,
            // The writer may have deleted the file since the listing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => {
                damaged += 1;
                continue;
            }
        };
        for entry in entries.by_ref() {
            match RejectedDelivery::decode(&entry) {
                // The writer copies entries to a new file before it deletes the old one, so an entry may be in two files.
                Some(rejected) if ids.insert(rejected.id) => each(rejected),
                Some(_) => {}
                None => damaged += 1,
            }
        }
        damaged += entries.damaged;
    }
    Ok(damaged)
}

/// Returns true if `disk` contains rejected deliveries. Reads only the names of files.
pub fn has_rejections(disk: Arc<dyn Disk>) -> bool {
    RejectionFiles::new(disk).list().is_ok_and(|files| !files.is_empty())
}

/// Returns the newest rejected deliveries of a source, or of all sources, as JSON: one per line, newest first, and at most
/// [`MAX_PAGE_BYTES`] of requests.
pub(super) fn page(disk: Arc<dyn Disk>, source: Option<&str>, not_before: UnixMillis) -> io::Result<String> {
    let (mut newest, mut bytes) = (VecDeque::new(), 0);
    read_rejections(disk, |rejected| {
        if source.is_some_and(|source| *source != *rejected.source) || rejected.received_at < not_before {
            return;
        }
        bytes += rejected.request.len();
        newest.push_back(rejected);
        while bytes > MAX_PAGE_BYTES
            && let Some(oldest) = newest.pop_front()
        {
            bytes -= oldest.request.len();
        }
    })?;
    newest.make_contiguous().sort_by_key(|rejected| std::cmp::Reverse(rejected.id));
    Ok(newest.iter().map(|rejected| format!("{}\n", rejected.json())).collect())
}

/// Maximum size of the requests on one page of the admin API, in bytes.
const MAX_PAGE_BYTES: usize = 32 << 20;
