//! The file with the place up to which the local program of `--forward` has answered, in the directory of a named journal. With it,
//! `dev` continues after a restart where it has stopped.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// File with the URL of the program, and the sequence below which it has answered every event.
pub(super) struct ProgramCursor {
    path: PathBuf,
    url: String,
}

impl ProgramCursor {
    /// Creates the handle to the file of a journal in the directory `journal`.
    pub(super) fn new(journal: &Path, url: &str) -> ProgramCursor {
        ProgramCursor { path: journal.join(FILE), url: url.to_owned() }
    }

    /// Returns the sequence in the file; `None` if there is no file, or if it belongs to another URL.
    pub(super) fn read(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (url, seq) = text.split_once('\n')?;
        seq.trim().parse().ok().filter(|_| url == self.url)
    }

    /// Replaces the file. It is complete at any time, but not synced: after a power cut, the program may receive events again.
    pub(super) fn write(&self, seq: u64) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(directory)?;
        writeln!(file, "{}\n{seq}", self.url)?;
        file.persist(&self.path).map(drop).map_err(|error| error.error)
    }
}

const FILE: &str = "dev-forward";
