//! Tests of cursors: how soon a moved cursor is on disk, and which cursors a crash or damage may cost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use hookhold::journal::WriterStep;

use crate::disk::Step;
use crate::events::{Sample, TOPICS};
use crate::harness::*;
use crate::stepped::*;

fn forwarding(segment_size: u64) -> Harness {
    Harness::stopped(|options| {
        options.forwards = true;
        options.limits.segment_size = segment_size;
    })
}

fn of_topic(topic: usize, number: usize) -> Sample {
    Sample { topic, ..sample(number, 100) }
}

/// Returns the saved cursor of each topic that has one, as the next startup would find it.
fn saved(harness: &Harness) -> BTreeMap<String, u64> {
    let topics = harness.read_only().stat().expect("the journal can be read").topics;
    topics.into_iter().filter_map(|topic| Some((topic.topic.to_string(), topic.cursor?))).collect()
}

/// Returns the cursors frames of all segments, oldest first.
fn all_frames(harness: &Harness) -> Vec<FoundCursors> {
    harness.disk.names(".seg").iter().flat_map(|name| cursors_frames(harness, name)).collect()
}

#[test]
fn commits_save_the_cursors_at_most_twenty_times_a_second() {
    let harness = forwarding(16 << 20);
    let mut open = harness.open_in_steps();
    open.store(&sample(0, 100));
    let before = all_frames(&harness).len();
    for number in 1..=1000 {
        harness.clock.advance(1);
        let position = open.store(&sample(number, 100));
        open.journal.save_cursor(TOPICS[0], position.seq + 1, 1);
    }
    let frames = all_frames(&harness);
    assert!((19..=20).contains(&(frames.len() - before)), "{} cursors frames in a second", frames.len() - before);
    assert!(frames[before..].iter().all(|frame| !frame.is_complete));
    assert!(saved(&harness)[TOPICS[0]] > 1_001 - 51, "a cursor waits for at most 50 ms under load");
    open.close();
    assert_eq!(saved(&harness)[TOPICS[0]], 1_001, "a clean stop saves every cursor");
}

#[test]
fn a_hundred_acknowledgements_are_saved_after_fifty_milliseconds() {
    let harness = forwarding(1 << 20);
    let mut open = harness.open_in_steps();
    for number in 0..200 {
        open.store(&sample(number, 100));
    }
    harness.clock.advance(60);
    for acknowledged in 1..=100 {
        open.journal.save_cursor(TOPICS[0], acknowledged, 1);
        assert_eq!(open.step_writer(), WriterStep::Idle);
    }
    harness.clock.advance(49);
    assert_eq!(open.step_writer(), WriterStep::Idle);
    harness.clock.advance(1);
    assert_eq!(open.step_writer(), WriterStep::Saved);
    assert_eq!(open.step_writer(), WriterStep::Idle, "one commit saves all cursors");
    harness.kill_stepped(open);
    assert_eq!(saved(&harness)[TOPICS[0]], 100);
}

#[test]
fn a_single_acknowledgement_is_saved_within_a_second() {
    let harness = forwarding(1 << 20);
    let mut open = harness.open_in_steps();
    let position = open.store(&sample(0, 100));
    harness.clock.advance(60);
    open.journal.save_cursor(TOPICS[0], position.seq + 1, 1);
    harness.clock.advance(999);
    assert_eq!(open.step_writer(), WriterStep::Idle, "an event may arrive and carry the cursor");
    harness.clock.advance(1);
    assert_eq!(open.step_writer(), WriterStep::Saved);
    open.journal.save_cursor(TOPICS[0], position.seq + 1, 1);
    harness.clock.advance(5_000);
    open.step_writer();
    let frames = all_frames(&harness);
    let last = &frames[frames.len() - 1];
    assert_eq!(last.cursors, BTreeMap::from([(TOPICS[0].to_owned(), 1)]));
    let written =
        harness.disk.bytes(&harness.disk.names(".seg")[0])[last.bytes.end.next_multiple_of(4_096)..].iter().any(|b| *b != 0);
    assert!(!written, "a cursor that has not moved needs no commit");
    harness.kill_stepped(open);
    assert_eq!(saved(&harness)[TOPICS[0]], 1);
}

#[test]
fn a_commit_contains_only_the_cursors_that_have_moved() {
    let harness = forwarding(1 << 20);
    let mut open = harness.open_in_steps();
    for number in 0..30 {
        open.store(&of_topic(number % 3, number));
    }
    harness.clock.advance(60);
    open.journal.save_cursor(TOPICS[1], 20, 7);
    open.store(&of_topic(0, 30));
    harness.clock.advance(60);
    open.store(&of_topic(0, 31));
    let frames = all_frames(&harness);
    let last = &frames[frames.len() - 1];
    assert_eq!((last.is_complete, &last.cursors), (false, &BTreeMap::from([(TOPICS[1].to_owned(), 20)])));
    open.close();
    harness.open_in_steps().close();
    let newest = harness.disk.names(".seg").pop().expect("a segment");
    let first = &cursors_frames(&harness, &newest)[0];
    let expected = [(TOPICS[0], 0), (TOPICS[1], 20), (TOPICS[2], 2)].map(|(topic, cursor)| (topic.to_owned(), cursor));
    assert_eq!((first.is_complete, &first.cursors), (true, &BTreeMap::from(expected)), "a segment begins with all cursors");
}

