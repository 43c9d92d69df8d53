//! The replays of a journal, so that `hookhold inspect` can show which of them have sent an event. They are in a file of the journal's
//! directory, one JSON object per line, the newest last. The file names at most [`MAX_REPLAYS`] replays.

use std::io;

use hookhold::clock::UnixMillis;
use hookhold::journal::disk::Disk;
use hookhold::journal::{StoredEvent, read_replays, write_replays};
use serde::{Deserialize, Serialize};

use super::selection::ReplaySelection;

/// A replay that has sent events.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::cli) struct PastReplay {
    /// Id of the replay.
    pub(in crate::cli) replay: String,
    /// End of the last run, Unix milliseconds.
    at: u64,
    /// Destination as the operator has named it; `None` for the topics of the events.
    to: Option<String>,
    selection: ReplaySelection,
    /// First sequence that the replay could select.
    from: u64,
    /// Sequence below which the replay has sent every selected event.
    next: u64,
}

impl PastReplay {
    /// Creates the note of a run that has sent the selected events from `from` to before `next`.
    pub(super) fn new(
        replay: &str,
        at: UnixMillis,
        to: Option<&str>,
        selection: &ReplaySelection,
        from: u64,
        next: u64,
    ) -> PastReplay {
        let to = to.map(str::to_owned);
        PastReplay { replay: replay.to_owned(), at: at.0, to, selection: selection.clone(), from, next }
    }

    /// Returns the destination in words.
    pub(in crate::cli) fn to(&self) -> &str {
        self.to.as_deref().unwrap_or("its own topic")
    }

    /// Returns the end of the last run (RFC 3339).
    pub(in crate::cli) fn at(&self) -> String {
        UnixMillis(self.at).rfc3339()
    }

    fn contains(&self, stored: &StoredEvent) -> bool {
        let is_selected = || self.selection.compile().is_some_and(|selection| selection.accepts(stored));
        (self.from..self.next).contains(&stored.position.seq) && is_selected()
    }
}

/// Notes a replay. A run that resumes a replay with the same selection replaces the note of the earlier run.
pub(super) fn note(disk: &dyn Disk, mut replay: PastReplay) -> io::Result<()> {
    let mut replays = read(disk)?;
    let is_earlier = |one: &PastReplay| one.replay == replay.replay && one.selection == replay.selection;
    if let Some(index) = replays.iter().position(is_earlier) {
        replay.from = replay.from.min(replays.remove(index).from);
    }
    replays.push(replay);
    let surplus = replays.len().saturating_sub(MAX_REPLAYS);
    let mut content = Vec::new();
    for replay in &replays[surplus..] {
        serde_json::to_writer(&mut content, replay)?;
        content.push(b'\n');
    }
    write_replays(disk, &content)
}

/// Returns the replays that have sent this event, the newest last.
pub(in crate::cli) fn of_event(disk: &dyn Disk, stored: &StoredEvent) -> io::Result<Vec<PastReplay>> {
    let mut replays = read(disk)?;
    replays.retain(|replay| replay.contains(stored));
    Ok(replays)
}

/// Reads the replays. Ignores lines that this version cannot read.
fn read(disk: &dyn Disk) -> io::Result<Vec<PastReplay>> {
    let content = read_replays(disk, MAX_BYTES)?;
    Ok(content.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Maximum number of replays in the file.
const MAX_REPLAYS: usize = 100;
/// Maximum size of the file that is read, in bytes. A selection with many ids may make a line long.
const MAX_BYTES: usize = 4 << 20;
