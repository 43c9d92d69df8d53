//! State of the forwarding of one event, as the saved cursors show it: whether Kafka has acknowledged it, and how many events of its
//! topic wait before it.

use std::io;

use super::backlog::WaitingEvents;
use super::directory_scan::DirectoryScan;
use super::disk::Disk;
use super::scanned_frame::ScannedFrame;

/// State of the forwarding of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventStanding {
    /// Sequence below which every event of the topic is acknowledged; `None` if the topic has no cursor.
    pub cursor: Option<u64>,
    /// True if the event waits for an acknowledgement.
    pub waits: bool,
    /// Number of events of the topic that wait before the event.
    pub before: u64,
}

/// Finds the state of the event `seq` of `topic`. `limit` is the sequence after the last event that may be read. `forwards` is true
/// if hookhold forwards events, so that the events of a topic without a cursor wait. Counts from the summaries, and reads only the
/// segments in which the waiting events begin and in which they reach the event.
pub(super) fn find(
    disk: &dyn Disk,
    scan: &mut DirectoryScan,
    limit: u64,
    (topic, seq): (&str, u64),
    forwards: bool,
) -> io::Result<EventStanding> {
    let cursors = scan.cursors.cursors.iter().cloned().collect();
    let backlog_end = scan.cursors.backlog_end;
    let waiting = WaitingEvents { cursors, forwards: forwards && backlog_end.is_none(), backlog_end };
    let cursor = waiting.cursors.get(topic).copied();
    let mut standing = EventStanding { cursor, waits: waiting.contains(topic, seq), before: 0 };
    if !standing.waits {
        return Ok(standing);
    }
    for index in 0..scan.segments.len() {
        let summary = scan.summary(index, limit);
        let Some(range) = summary.topic(topic) else { continue };
        let mut sequences = waiting.sequences(range);
        sequences.end = sequences.end.min(seq);
        if sequences.is_empty() {
            continue;
        }
        if sequences == (range.first..range.last + 1) {
            standing.before += range.count;
        } else if scan.read_frames(disk, index)? {
            let is_before = |frame: &&ScannedFrame| {
                let is_mine = frame.facts.as_ref().is_some_and(|facts| *facts.topic == *topic);
                is_mine && sequences.contains(&frame.header.seq)
            };
            standing.before += scan.frames(index).filter(is_before).count() as u64;
            scan.drop_frames(index);
        }
    }
    Ok(standing)
}
