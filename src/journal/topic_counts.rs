//! Counts the events of each topic, for the forwarder and for the metrics.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Journal, TopicCursor};

impl Journal {
    /// Returns all topics with a cursor. If hookhold forwards events, also returns the topics that have events but no cursor
    /// yet.
    pub fn topic_cursors(&self) -> Vec<TopicCursor> {
        self.0.segments.topic_cursors(self.0.options.forwards)
    }

    /// Returns the number of a topic's durable events with sequences in `from..below`.
    pub fn count(&self, topic: &str, from: u64, below: u64) -> u64 {
        self.count_each(&[(topic.into(), from..below)])[0]
    }

    /// Returns the number of durable events of each topic with sequences in the topic's range, in the order of `wanted`. Each topic
    /// occurs once. Reads each part of the journal at most once, however many topics there are.
    pub fn count_each(&self, wanted: &[(Arc<str>, Range<u64>)]) -> Vec<u64> {
        let counted = wanted.iter().map(|(topic, range)| self.0.segments.count(topic, range.start, range.end));
        let (mut counts, partial): (Vec<u64>, Vec<Vec<Range<u64>>>) = counted.unzip();
        let indices: HashMap<&str, usize> = wanted.iter().enumerate().map(|(index, (topic, _))| (&**topic, index)).collect();
        let topics = Arc::new(wanted.iter().map(|(topic, _)| topic.clone()).collect());
        for range in merged(partial.iter().flatten()) {
            let mut reader = self.reader(range.start);
            reader.set_topics(Arc::clone(&topics));
            while let Ok(Some(stored)) = reader.next()
                && stored.position.seq < range.end
            {
                let index = indices[&**stored.event.topic()];
                counts[index] += u64::from(partial[index].iter().any(|range| range.contains(&stored.position.seq)));
            }
        }
        counts
    }

    /// Returns the number of a topic's events that have become durable since the journal was opened, and the durable watermark at
    /// the same moment. Never waits for the disk.
    pub fn stored(&self, topic: &str) -> (u64, u64) {
        self.0.segments.stored(topic, || self.durable_watermark())
    }
}

/// Joins the ranges that overlap or touch, and sorts them.
fn merged<'a>(ranges: impl Iterator<Item = &'a Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_many_topics_are_read_once() {
        let ranges = [30..40, 5..10, 8..20, 20..21, 7..9, 50..50];
        assert_eq!(merged(ranges.iter()), [5..21, 30..40]);
    }
}
