//! Reads all keys of a key file in order, for merges and for the startup. Skips damaged pages. The startup also skips pages that
//! cannot be read. A merge fails instead, because it would lose their keys for good, and is repeated later.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::disk::DiskFile;
use super::block::KeyBlock;
use super::damage::UnreadablePages;
use super::entry::KeyEntry;
use super::page::{KeyPage, PAGE_LEN};

/// Reader of the keys of one file.
pub(super) struct KeyReader {
    file: Arc<dyn DiskFile>,
    id: u64,
    unreadable: Arc<UnreadablePages>,
    /// Ranges of the pages that the reader has not read yet: offset of the first page and number of pages, in reverse order.
    left: Vec<(u64, usize)>,
    /// Entries that the reader has read and not returned, in reverse order.
    entries: Vec<KeyEntry>,
    /// True if the reader skips a page that cannot be read at the first attempt.
    skips_unreadable: bool,
}

impl KeyReader {
    /// Creates a reader of these blocks of the file with this id.
    pub(super) fn new(file: Arc<dyn DiskFile>, id: u64, blocks: &[KeyBlock], unreadable: Arc<UnreadablePages>) -> KeyReader {
        let left = blocks.iter().rev().map(|block| (block.offset, block.pages())).collect();
        KeyReader { file, id, unreadable, left, entries: Vec::new(), skips_unreadable: false }
    }

    /// Makes the reader skip every page that cannot be read. The file must remain, so that its keys are only unknown until the
    /// next attempt.
    pub(super) fn skip_unreadable(mut self) -> KeyReader {
        self.skips_unreadable = true;
        self
    }

    /// Returns the next entry; `None` after the last entry.
    pub(super) fn next(&mut self) -> io::Result<Option<KeyEntry>> {
        while self.entries.is_empty() {
            let Some((offset, pages)) = self.left.pop() else { return Ok(None) };
            let now = pages.min(READ_PAGES);
            if now < pages {
                self.left.push((offset + (now * PAGE_LEN) as u64, pages - now));
            }
            self.read(offset, now)?;
            self.entries.reverse();
        }
        Ok(self.entries.pop())
    }

    /// Reads some consecutive pages. If they cannot be read together, reads them one by one.
    fn read(&mut self, offset: u64, pages: usize) -> io::Result<()> {
        let mut bytes = vec![0; pages * PAGE_LEN];
        match self.file.read_at(&mut bytes, offset) {
            Ok(_) => {}
            Err(error) if is_unreadable(&error) && pages > 1 => {
                return (0..pages).try_for_each(|page| self.read(offset + (page * PAGE_LEN) as u64, 1));
            }
            Err(error) if is_unreadable(&error) && (self.skips_unreadable || self.unreadable.is_given_up(offset)) => {
                self.unreadable.add(offset, Some(&error));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        for (page, bytes) in bytes.chunks_exact(PAGE_LEN).enumerate() {
            let at = offset + (page * PAGE_LEN) as u64;
            match KeyPage::parse(bytes, self.id, at) {
                Some(page) => self.entries.extend(page.entries()),
                None => self.unreadable.add(at, None),
            }
        }
        Ok(())
    }
}

/// Returns true if the disk cannot read a sector. Any other error may concern all pages, so a merge must not treat it as damage.
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Number of pages that a reader reads at once.
const READ_PAGES: usize = 8;
