//! The cursors that a scan finds. The first commit of a segment contains the cursors of all topics, and later commits contain the
//! cursors that have moved. If a first commit is damaged, the later commits of its segment apply to the cursors of the previous
//! segment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frame::CursorsFrame;

/// The last readable cursor of each topic in one or more consecutive segments.
#[derive(Default)]
pub(super) struct ScannedCursors {
    /// True if a readable frame contains the cursors of all topics. If a later frame is damaged, some topics have an older
    /// cursor.
    pub(super) is_complete: bool,
    /// End of the backlog in the newest segment, see [`CursorsFrame::backlog_end`]. An older segment does not count, because the
    /// journal may have forwarded events since then.
    backlog_end: Option<u64>,
    has_newest: bool,
    by_topic: BTreeMap<Arc<str>, u64>,
}

impl ScannedCursors {
    /// Adds the cursors of a newer frame.
    pub(super) fn add_newer(&mut self, frame: CursorsFrame) {
        if frame.is_complete {
            self.by_topic.clear();
            (self.is_complete, self.backlog_end) = (true, frame.backlog_end);
        }
        self.by_topic.extend(frame.cursors);
    }

    /// Adds the cursors of an older segment, except for topics with a newer cursor. Does nothing if no cursor is missing.
    pub(super) fn add_older(&mut self, older: &ScannedCursors) {
        if !std::mem::replace(&mut self.has_newest, true) {
            self.backlog_end = older.backlog_end;
        }
        if self.is_complete {
            return;
        }
        self.is_complete = older.is_complete;
        for (topic, cursor) in &older.by_topic {
            self.by_topic.entry(topic.clone()).or_insert(*cursor);
        }
    }
}

impl From<ScannedCursors> for CursorsFrame {
    fn from(ScannedCursors { is_complete, backlog_end, by_topic, .. }: ScannedCursors) -> CursorsFrame {
        CursorsFrame { is_complete, cursors: by_topic.into_iter().collect(), backlog_end }
    }
}
