//! Counts the events of each topic, for the forwarder and for the metrics.

use std::ops::Range;

use super::{Journal, TopicCursor};

impl Journal {
    /// Returns all topics with a cursor. If hookhold forwards events, also returns the topics that have events but no cursor
    /// yet.
    pub fn topic_cursors(&self) -> Vec<TopicCursor> {
        self.0.segments.topic_cursors(self.0.options.forwards)
    }

    /// Returns the number of a topic's durable events with sequences in `from..below`.
    pub fn count(&self, topic: &str, from: u64, below: u64) -> u64 {
        let (whole, partial) = self.0.segments.count(topic, from, below);
        whole + partial.into_iter().map(|range| self.count_frames(topic, range)).sum::<u64>()
    }

    /// Returns the number of a topic's events that have become durable since the journal was opened, and the durable watermark at
    /// the same moment. Never waits for the disk.
    pub fn stored(&self, topic: &str) -> (u64, u64) {
        self.0.segments.stored(topic, || self.durable_watermark())
    }

    fn count_frames(&self, topic: &str, range: Range<u64>) -> u64 {
        let mut reader = self.reader(range.start).for_topic(topic);
        let mut count = 0;
        while let Ok(Some(stored)) = reader.next()
            && stored.position.seq < range.end
        {
            count += 1;
        }
        count
    }
}
