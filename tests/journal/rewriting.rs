//! Tests of rewriting: sealing rewrites a segment that is mostly padding without this padding.

use hookhold::journal::Options;

use crate::disk::Step;
use crate::events::{Sample, TOPICS};
use crate::harness::*;
use crate::stepped::SteppedJournal;

/// Returns a journal with at least `segments` full segments of small events, none of which is sealed, and the number of events.
fn with_full_segments(harness: &Harness, segments: usize) -> (SteppedJournal, u64) {
    let mut journal = harness.open_in_steps();
    let mut number = 0;
    while harness.disk.names(".seg").len() <= segments {
        journal.store(&sample(number, 300));
        number += 1;
    }
    (journal, number as u64)
}

fn forwarding(segment_size: u64) -> Harness {
    Harness::stopped(|options: &mut Options| (options.limits.segment_size, options.forwards) = (segment_size, true))
}

/// Returns the ordinal of a segment.
fn ordinal(name: &str) -> &str {
    name.split('-').next().expect("the name of a segment")
}

/// Asserts that the journal contains the events `0..events` with their keys, and no damage.
fn expect_whole(harness: &Harness, events: u64, what: &str) {
    let report = harness.read_only().verify().expect("the journal can be read");
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{what}: {report:?}");
    assert_eq!(report.events + report.unconfirmed, events, "{what}");
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 0, "{what}");
    assert_eq!(seqs(&journal), (0..events).collect::<Vec<_>>(), "{what}");
    assert!((0..events).all(|number| lookup(&journal, &key(number as usize)) == Some(number)), "{what}");
    journal.close();
    let names = harness.disk.names(".seg");
    let has_twin = |name: &String| names.iter().filter(|other| ordinal(other) == ordinal(name)).count() > 1;
    assert!(!names.iter().any(has_twin), "{what}: a replaced file still exists in {names:?}");
    assert!(harness.disk.names(".tmp").is_empty(), "{what}");
}

#[test]
fn a_small_event_takes_little_space_after_sealing() {
    let harness = forwarding(1 << 20);
    let mut journal = harness.open_in_steps();
    let mut events = 0;
    while harness.disk.names(".seg").len() < 5 {
        // Kafka acknowledges each event before the next one arrives 10 ms later.
        let position = journal.store(&sample(events, 300));
        journal.journal.save_cursor(TOPICS[0], position.seq + 1, 1);
        harness.clock.advance(10);
        events += 1;
    }
    let files = || harness.disk.names(".seg").into_iter().take(4).map(|name| harness.disk.len(&name).expect("a file")).sum();
    let before: usize = files();
    journal.run();
    let after: usize = files();
    journal.close();
    let stat = harness.read_only().stat().expect("the journal can be read");
    assert_eq!(stat.events, events as u64);
    let frame = stat.topics[0].bytes as usize / events;
    // The last event is in the newest segment.
    let (padded, dense) = (before as f64 / ((events - 1) * frame) as f64, after as f64 / ((events - 1) * frame) as f64);
    println!("a frame of {frame} bytes takes {padded:.2} times its length before the rewriting, and {dense:.2} times after it");
    assert!(padded > 5.0, "every event occupies a page until its segment is sealed: {padded:.2}");
    assert!(dense <= 1.5, "{dense:.2} times the frame");
    expect_whole(&harness, events as u64, "after a restart");
}

#[test]
fn under_load_nothing_is_written_twice() {
    let harness = forwarding(4 << 20);
    let mut journal = harness.open_in_steps();
    let mut events = 0;
    while harness.disk.names(".seg").len() < 4 {
        // 64 connections each wait for the result of one event, so a commit contains 64 events.
        let results: Vec<AppendResult> = (events..events + 64)
            .map(|number| append(&journal.journal, &sample(number, 1_000).event()).expect("accepted"))
            .collect();
        journal.step_writer();
        let stored = results.iter().map(|result| result.try_recv().expect("stored").expect("stored").seq);
        journal.journal.save_cursor(TOPICS[0], stored.max().expect("64 events") + 1, 64);
        harness.clock.advance(10);
        events += 64;
    }
    let names = harness.disk.names(".seg");
    journal.run();
    let written = harness.disk.bytes_written();
    journal.close();
    assert_eq!(harness.disk.names(".seg"), names, "no segment has been rewritten");
    let stat = harness.read_only().stat().expect("the journal can be read");
    let ratio = written as f64 / stat.topics[0].bytes as f64;
    println!("{written} bytes written for {events} events with frames of {} bytes: {ratio:.3}", stat.topics[0].bytes);
    assert!(ratio <= 1.15, "{ratio:.3}");
}

