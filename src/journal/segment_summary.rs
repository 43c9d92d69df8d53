//! What one segment holds, lane by lane, so that a reader skips what is not its own and a lane knows what it still has to
//! pass on. Kept in memory while the segment grows; written to `NAME.lanes` when it is sealed.

use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::segment_file::{HEADER, Name};
use crate::clock::UnixMillis;

/// The summary of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The offset behind its last genuine frame, in bytes.
    pub end: u64,
    /// The sequence behind its last event: what the next segment begins with.
    pub next: u64,
    /// The newest arrival in it.
    pub newest: UnixMillis,
    /// Its lanes, in the order of their first event here.
    pub lanes: Vec<TopicRange>,
}

/// One lane's share of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRange {
    /// The topic.
    pub lane: Arc<str>,
    /// Events of this lane.
    pub count: u64,
    /// The sequence of the first of them.
    pub first: u64,
    /// The sequence of the last of them.
    pub last: u64,
    /// Bytes that their frames occupy.
    pub bytes: u64,
}

impl SegmentSummary {
    /// An empty segment that begins with this sequence.
    pub fn empty(first: u64) -> SegmentSummary {
        SegmentSummary { end: HEADER, next: first, newest: UnixMillis(0), lanes: Vec::new() }
    }

    /// Adds one event.
    pub fn add(&mut self, lane: &Arc<str>, seq: u64, bytes: u64, received_at: UnixMillis) {
        self.next = seq + 1;
        self.newest = self.newest.max(received_at);
        match self.lanes.iter_mut().find(|range| range.lane == *lane) {
            Some(range) => {
                range.count += 1;
                range.last = seq;
                range.bytes += bytes;
            }
            None => self.lanes.push(TopicRange { lane: lane.clone(), count: 1, first: seq, last: seq, bytes }),
        }
    }

    /// This lane's share, if it has one.
    pub fn lane(&self, lane: &str) -> Option<&TopicRange> {
        self.lanes.iter().find(|range| &*range.lane == lane)
    }

    /// All events in the segment.
    pub fn events(&self) -> u64 {
        self.lanes.iter().map(|range| range.count).sum()
    }

    /// The bytes of the lane file.
    pub fn encode(&self, name: Name) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 8]);
        for number in [name.id, self.end, self.next, self.newest.0, self.lanes.len() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for range in &self.lanes {
            for number in [range.count, range.first, range.last, range.bytes, range.lane.len() as u64] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(range.lane.as_bytes());
        }
        let crc = crc32c::crc32c(&out[16..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the lane file of a segment. `None`: absent or damaged; the segment itself then tells.
    pub fn open(disk: &dyn Disk, name: Name) -> io::Result<Option<SegmentSummary>> {
        let file = match disk.open(&name.lanes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = vec![0; file.size()?.min(MAX_BYTES) as usize];
        let got = file.read_at(&mut bytes, 0)?;
        Ok(SegmentSummary::decode(&bytes[..got], name))
    }

    fn decode(bytes: &[u8], name: Name) -> Option<SegmentSummary> {
        let genuine = bytes.get(..8)? == MAGIC && *bytes.get(8..12)? == crc32c::crc32c(bytes.get(16..)?).to_le_bytes();
        let mut at = 16;
        let number = |at: &mut usize| {
            let number = bytes.get(*at..*at + 8)?.try_into().ok().map(u64::from_le_bytes);
            *at += 8;
            number
        };
        if !genuine || number(&mut at)? != name.id {
            return None;
        }
        let (end, next, newest, count) = (number(&mut at)?, number(&mut at)?, number(&mut at)?, number(&mut at)?);
        let mut lanes = Vec::new();
        for _ in 0..count {
            let [count, first, last, size, len] = [(); 5].map(|()| number(&mut at));
            let text = bytes.get(at..at.checked_add(len? as usize)?)?;
            at += text.len();
            let lane = std::str::from_utf8(text).ok()?.into();
            lanes.push(TopicRange { lane, count: count?, first: first?, last: last?, bytes: size? });
        }
        Some(SegmentSummary { end, next, newest: UnixMillis(newest), lanes })
    }
}

const MAGIC: &[u8; 8] = b"hooklane";
/// A lane file beyond this size is not one of ours.
const MAX_BYTES: u64 = 64 << 20;
