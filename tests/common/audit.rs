//! Checks that every accepted delivery (2xx) is in the journal and in Kafka. The functions are pure, so a test can pass them
//! lists that contain constructed violations.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use crate::load::body;

/// An event that a test read from a frame of the journal or from a record in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEvent {
    /// Id of the log that contains the event, 16 hexadecimal digits.
    pub log: String,
    pub seq: u64,
    pub id: String,
    pub body: Bytes,
}

impl FoundEvent {
    fn location(&self) -> String {
        format!("{} at {}-{}", self.id, self.log, self.seq)
    }
}

/// Returns a description of every broken guarantee. `accepted` contains the ids of all accepted deliveries (2xx), `frames`
/// contains all events of the topic in the journal, and `records` contains all records of the topic in Kafka. If `records`
/// is `None`, checks only the journal.
pub fn violations(accepted: &BTreeSet<String>, frames: &[FoundEvent], records: Option<&[FoundEvent]>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut stored: BTreeMap<&str, Vec<&FoundEvent>> = BTreeMap::new();
    for frame in frames {
        stored.entry(&frame.id).or_default().push(frame);
    }
    let lost = accepted.iter().filter(|id| !stored.contains_key(&***id));
    violations.extend(lost.map(|id| format!("answered 2xx but not stored: {id}")));
    for (id, copies) in stored.iter().filter(|(_, copies)| copies.len() > 1) {
        let locations: Vec<String> = copies.iter().map(|frame| frame.location()).collect();
        violations.push(format!("stored {} times: {id}: {}", copies.len(), locations.join(", ")));
    }
    let altered = frames.iter().filter(|frame| frame.body != body(&frame.id));
    violations.extend(altered.map(|frame| format!("stored with another body: {}", frame.location())));
    let disordered = frames.windows(2).filter(|pair| pair[0].seq >= pair[1].seq);
    violations.extend(disordered.map(|pair| format!("out of order: {} before {}", pair[0].location(), pair[1].location())));
    if let Some(records) = records {
        check_records(frames, records, &mut violations);
    }
    violations
}

/// Finds every frame without a record in Kafka, and every record that does not match a frame in sequence, log id, event id and
/// body. Adds a description of each to `violations`.
fn check_records(frames: &[FoundEvent], records: &[FoundEvent], violations: &mut Vec<String>) {
    let by_seq: BTreeMap<u64, &FoundEvent> = frames.iter().map(|frame| (frame.seq, frame)).collect();
    let forwarded: BTreeSet<u64> = records.iter().map(|record| record.seq).collect();
    let missing = frames.iter().filter(|frame| !forwarded.contains(&frame.seq));
    violations.extend(missing.map(|frame| format!("stored but not in Kafka: {}", frame.location())));
    let altered = records.iter().filter(|record| by_seq.get(&record.seq) != Some(record));
    violations.extend(altered.map(|record| format!("in Kafka but not in the journal: {}", record.location())));
}

/// Records in Kafka in excess of one record for each event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Number of copies that each kill of hookhold caused.
    pub by_kill: Vec<usize>,
    /// Sequence of each copy that no kill explains.
    pub unexplained: Vec<u64>,
}

/// Counts the copies in a topic. `seqs` contains the sequence of each record. A kill explains one copy of each event in its range,
/// which reaches from the saved cursor to the log end: hookhold may have forwarded these events after it saved the cursor.
pub fn copies(seqs: impl IntoIterator<Item = u64>, kills: &[Range<u64>]) -> Copies {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for seq in seqs {
        *times.entry(seq).or_default() += 1;
    }
    let mut copies = Copies { by_kill: vec![0; kills.len()], unexplained: Vec::new() };
    for (seq, times) in times {
        let explained: Vec<usize> = (0..kills.len()).filter(|kill| kills[*kill].contains(&seq)).collect();
        explained.iter().rev().take(times - 1).for_each(|kill| copies.by_kill[*kill] += 1);
        copies.unexplained.extend(std::iter::repeat_n(seq, (times - 1).saturating_sub(explained.len())));
    }
    copies
}