#[test]
fn a_rewriting_can_be_cut_anywhere() {
    let mut cuts = 0;
    for power in [false, true] {
        for step in 1.. {
            let harness = forwarding(64 << 10);
            let (mut journal, events) = with_full_segments(&harness, 2);
            harness.disk.die_after(step);
            journal.run();
            if !harness.disk.is_dead() {
                journal.close();
                assert!(harness.disk.names(".seg").iter().take(2).all(|name| harness.disk.len(name) < Some(16 << 10)));
                expect_whole(&harness, events, "without a cut");
                break;
            }
            harness.kill_stepped(journal);
            if power {
                harness.disk.cut_power();
            }
            cuts += 1;
            expect_whole(&harness, events, &format!("cut at step {step}, power {power}"));
            expect_whole(&harness, events, "a second start");
        }
    }
    assert!(cuts > 40, "{cuts} cuts");
}

#[test]
fn a_failed_rewriting_leaves_the_segment_as_it_is() {
    for step in [Step::Create, Step::Write, Step::Sync, Step::Rename] {
        let harness = forwarding(64 << 10);
        let (mut journal, events) = with_full_segments(&harness, 1);
        let first = harness.disk.names(".seg").remove(0);
        let ending = if step == Step::Rename { ".seg" } else { ".seg.tmp" };
        harness.disk.fail(step, ending, std::io::ErrorKind::Other, 1);
        journal.run();
        assert!(!journal.journal.failed(), "{step:?}");
        assert!(harness.disk.names(".seg").contains(&first), "{step:?}");
        assert!(harness.disk.names(".tmp").is_empty(), "{step:?}");
        journal.close();
        expect_whole(&harness, events, &format!("{step:?} failed"));
    }
}

#[test]
fn a_replaced_segment_is_not_missing() {
    let harness = forwarding(64 << 10);
    let (mut journal, events) = with_full_segments(&harness, 3);
    let listed = harness.disk.names(".seg");
    // The newest segment lists the names that its older segments have now.
    journal.run();
    let replaced: Vec<String> = listed[..3].iter().filter(|name| harness.disk.len(name).is_some()).cloned().collect();
    assert_eq!(replaced, Vec::<String>::new(), "the replaced files are gone");
    let names = harness.disk.names(".seg");
    assert!(names.iter().zip(&listed).all(|(new, old)| ordinal(new) == ordinal(old)), "{names:?} instead of {listed:?}");
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!((report.missing, report.events, report.damage.len()), (Vec::new(), events, 0));
    harness.kill_stepped(journal);
    expect_whole(&harness, events, "after a kill");
    harness.disk.remove_file(&harness.disk.names(".seg")[1]);
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!(report.missing.len(), 1, "a replacement that vanishes is missing");
}

#[test]
fn a_rewritten_segment_with_a_damaged_header_is_read() {
    let harness = forwarding(64 << 10);
    let (mut journal, events) = with_full_segments(&harness, 2);
    journal.run();
    journal.close();
    let first = harness.disk.names(".seg").remove(0);
    harness.disk.corrupt(&first, 0..64, |_| 0);
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the damage is counted");
    assert_eq!(seqs(&journal), (0..events).collect::<Vec<_>>());
    assert!((0..events).all(|number| lookup(&journal, &key(number as usize)) == Some(number)));
    journal.close();
}

