//! Compares what senders were promised with what was kept and what Kafka got. Pure, so that it can itself be tested with a
//! planted fault.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::load::body;

/// One event where it was found: a frame of the journal, or a record in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As 16 hexadecimal digits.
    pub log: String,
    pub seq: u64,
    pub id: String,
    pub body: Bytes,
}

impl Found {
    fn place(&self) -> String {
        format!("{} at {}-{}", self.id, self.log, self.seq)
    }
}

/// Everything that breaks a promise, in words; empty when all are kept. `accepted`: the ids that were answered 2xx. `frames`:
/// the whole journal. `records`: the whole topic, or `None` to look at the journal only.
pub fn faults(accepted: &BTreeSet<String>, frames: &[Found], records: Option<&[Found]>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut kept: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for frame in frames {
        kept.entry(&frame.id).or_default().push(frame);
    }
    let lost = accepted.iter().filter(|id| !kept.contains_key(&***id));
    faults.extend(lost.map(|id| format!("answered 2xx but not kept: {id}")));
    for (id, copies) in kept.iter().filter(|(_, copies)| copies.len() > 1) {
        let places: Vec<String> = copies.iter().map(|frame| frame.place()).collect();
        faults.push(format!("kept {} times: {id}: {}", copies.len(), places.join(", ")));
    }
    let altered = frames.iter().filter(|frame| frame.body != body(&frame.id));
    faults.extend(altered.map(|frame| format!("kept with another body: {}", frame.place())));
    let disordered = frames.windows(2).filter(|pair| pair[0].seq >= pair[1].seq);
    faults.extend(disordered.map(|pair| format!("out of order: {} before {}", pair[0].place(), pair[1].place())));
    if let Some(records) = records {
        passed_on(frames, records, &mut faults);
    }
    faults
}

/// Every frame is in Kafka at least once, and every record is byte for byte a frame, under its log and sequence.
fn passed_on(frames: &[Found], records: &[Found], faults: &mut Vec<String>) {
    let by_seq: BTreeMap<u64, &Found> = frames.iter().map(|frame| (frame.seq, frame)).collect();
    let passed: BTreeSet<u64> = records.iter().map(|record| record.seq).collect();
    let missing = frames.iter().filter(|frame| !passed.contains(&frame.seq));
    faults.extend(missing.map(|frame| format!("kept but not in Kafka: {}", frame.place())));
    let strange = records.iter().filter(|record| by_seq.get(&record.seq) != Some(record));
    faults.extend(strange.map(|record| format!("in Kafka but not so in the journal: {}", record.place())));
}
