//! Compares what senders were promised with what was kept and what Kafka got. Pure, so that it can itself be tested with a
//! planted fault.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::load::body;

/// One event where it was found: a frame of the journal, or a record in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEvent {
    /// As 16 hexadecimal digits.
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

/// Everything that breaks a promise, in words; empty when all are kept. `accepted`: the ids that were answered 2xx. `frames`:
/// the whole journal. `records`: the whole topic, or `None` to look at the journal only.
pub fn violations(accepted: &BTreeSet<String>, frames: &[FoundEvent], records: Option<&[FoundEvent]>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut kept: BTreeMap<&str, Vec<&FoundEvent>> = BTreeMap::new();
    for frame in frames {
        kept.entry(&frame.id).or_default().push(frame);
    }
    let lost = accepted.iter().filter(|id| !kept.contains_key(&***id));
    violations.extend(lost.map(|id| format!("answered 2xx but not kept: {id}")));
    for (id, copies) in kept.iter().filter(|(_, copies)| copies.len() > 1) {
        let places: Vec<String> = copies.iter().map(|frame| frame.location()).collect();
        violations.push(format!("kept {} times: {id}: {}", copies.len(), places.join(", ")));
    }
    let altered = frames.iter().filter(|frame| frame.body != body(&frame.id));
    violations.extend(altered.map(|frame| format!("kept with another body: {}", frame.location())));
    let disordered = frames.windows(2).filter(|pair| pair[0].seq >= pair[1].seq);
    violations.extend(disordered.map(|pair| format!("out of order: {} before {}", pair[0].location(), pair[1].location())));
    if let Some(records) = records {
        passed_on(frames, records, &mut violations);
    }
    violations
}

/// Every frame is in Kafka at least once, and every record is byte for byte a frame, under its log and sequence.
fn passed_on(frames: &[FoundEvent], records: &[FoundEvent], violations: &mut Vec<String>) {
    let by_seq: BTreeMap<u64, &FoundEvent> = frames.iter().map(|frame| (frame.seq, frame)).collect();
    let passed: BTreeSet<u64> = records.iter().map(|record| record.seq).collect();
    let missing = frames.iter().filter(|frame| !passed.contains(&frame.seq));
    violations.extend(missing.map(|frame| format!("kept but not in Kafka: {}", frame.location())));
    let strange = records.iter().filter(|record| by_seq.get(&record.seq) != Some(record));
    violations.extend(strange.map(|record| format!("in Kafka but not so in the journal: {}", record.location())));
}