#[test]
fn readers_continue_while_their_segment_is_replaced() {
    let harness = forwarding(64 << 10);
    let (mut journal, events) = with_full_segments(&harness, 2);
    let mut inside = journal.journal.reader(0);
    let mut outside = harness.read_only();
    for seq in 0..3 {
        assert_eq!(inside.next().expect("readable").map(|stored| stored.position.seq), Some(seq));
        assert_eq!(outside.next().expect("readable").map(|stored| stored.position.seq), Some(seq));
    }
    let before = harness.disk.names(".seg");
    journal.run();
    assert_ne!(harness.disk.names(".seg")[0], before[0], "the segment has been rewritten");
    for seq in 3..events {
        assert_eq!(inside.next().expect("readable").map(|stored| stored.position.seq), Some(seq));
        assert_eq!(outside.next().expect("readable").map(|stored| stored.position.seq), Some(seq));
    }
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    journal.close();
}

#[test]
fn a_damaged_segment_is_not_rewritten() {
    let harness = forwarding(64 << 10);
    let (mut journal, events) = with_full_segments(&harness, 1);
    let first = harness.disk.names(".seg").remove(0);
    // The frame of the second event. Every commit starts with a page.
    harness.disk.corrupt(&first, 8_300..8_400, |byte| byte ^ 0x5A);
    journal.run();
    assert!(harness.disk.names(".seg").contains(&first), "the damaged bytes remain for an examination");
    assert_eq!(seqs(&journal.journal).len() as u64, events - 1);
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the reader counts the damage");
    journal.close();
}

/// The copy would have sequences that do not grow, and its readers would skip events.
#[test]
fn a_segment_with_commits_in_a_wrong_order_is_not_rewritten() {
    let harness = forwarding(64 << 10);
    let (mut journal, _) = with_full_segments(&harness, 1);
    let first = harness.disk.names(".seg").remove(0);
    // The commits of the second and of the third event change places.
    let bytes = harness.disk.bytes(&first);
    let swapped = [&bytes[12_288..16_384], &bytes[8_192..12_288]].concat();
    let mut swapped = swapped.into_iter();
    let next = std::cell::RefCell::new(&mut swapped);
    harness.disk.corrupt(&first, 8_192..16_384, |_| next.borrow_mut().next().expect("two pages"));
    journal.run();
    assert!(harness.disk.names(".seg").contains(&first), "the misplaced bytes remain for an examination");
    journal.close();
}

/// Stores events of a blocked topic and of a topic whose events are acknowledged, until the journal must rewrite segments to get
/// space. Returns the journal before the rewriting, and the sequences of the blocked topic.
fn with_a_blocked_topic(harness: &Harness) -> (SteppedJournal, Vec<u64>) {
    let mut journal = harness.open_in_steps();
    let mut blocked = Vec::new();
    let bytes =
        |harness: &Harness| harness.disk.names(".seg").iter().map(|name| harness.disk.len(name).unwrap_or(0)).sum::<usize>();
    for number in 0.. {
        let position = journal.store(&Sample { topic: number % 2, ..sample(number, 3_400) });
        if number % 2 == 0 {
            blocked.push(position.seq);
        } else {
            journal.journal.save_cursor(TOPICS[1], position.seq + 1, 1);
        }
        if bytes(harness) + (128 << 10) > harness.options.limits.max_size as usize {
            return (journal, blocked);
        }
        if number % 8 == 0 && bytes(harness) + (256 << 10) < harness.options.limits.max_size as usize {
            journal.run();
        }
    }
    unreachable!("the journal fills up")
}

fn small_forwarding() -> Harness {
    let change = |options: &mut Options| {
        options.forwards = true;
        (options.limits.segment_size, options.limits.max_size) = (64 << 10, 640 << 10);
    };
    Harness::stopped(change)
}

/// Asserts that the journal contains all events of the blocked topic and all keys, and has lost nothing.
fn expect_blocked(harness: &Harness, blocked: &[u64], what: &str) {
    let report = harness.read_only().verify().expect("the journal can be read");
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{what}: {report:?}");
    let journal = harness.open();
    let mut reader = journal.reader(0).for_topic(TOPICS[0]);
    let read: Vec<u64> = std::iter::from_fn(|| reader.next().expect("readable")).map(|stored| stored.position.seq).collect();
    assert_eq!(read, blocked, "{what}");
    let all = blocked.last().expect("events") + 1;
    assert!((0..all).all(|number| lookup(&journal, &key(number as usize)) == Some(number)), "{what}: a key is lost");
    let lost = harness.metrics.journal.lost_events.with_label_values(&["corruption"]).get();
    assert_eq!((harness.metrics.journal.damaged.get(), lost), (0, 0), "{what}");
    journal.close();
}