/// Damages the first cursors frame of a segment.
fn damage_first_cursors(harness: &Harness, name: &str) {
    let frames = cursors_frames(harness, name);
    assert!(frames[0].is_complete);
    harness.disk.corrupt(name, frames[0].bytes.start + 32..frames[0].bytes.end, |byte| !byte);
}

#[test]
fn moved_cursors_survive_a_lost_first_commit() {
    let harness = forwarding(1 << 20);
    let mut open = harness.open_in_steps();
    for number in 0..10 {
        open.store(&of_topic(number % 2, number));
    }
    open.journal.save_cursor(TOPICS[0], 3, 2);
    open.journal.save_cursor(TOPICS[1], 2, 1);
    open.close();
    let mut open = harness.open_in_steps();
    open.store(&of_topic(0, 10));
    harness.clock.advance(60);
    open.journal.save_cursor(TOPICS[0], 7, 2);
    open.store(&of_topic(0, 11));
    harness.kill_stepped(open);

    let names = harness.disk.names(".seg");
    let newest = names.last().expect("a segment");
    damage_first_cursors(&harness, newest);
    let expected = BTreeMap::from([(TOPICS[0].to_owned(), 7), (TOPICS[1].to_owned(), 2)]);
    assert_eq!(saved(&harness), expected, "the deltas apply to the cursors of the older segment");

    damage_first_cursors(&harness, &names[0]);
    let expected = BTreeMap::from([(TOPICS[0].to_owned(), 7), (TOPICS[1].to_owned(), 2)]);
    assert_eq!(saved(&harness), expected, "the older segment also saved both cursors later");
    let before = harness.metrics.journal.damaged.get();
    let open = harness.open_in_steps();
    let cursors: BTreeMap<String, u64> = open.journal.topic_cursors().iter().map(|c| (c.name.to_string(), c.cursor)).collect();
    assert_eq!(cursors, expected);
    assert!(harness.metrics.journal.damaged.get() >= before + 3, "two damaged frames, and an incomplete list of cursors");
    open.close();
}

#[test]
fn a_cursor_that_moves_back_during_a_commit_is_saved() {
    let harness = forwarding(1 << 20);
    let mut open = harness.open_in_steps();
    for number in 0..10 {
        open.store(&sample(number, 100));
    }
    let save = |open: &mut SteppedJournal, cursor: u64| {
        open.journal.save_cursor(TOPICS[0], cursor, 1);
        harness.clock.advance(1_000);
        assert_eq!(open.step_writer(), WriterStep::Saved);
    };
    save(&mut open, 3);
    // While the writer syncs the commit with the cursor 7, the cursor moves back to the value of the commit before.
    let (journal, has_moved) = (open.journal.clone(), AtomicBool::new(false));
    harness.disk.observe(move |step, name| {
        if step == Step::Sync && name.ends_with(".seg") && !has_moved.swap(true, Ordering::SeqCst) {
            journal.save_cursor(TOPICS[0], 3, 0);
        }
    });
    save(&mut open, 7);
    harness.disk.observe(|_, _| {});
    assert_eq!(open.journal.topic_cursors()[0].cursor, 3);
    harness.clock.advance(1_000);
    open.step_writer();
    harness.kill_stepped(open);
    assert_eq!(saved(&harness)[TOPICS[0]], 3);
}

#[test]
fn a_topic_whose_cursor_is_lost_restarts_at_its_oldest_event() {
    let harness = forwarding(1 << 20);
    let mut open = harness.open_in_steps();
    for number in 0..10 {
        open.store(&of_topic(number % 2, number));
    }
    harness.clock.advance(60);
    open.journal.save_cursor(TOPICS[0], 3, 2);
    open.store(&of_topic(0, 10));
    harness.clock.advance(60);
    open.journal.save_cursor(TOPICS[1], 6, 3);
    open.store(&of_topic(0, 11));
    harness.kill_stepped(open);
    let name = harness.disk.names(".seg").remove(0);
    let frames = cursors_frames(&harness, &name);
    let with_second: Vec<_> = frames.iter().filter(|frame| frame.cursors.contains_key(TOPICS[1])).collect();
    assert!(!with_second.is_empty());
    for frame in with_second {
        harness.disk.corrupt(&name, frame.bytes.start + 32..frame.bytes.end, |byte| !byte);
    }
    let open = harness.open_in_steps();
    let cursors: BTreeMap<String, u64> = open.journal.topic_cursors().iter().map(|c| (c.name.to_string(), c.cursor)).collect();
    assert_eq!(cursors, BTreeMap::from([(TOPICS[0].to_owned(), 3), (TOPICS[1].to_owned(), 1)]));
    assert!(harness.metrics.journal.damaged.get() > 0);
    open.close();
}

