//! Tests of events that wait for a topic to which the journal does not forward any more.

use std::sync::Arc;

use hookhold::journal::{Journal, SystemRandom, UnforwardedEvents};

use crate::events::TOPICS;
use crate::harness::*;
use crate::stepped::SteppedJournal;

const SEGMENT: u64 = 32 << 10;

/// Returns a harness with a small closed journal, in which five events of the first topic wait.
fn with_waiting_events() -> Harness {
    let mut harness = Harness::stopped(|options| {
        options.limits.max_size = 8 * SEGMENT;
        options.limits.max_backlog = 4 * SEGMENT;
        options.forwards = true;
    });
    let mut journal = harness.open_in_steps();
    for number in 0..10 {
        journal.store(&sample(number, 100));
    }
    journal.journal.save_cursor(TOPICS[0], 5, 5);
    journal.close();
    harness.options.forwards = false;
    harness
}

/// Stores events that together exceed `max_size`, and performs the background work that is due after each.
fn store_more_than_fits(harness: &Harness, journal: &mut SteppedJournal, from: usize) {
    for number in from..from + 200 {
        journal.store(&sample(number, 3_000));
        harness.clock.advance(2_000);
        journal.run();
    }
    let bytes: usize = harness.disk.names(".seg").iter().filter_map(|name| harness.disk.len(name)).sum();
    assert!(bytes as u64 <= 8 * SEGMENT, "the journal has deleted old segments; {bytes} bytes remain");
}

#[test]
fn events_stored_without_forwarding_do_not_wait() {
    let harness = with_waiting_events();
    for opening in 0..3 {
        let mut journal = harness.open_in_steps();
        let [UnforwardedEvents { topic, events, bytes }] = &journal.journal.unforwarded()[..] else { panic!("one topic") };
        assert_eq!((&**topic, *events), (TOPICS[0], 5), "opening {opening}");
        assert!(*bytes < 2 * SEGMENT, "{bytes} bytes");
        store_more_than_fits(&harness, &mut journal, 1_000 * (opening + 1));
        assert!(journal.journal.oldest_seq() <= 5, "opening {opening}: the waiting events pin their segment");
        journal.close();
        let stat = harness.read_only().stat().expect("the journal can be read");
        assert_eq!((stat.topics[0].waiting, stat.topics[0].waiting_range), (5, Some((5, 9))));
    }
}

#[test]
fn given_up_events_pin_nothing_but_stay_duplicates() {
    let harness = with_waiting_events();
    let environment = || harness.environment(harness.disk.start(), Arc::new(SystemRandom));
    let give_up = |below| Journal::give_up(environment(), harness.options.clone(), TOPICS[0], below).expect("the journal opens");
    assert_eq!((give_up(7), give_up(10), give_up(10), give_up(5)), (2, 3, 0, 0));
    let mut journal = harness.open_in_steps();
    assert_eq!(journal.journal.unforwarded(), []);
    assert_eq!(lookup(&journal.journal, &key(8)), Some(8));
    store_more_than_fits(&harness, &mut journal, 1_000);
    assert!(journal.journal.oldest_seq() > 10, "the space is available again");
    journal.close();
}

#[test]
fn forwarding_resumes_at_the_cursor_once_it_is_configured_again() {
    let mut harness = with_waiting_events();
    let mut journal = harness.open_in_steps();
    journal.store(&sample(10, 100));
    journal.close();
    harness.options.forwards = true;
    let journal = harness.open_in_steps();
    assert_eq!(journal.journal.topic_cursors()[0].cursor, 5);
    assert_eq!(journal.journal.unforwarded(), []);
    journal.close();
    let stat = harness.read_only().stat().expect("the journal can be read");
    assert_eq!((stat.topics[0].waiting, stat.topics[0].waiting_range), (6, Some((5, 10))));
}

/// The newest list of cursors is damaged. The journal then does not know since when it is open without forwarding, so it treats all
/// events above the cursors as waiting.
#[test]
fn damaged_cursors_make_no_waiting_event_deletable() {
    let mut harness = with_waiting_events();
    harness.open_in_steps().close();
    harness.options.forwards = true;
    let mut journal = harness.open_in_steps();
    journal.store(&sample(10, 100));
    journal.close();
    let newest = harness.disk.names(".seg").into_iter().max().expect("a segment");
    harness.disk.corrupt(&newest, 4096 + 72..4096 + 80, |byte| !byte);
    harness.options.forwards = false;
    let journal = harness.open_in_steps();
    assert_eq!(journal.journal.unforwarded().iter().map(|waiting| waiting.events).sum::<u64>(), 6);
    journal.close();
}
