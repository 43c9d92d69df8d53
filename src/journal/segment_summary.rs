//! Summary of one segment, with the number, sequences and size of each topic's events. A reader uses summaries to skip segments
//! without events of the reader's topic, and the journal computes backlogs from summaries. While a segment grows, its summary
//! is only in memory. When the background thread seals the segment, the thread writes the summary to
//! [`SegmentName::summary_file`].

use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::journal_time::JournalMillis;
use super::payload::u32_at;
use super::segment_file::SEGMENT_HEADER_LEN;
use super::segment_name::SegmentName;

/// Summary of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentSummary {
    /// Offset after the last valid frame, in bytes.
    pub(super) end: u64,
    /// Sequence after the last event, which is the first sequence of the next segment.
    pub(super) next_seq: u64,
    /// Time of the segment's last commit.
    pub(super) newest: JournalMillis,
    /// Events of each topic, in the order of the topics' first events.
    pub(super) topics: Vec<TopicRange>,
}

/// Events of one topic in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicRange {
    pub(super) topic: Arc<str>,
    /// Number of events.
    pub(super) count: u64,
    /// Sequence of the first event.
    pub(super) first: u64,
    /// Sequence of the last event.
    pub(super) last: u64,
    /// Total size of the frames in bytes.
    pub(super) bytes: u64,
}

impl SegmentSummary {
    /// Returns the summary of an empty segment whose first event will have this sequence.
    pub(super) fn empty(first_seq: u64) -> SegmentSummary {
        SegmentSummary { end: SEGMENT_HEADER_LEN, next_seq: first_seq, newest: JournalMillis(0), topics: Vec::new() }
    }

    /// Adds one event to the summary. `first_seen` is the time of its commit. The events of a segment usually have ascending
    /// sequences, but a misdirected write may move a commit to another place.
    pub(super) fn add(&mut self, topic: &Arc<str>, seq: u64, bytes: u64, first_seen: JournalMillis) {
        self.next_seq = self.next_seq.max(seq + 1);
        self.newest = self.newest.max(first_seen);
        match self.topics.iter_mut().find(|range| range.topic == *topic) {
            Some(range) => {
                range.count += 1;
                range.first = range.first.min(seq);
                range.last = range.last.max(seq);
                range.bytes += bytes;
            }
            None => self.topics.push(TopicRange { topic: topic.clone(), count: 1, first: seq, last: seq, bytes }),
        }
    }

    /// Returns the [`TopicRange`] of one topic; `None` if the segment has no event of the topic.
    pub(super) fn topic(&self, topic: &str) -> Option<&TopicRange> {
        self.topics.iter().find(|range| &*range.topic == topic)
    }

    /// Returns the number of events in the segment.
    pub(super) fn events(&self) -> u64 {
        self.topics.iter().map(|range| range.count).sum()
    }

    /// Encodes the summary file.
    pub(super) fn encode(&self, name: SegmentName) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 8]);
        for number in [name.id, self.end, self.next_seq, self.newest.0, self.topics.len() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for range in &self.topics {
            for number in [range.count, range.first, range.last, range.bytes, range.topic.len() as u64] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(range.topic.as_bytes());
        }
        let length = out.len() as u32;
        out[12..16].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the summary file of a segment; `None` if the file is missing or damaged. The caller then uses the frames instead.
    pub(super) fn open(disk: &dyn Disk, name: SegmentName) -> io::Result<Option<SegmentSummary>> {
        let file = match disk.open(&name.summary_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = vec![0; file.size()?.min(MAX_BYTES) as usize];
        let read = file.read_at(&mut bytes, 0)?;
        Ok(SegmentSummary::decode(&bytes[..read], name))
    }

    fn decode(bytes: &[u8], name: SegmentName) -> Option<SegmentSummary> {
        let bytes = bytes.get(..u32_at(bytes, 12)? as usize)?;
        let is_valid = bytes.get(..8)? == MAGIC && *bytes.get(8..12)? == crc32c::crc32c(bytes.get(12..)?).to_le_bytes();
        let mut at = 16;
        let number = |at: &mut usize| {
            let number = bytes.get(*at..*at + 8)?.try_into().ok().map(u64::from_le_bytes);
            *at += 8;
            number
        };
        if !is_valid || number(&mut at)? != name.id {
            return None;
        }
        let (end, next_seq, newest, count) = (number(&mut at)?, number(&mut at)?, number(&mut at)?, number(&mut at)?);
        let mut topics = Vec::new();
        for _ in 0..count {
            let [count, first, last, size, len] = [(); 5].map(|()| number(&mut at));
            let text = bytes.get(at..at.checked_add(len? as usize)?)?;
            at += text.len();
            let topic = std::str::from_utf8(text).ok()?.into();
            if first? > last? {
                return None;
            }
            topics.push(TopicRange { topic, count: count?, first: first?, last: last?, bytes: size? });
        }
        Some(SegmentSummary { end, next_seq, newest: JournalMillis(newest), topics })
    }
}

const MAGIC: &[u8; 8] = b"hooktops";
/// Maximum size of a summary file in bytes. hookhold never writes a larger summary file.
const MAX_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_contains_events_in_any_order() {
        let mut summary = SegmentSummary::empty(3);
        for seq in [5, 3, 4] {
            summary.add(&"orders".into(), seq, 8, JournalMillis(1));
        }
        let range = TopicRange { topic: "orders".into(), count: 3, first: 3, last: 5, bytes: 24 };
        assert_eq!((summary.next_seq, &summary.topics[..]), (6, &[range][..]));
    }
}