/// A reader finds a damaged event and passes it. The key file still contains the key of this event when a commit saves the cursor.
#[test]
fn a_cursor_passes_a_lost_event_only_with_a_record_of_the_loss() {
    let harness = forwarding(32 << 10);
    let mut open = harness.open_in_steps();
    for number in 0..30 {
        open.store(&sample(number, 2_000));
    }
    open.run();
    open.close();
    let segment = harness.disk.names(".seg").remove(0);
    let bytes = harness.disk.bytes(&segment);
    let at = bytes.windows(7).position(|window| window == b"body 3 ").expect("the segment contains the event");
    harness.disk.corrupt(&segment, at..at + 1, |byte| !byte);
    let mut open = harness.open_in_steps();
    assert_eq!(lookup(&open.journal, &key(3)), Some(3), "the event has not been read yet");
    assert_eq!(seqs(&open.journal), (0..30).filter(|seq| *seq != 3).collect::<Vec<_>>());
    harness.clock.advance(1_000);
    open.journal.save_cursor(TOPICS[0], 10, 9);
    harness.clock.advance(1_000);
    // Without background work, no merge replaces the key file.
    assert_eq!(open.step_writer(), WriterStep::Saved);
    harness.kill_stepped(open);
    assert_eq!(saved(&harness)[TOPICS[0]], 10);
    let has_key = |file: &String| harness.disk.bytes(file).windows(16).any(|window| window == key(3).0);
    assert!(harness.disk.names(".keys").iter().any(has_key), "the key file is not rewritten yet");
    let open = harness.open_in_steps();
    assert_eq!(open.journal.topic_cursors()[0].cursor, 10, "no reader will find the damage again");
    assert_eq!(lookup(&open.journal, &key(3)), None, "the retry of the lost event must be stored");
    open.close();
}

/// Acknowledges random numbers of events, with and without new events, and kills the process at a random time.
#[test]
fn a_crash_repeats_at_most_fifty_milliseconds_or_a_hundred_acknowledgements() {
    let mut most = 0;
    let event = sample(0, 10).event();
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let harness = forwarding(1 << 20);
        let mut open = harness.open_in_steps();
        let results: Vec<_> = (0..4_000).map(|_| append(&open.journal, &event).expect("accepted")).collect();
        open.run();
        assert!(results.iter().all(|result| result.try_recv().is_ok_and(|end| end.is_ok())));
        let (rate, has_events) = (random.u64(1..30), random.bool());
        let (mut cursor, mut recent) = (0, VecDeque::from([0; 50]));
        for _ in 0..random.usize(1..400) {
            harness.clock.advance(1);
            let acknowledged = random.u64(0..rate).min(4_000 - cursor);
            cursor += acknowledged;
            recent.push_back(acknowledged);
            recent.pop_front();
            if acknowledged > 0 {
                open.journal.save_cursor(TOPICS[0], cursor, acknowledged);
            }
            if has_events && random.u8(..4) == 0 {
                append(&open.journal, &event).expect("accepted");
            }
            open.step_writer();
        }
        harness.kill_stepped(open);
        let repeated = cursor - saved(&harness)[TOPICS[0]];
        let in_interval: u64 = recent.iter().sum();
        assert!(repeated < 100 + in_interval, "seed {seed}: {repeated} of {cursor}, {in_interval} within 50 ms");
        most = most.max(repeated);
    }
    assert!(most > 50, "at most {most} acknowledgements were unsaved, so the test shows nothing");
}

#[test]
fn the_limit_of_a_backlog_is_exact_after_the_cursor_has_moved() {
    let harness = Harness::stopped(|options| {
        options.forwards = true;
        options.limits.segment_size = 1 << 20;
        options.limits.max_backlog = 20_000;
    });
    let mut open = harness.open_in_steps();
    let mut number = 0..;
    let mut fill = |open: &mut SteppedJournal| {
        let accepted = number.by_ref().take_while(|number| {
            let accepted = append(&open.journal, &sample(1_000 + number, 900).event());
            open.run();
            accepted.is_ok()
        });
        accepted.count() as u64
    };
    let all = fill(&mut open);
    assert!(all > 10, "{all} events");
    for acknowledged in [1, 3, 2] {
        let cursor = open.journal.topic_cursors()[0].cursor + acknowledged;
        open.journal.save_cursor(TOPICS[0], cursor, acknowledged);
        assert_eq!(fill(&mut open), acknowledged, "as many events fit as Kafka has acknowledged");
    }
    open.close();
    let mut open = harness.open_in_steps();
    assert_eq!(fill(&mut open), 0, "the backlog is still full after a restart");
    let cursor = open.journal.topic_cursors()[0].cursor;
    open.journal.save_cursor(TOPICS[0], cursor - 1, 0);
    assert_eq!(fill(&mut open), 0);
    open.journal.save_cursor(TOPICS[0], cursor + 1, 2);
    assert_eq!(fill(&mut open), 1);
    open.close();
}
