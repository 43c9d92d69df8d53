//! Tests of the search of `tail` and `inspect`: it finds every readable event by its fields, reads no more than it needs, and knows
//! which events wait for a topic.

use std::ops::Range;

use hookhold::clock::UnixMillis;
use hookhold::journal::{EventStanding, ReadOnlyJournal};

use crate::events::{Sample, TOPICS};
use crate::harness::*;
use crate::stepped::SteppedJournal;

const HOUR: u64 = 3_600_000;
/// Number of events that [`hourly`] stores. Each takes more than a sixth of a segment.
const EVENTS: u64 = 60;

/// Returns a harness with small segments, whose clock only the test advances.
fn small() -> Harness {
    Harness::stopped(|options| (options.limits.segment_size, options.forwards) = (32 << 10, true))
}

/// Stores an event each hour. `jump` contains the number of an event before which the wall clock jumps, and the hours of the jump.
fn hourly(harness: &Harness, jump: Option<(u64, i64)>) -> (SteppedJournal, Vec<u64>) {
    let mut journal = harness.open_in_steps();
    let (mut received, mut now) = (Vec::new(), NOW);
    for number in 0..EVENTS {
        if let Some((_, hours)) = jump.filter(|(at, _)| *at == number) {
            harness.clock.jump(hours * HOUR as i64);
            now = now.wrapping_add_signed(hours * HOUR as i64);
        }
        journal.store(&Sample { received_at: now, ..sample(number as usize, 5_000) });
        received.push(now);
        harness.clock.advance(HOUR);
        now += HOUR;
        journal.run();
    }
    (journal, received)
}

/// Returns the sequences of the events that were received in a period.
fn search(journal: &mut ReadOnlyJournal, period: Range<u64>) -> Vec<u64> {
    let (since, until) = (UnixMillis(period.start), UnixMillis(period.end));
    let is_wanted = |received_at: UnixMillis| (since..=until).contains(&received_at);
    let mut found = Vec::new();
    for sequences in journal.sequences_received(Some(since), Some(until)).expect("the journal can be read") {
        journal.seek(sequences.start);
        while let Some(stored) =
            journal.next_where(sequences.end, |fields| is_wanted(fields.received_at)).expect("the journal can be read")
        {
            found.push(stored.position.seq);
        }
    }
    found
}

#[test]
fn a_search_by_time_reads_only_the_segments_of_the_period() {
    let harness = small();
    let (journal, received) = hourly(&harness, None);
    let segments = harness.disk.names(".seg").len() as u64;
    assert!(segments >= 10, "{segments} segments");
    let expect = || {
        let mut reader = harness.read_only();
        assert_eq!(search(&mut reader, received[20]..received[22]), [20, 21, 22]);
        let before = harness.disk.bytes_read();
        assert_eq!(search(&mut reader, received[20]..received[22]), [20, 21, 22]);
        let read = harness.disk.bytes_read() - before;
        // The start of each segment twice, and at most three segments.
        assert!(read < segments * 16_384 + 3 * (64 << 10), "{read} bytes of {segments} segments");
        assert_eq!(search(&mut reader, 0..NOW - HOUR), Vec::<u64>::new());
        assert_eq!(search(&mut reader, received[58]..u64::MAX), [58, 59]);
    };
    expect();
    journal.close();
    expect();
}

#[test]
fn a_search_by_time_finds_events_around_a_jump_of_the_clock() {
    for hours in [-30, -3, 2, 50] {
        for at in [1, 17, 31, 32, 33, 34, 35, 59] {
            let harness = small();
            let (journal, received) = hourly(&harness, Some((at, hours)));
            let mut reader = harness.read_only();
            for period in
                [received[10]..received[10], received[30]..received[34], received[at as usize]..received[at as usize] + 1]
            {
                let expected: Vec<u64> =
                    (0..EVENTS).filter(|seq| (period.start..=period.end).contains(&received[*seq as usize])).collect();
                assert!(!expected.is_empty() || period.is_empty());
                assert_eq!(search(&mut reader, period.clone()), expected, "{hours} hours before event {at}: {period:?}");
            }
            journal.close();
        }
    }
}

#[test]
fn a_search_finds_each_event_of_a_rewritten_and_damaged_journal() {
    let harness = Harness::stopped(|options| (options.limits.segment_size, options.forwards) = (64 << 10, true));
    let mut journal = harness.open_in_steps();
    let mut events = 0;
    while harness.disk.names(".seg").len() <= 3 {
        journal.store(&sample(events, 300));
        events += 1;
    }
    let before = harness.disk.names(".seg");
    journal.run();
    assert_ne!(harness.disk.names(".seg")[0], before[0], "the segment has been rewritten");
    let marker = b"body 5 ";
    let first = harness.disk.names(".seg").remove(0);
    let at = harness.disk.bytes(&first).windows(marker.len()).position(|window| window == marker).expect("the event");
    harness.disk.corrupt(&first, at..at + 1, |byte| !byte);
    let mut reader = harness.read_only();
    for number in 0..events {
        let (seq, id) = (number as u64, format!("id-{number}"));
        let expected = (number != 5).then_some(seq);
        reader.seek(0);
        let by_id = reader.next_where(u64::MAX, |fields| fields.id == Some(&*id)).expect("the journal can be read");
        assert_eq!(by_id.as_ref().map(|stored| stored.position.seq), expected, "{id}");
        assert!(by_id.is_none_or(|stored| *stored.event.body() == sample(number, 300).body));
        reader.seek(seq);
        let by_seq = reader.next_where(seq + 1, |fields| fields.position.seq == seq).expect("the journal can be read");
        assert_eq!(by_seq.map(|stored| stored.position.seq), expected, "{seq}");
    }
    journal.close();
}