#[test]
fn copying_a_backlog_can_be_cut_anywhere() {
    let mut cuts = 0;
    for power in [false, true] {
        for step in (1..).step_by(2) {
            let harness = small_forwarding();
            let (mut journal, blocked) = with_a_blocked_topic(&harness);
            harness.disk.die_after(step);
            journal.run();
            if !harness.disk.is_dead() {
                let events = harness.read_only().stat().expect("the journal can be read").events;
                assert!(events < 2 * blocked.len() as u64, "acknowledged events were omitted: {events}");
                harness.kill_stepped(journal);
                expect_blocked(&harness, &blocked, "without a cut");
                break;
            }
            harness.kill_stepped(journal);
            if power {
                harness.disk.cut_power();
            }
            cuts += 1;
            expect_blocked(&harness, &blocked, &format!("cut at step {step}, power {power}"));
        }
    }
    assert!(cuts > 30, "{cuts} cuts");
}

#[test]
fn damage_in_a_copied_backlog_costs_only_the_damaged_event() {
    let harness = small_forwarding();
    let (mut journal, blocked) = with_a_blocked_topic(&harness);
    journal.run();
    journal.close();
    // An event of the blocked topic in a segment that omits the acknowledged events before and after it.
    let place = |number: u64, name: &String| {
        let body = format!("body {number} ").into_bytes();
        harness.disk.bytes(name).windows(body.len()).position(|window| *window == body)
    };
    let is_copied = |number: u64, name: &String| {
        place(number, name).is_some() && place(number - 1, name).is_none() && place(number + 2, name).is_some()
    };
    let names = harness.disk.names(".seg");
    let candidates = blocked[1..].iter().flat_map(|seq| names.iter().map(move |name| (*seq, name)));
    let (damaged, name) = candidates.into_iter().find(|(seq, name)| is_copied(*seq, name)).expect("a copied backlog");
    let at = place(damaged, name).expect("the segment contains the event");
    harness.disk.corrupt(name, at..at + 1, |byte| !byte);
    let journal = harness.open();
    let mut reader = journal.reader(0).for_topic(TOPICS[0]);
    let read: Vec<u64> = std::iter::from_fn(|| reader.next().expect("readable")).map(|stored| stored.position.seq).collect();
    assert_eq!(read, blocked.iter().copied().filter(|seq| *seq != damaged).collect::<Vec<_>>());
    assert_eq!(harness.metrics.journal.lost_events.with_label_values(&["corruption"]).get(), 1, "not the omitted events");
    assert_eq!(lookup(&journal, &key(damaged as usize)), None, "a retry must be stored");
    assert_eq!(lookup(&journal, &key(damaged as usize - 1)), Some(damaged - 1), "an omitted event is remembered");
    journal.close();
}

#[test]
fn the_missing_keys_of_omitted_events_are_counted_although_no_list_contains_their_file() {
    let harness = small_forwarding();
    let mut journal = harness.open_in_steps();
    for number in 0..120 {
        let position = journal.store(&Sample { topic: number % 2, ..sample(number, 3_400) });
        if number % 2 == 1 {
            journal.journal.save_cursor(TOPICS[1], position.seq + 1, 1);
        }
    }
    assert!(harness.disk.names(".keys").is_empty(), "no segment has been sealed, so no list contains a key file");
    let (before, newest) = (harness.disk.names(".seg"), harness.disk.names(".seg").pop());
    journal.run();
    assert_eq!(harness.disk.names(".seg").pop(), newest, "no segment has started since then");
    journal.close();
    let is_rewritten = |file: &&String| harness.disk.len(file).is_none();
    let rewritten = before.iter().find(is_rewritten).expect("a segment without the acknowledged events");
    harness.disk.remove_file(&rewritten.replace(".seg", ".keys"));
    let mut journal = harness.open_in_steps();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the missing keys are counted");
    journal.run();
    journal.close();
    let journal = harness.open_in_steps();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once");
    journal.close();
}
