//! The file of `--progress`: the place where a replay resumes, even after `kill -9`. Each write replaces the whole file, so the file is
//! complete at any time. The writes are not synced, so a power cut can lose the file.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::super::UsageError;
use super::command_line::shell_words;
use super::selection::ReplaySelection;

/// Contents of the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayState {
    /// Version of the file's format.
    format: u32,
    /// Id of the replay.
    pub(super) replay: String,
    /// Id of the journal.
    journal: String,
    /// Destination as the operator has named it; `None` for the topics of the events.
    to: Option<String>,
    pub(super) selection: ReplaySelection,
    /// Sequence at which the replay ends: the log end at its start, unless the selection ends before.
    pub(super) end: u64,
    /// Sequence below which every selected event is acknowledged, rejected or skipped.
    pub(super) next: u64,
}

impl ReplayState {
    /// Creates the state of a new replay.
    pub(super) fn new(
        replay: String,
        journal: String,
        to: Option<String>,
        selection: ReplaySelection,
        next: u64,
        end: u64,
    ) -> ReplayState {
        ReplayState { format: FORMAT, replay, journal, to, selection, end, next }
    }

    /// Returns the id of the journal.
    pub(super) fn journal(&self) -> &str {
        &self.journal
    }
}

/// Reads the file; `None` if it does not exist. Fails if the file belongs to another replay.
pub(super) fn read(
    path: &Path,
    journal: &str,
    to: Option<&str>,
    selection: &ReplaySelection,
) -> Result<Option<ReplayState>, UsageError> {
    let name = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(UsageError(format!("--progress: cannot read {name}: {error}; name another file"))),
    };
    let state: ReplayState = serde_json::from_slice(&bytes).map_err(|error| {
        UsageError(format!("--progress: expected a file of `hookhold replay`, found {name} ({error}); name another file"))
    })?;
    if state.format != FORMAT || state.selection.compile().is_none() {
        let found = format!("{name} of another version of hookhold");
        return Err(UsageError(format!("--progress: expected a file of this version, found {found}; name another file")));
    }
    if state.journal != journal {
        let found = format!("{name} of the journal {}", state.journal);
        return Err(UsageError(format!(
            "--progress: expected a file of the journal {journal}, found {found}; name another file"
        )));
    }
    if state.to.as_deref() != to || state.selection != *selection {
        let to = state.to.iter().flat_map(|to| ["--to".to_owned(), to.clone()]);
        let of_file = shell_words(&state.selection.given().into_iter().chain(to).collect::<Vec<_>>());
        let remedy = "repeat these options to resume it, or name another file for another replay";
        return Err(UsageError(format!(
            "--progress: expected the options with which {name} began ({of_file}), found others; {remedy}"
        )));
    }
    Ok(Some(state))
}

/// Replaces the file.
pub(super) fn write(path: &Path, state: &ReplayState) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    let written = NamedTempFile::new_in(dir).and_then(|mut file| {
        serde_json::to_writer(&mut file, state)?;
        file.write_all(b"\n")?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    });
    let name = path.display();
    written
        .map_err(|error| io::Error::new(error.kind(), format!("--progress: cannot write {name}: {error}; check the directory")))
}

/// Version of the file's format.
const FORMAT: u32 = 1;