/// Returns the offsets of the frames in a segment file.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 4_096);
    while let Some(length) = bytes.get(at..at + 4).map(|length| u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize)
    {
        if length == 0 {
            // The rest of the page is padding.
            at = (at + 1).next_multiple_of(4_096);
            continue;
        }
        starts.push(at);
        at += length.next_multiple_of(8);
    }
    starts
}

/// A search does not compute the checksum of an event that it skips.
#[test]
fn a_search_in_a_damaged_journal_finds_what_a_complete_read_finds() {
    let mut lost = 0;
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let harness = small();
        let mut journal = harness.open_in_steps();
        for commit in 0..12 {
            let results: Vec<AppendResult> = (commit * 10..commit * 10 + 10)
                .map(|number| {
                    append(&journal.journal, &Sample { topic: number % 3, ..sample(number, 500) }.event()).expect("accepted")
                })
                .collect();
            journal.step_writer();
            assert!(results.iter().all(|result| result.try_recv().is_ok_and(|result| result.is_ok())), "one commit");
        }
        for _ in 0..rng.usize(1..6) {
            let names = harness.disk.names(".seg");
            let name = &names[rng.usize(..names.len())];
            let start = rng.usize(4_096..harness.disk.bytes(name).len());
            // Half of the damage changes the length of a frame.
            let frames = frame_starts(&harness.disk.bytes(name));
            let (start, length) = match rng.bool() {
                true => (frames[rng.usize(..frames.len())] + rng.usize(..2), 1),
                false => (start, rng.usize(1..3_000)),
            };
            let end = (start + length).min(harness.disk.bytes(name).len());
            let mask = rng.u8(1..);
            harness.disk.corrupt(name, start..end, |byte| byte ^ mask);
        }
        let mut reader = harness.read_only();
        let complete: Vec<_> = std::iter::from_fn(|| reader.next().expect("the journal can be read")).collect();
        lost += 120 - complete.len();
        for topic in &TOPICS[..3] {
            let expected = complete.iter().filter(|stored| **stored.event.topic() == **topic).map(|stored| stored.position.seq);
            reader.seek(0);
            let next = || reader.next_where(u64::MAX, |fields| fields.topic == *topic).expect("the journal can be read");
            let found: Vec<u64> = std::iter::from_fn(next).map(|stored| stored.position.seq).collect();
            assert_eq!(found, expected.collect::<Vec<_>>(), "seed {seed}");
        }
        journal.close();
    }
    assert!(lost > 200, "{lost} events are damaged");
}

#[test]
fn a_bounded_search_leaves_the_other_events_to_the_next_one() {
    let harness = small();
    let (journal, _) = hourly(&harness, None);
    let mut reader = harness.read_only();
    let mut next =
        |below: u64| reader.next_where(below, |_| true).expect("the journal can be read").map(|found| found.position.seq);
    assert_eq!((next(2), next(2), next(2), next(2)), (Some(0), Some(1), None, None));
    assert_eq!((next(4), next(4), next(4)), (Some(2), Some(3), None));
    assert_eq!(std::iter::from_fn(|| next(u64::MAX)).collect::<Vec<_>>(), (4..EVENTS).collect::<Vec<_>>());
    journal.close();
}

#[test]
fn the_standing_counts_only_waiting_events_of_the_topic() {
    let harness = small();
    let mut journal = harness.open_in_steps();
    for number in 0..60 {
        journal.store(&Sample { topic: number % 2, ..sample(number, 3_000) });
        journal.run();
    }
    // Events 13, 15, … wait for the second topic, and the first topic has no cursor.
    journal.journal.save_cursor(TOPICS[1], 13, 1);
    journal.close();
    let reader = harness.read_only();
    let standing =
        |topic: &str, seq: u64, forwards: bool| reader.standing(topic, seq, forwards).expect("the journal can be read");
    let expected = |cursor, waits, before| EventStanding { cursor, waits, before };
    for (seq, waits, before) in [(11, false, 0), (13, true, 0), (15, true, 1), (37, true, 12), (59, true, 23)] {
        assert_eq!(standing(TOPICS[1], seq, true), expected(Some(13), waits, before), "{seq}");
    }
    assert_eq!(standing(TOPICS[2], 7, false), expected(None, false, 0));
}
