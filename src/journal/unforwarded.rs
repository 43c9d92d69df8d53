//! Events that wait for a topic to which hookhold does not forward any more, because an operator has removed its configuration.
//! They pin their space until an operator gives them up.

use std::io;
use std::sync::Arc;

use super::backlog::Backlog;
use super::errors::OpenError;
use super::options::Options;
use super::{Environment, Journal};

/// Events of one topic that wait although the journal does not forward events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnforwardedEvents {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of waiting events.
    pub events: u64,
    /// Number of bytes that these events pin.
    pub bytes: u64,
}

impl Journal {
    /// Returns the events that wait for a topic although the journal does not forward events. The list is empty if the journal
    /// forwards events. Reads the frames of each segment that contains both waiting and acknowledged events of a topic.
    pub fn unforwarded(&self) -> Vec<UnforwardedEvents> {
        let segments = &self.0.segments;
        let Some(backlog_end) = segments.backlog_end() else { return Vec::new() };
        let cursors = segments.cursors();
        let topics =
            segments.update_backlogs(&self.0.options).0.into_iter().filter(|(_, backlog)| *backlog != Backlog::default());
        let waiting = topics.map(|(topic, backlog)| {
            let events = self.count(&topic, cursors.get(&topic).copied().unwrap_or(backlog_end), backlog_end);
            UnforwardedEvents { topic, events, bytes: backlog.waiting_bytes }
        });
        waiting.filter(|waiting| waiting.events > 0).collect()
    }

    /// Gives up the events of a topic below sequence `below` in a closed journal: opens the journal, moves the topic's cursor to
    /// `below`, and closes the journal again. Returns the number of events that waited. The events stay in the journal like
    /// acknowledged events, and their keys stay known.
    pub fn give_up(environment: Environment, options: Options, topic: &str, below: u64) -> Result<u64, OpenError> {
        let (journal, writer, background) = Journal::open_in_steps(environment, options)?;
        let cursor = journal.0.segments.cursors().get(topic).copied();
        let below = below.min(journal.durable_watermark());
        let mut events = 0;
        if let Some(cursor) = cursor.filter(|cursor| *cursor < below) {
            events = journal.count(topic, cursor, below);
            journal.save_cursor(topic, below, 0);
            tracing::warn!(topic, events, from = cursor, below, "gave up the waiting events of a topic");
        }
        journal.close_in_steps(writer, background);
        match journal.failed() || journal.0.segments.has_moved_cursors() {
            false => Ok(events),
            true => Err(OpenError::Io {
                what: "cannot save the topic's cursor, so nothing is given up".into(),
                source: io::Error::other("expected a successful commit, found a failed one; see the log for the cause"),
            }),
        }
    }
}
