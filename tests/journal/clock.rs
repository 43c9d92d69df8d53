//! Tests of the journal's clock: a wall clock that jumps deletes no event and no key, and each jump is counted.

use std::time::Duration;

use crate::harness::*;
use crate::stepped::*;

const YEAR: i64 = 365 * 24 * 60 * 60 * 1000;
const HOUR: u64 = 60 * 60 * 1000;

/// Returns a harness whose journal deletes events after an hour and keys after a day.
fn expiring() -> Harness {
    Harness::stopped(|options| {
        options.limits.retain = Duration::from_secs(3_600);
        options.dedupe_window = Duration::from_secs(86_400);
    })
}

/// Stores 60 events, most of which are then in sealed segments.
fn store_sixty(open: &mut SteppedJournal) {
    for number in 0..60 {
        open.store(&sample(number, 2_000));
    }
    open.run();
}

fn files(harness: &Harness) -> Vec<String> {
    [".seg", ".keys", SUMMARY_EXT].iter().flat_map(|ending| harness.disk.names(ending)).collect()
}

fn known(open: &SteppedJournal) -> usize {
    (0..60).filter(|number| lookup(&open.journal, &key(*number)).is_some()).count()
}

fn jumps(harness: &Harness) -> u64 {
    harness.metrics.journal.clock_jumps.get()
}

#[test]
fn a_wall_clock_that_is_a_year_ahead_for_a_moment_deletes_nothing() {
    let harness = expiring();
    let mut open = harness.open_in_steps();
    store_sixty(&mut open);
    let before = files(&harness);
    assert!(has_sealed(&before, 2));
    harness.clock.jump(YEAR);
    for _ in 0..3 {
        harness.clock.advance(1_000);
        open.run();
    }
    assert_eq!(jumps(&harness), 1);
    harness.clock.jump(-YEAR);
    for _ in 0..3 {
        harness.clock.advance(1_000);
        open.run();
    }
    assert_eq!(jumps(&harness), 2, "each jump is counted once");
    assert_eq!(files(&harness), before);
    assert_eq!((seqs(&open.journal).len(), known(&open)), (60, 60));

    harness.clock.advance(2 * 24 * HOUR);
    open.run();
    assert!(seqs(&open.journal).len() < 60 && known(&open) < 60, "events and keys expire after two real days");
    assert_eq!(jumps(&harness), 2, "time that passes is no jump");
    open.close();
}

#[test]
fn a_wall_clock_that_goes_back_does_not_prolong_a_window() {
    let harness = expiring();
    let mut open = harness.open_in_steps();
    open.store(&sample(0, 100));
    let first_seen = open.journal.now();
    harness.clock.jump(-YEAR);
    let second = Duration::from_secs(1);
    assert!(open.journal.before_either_clock(second) < first_seen);
    harness.clock.advance(1_000);
    assert_eq!(open.journal.before_either_clock(second), first_seen, "a second has passed");
    assert_eq!(jumps(&harness), 1);
    open.close();
}

#[test]
fn a_restart_while_the_wall_clock_is_a_year_ahead_adds_at_most_a_day() {
    let harness = Harness::stopped(|options| options.dedupe_window = Duration::from_secs(7 * 86_400));
    let mut open = harness.open_in_steps();
    store_sixty(&mut open);
    let before = open.journal.now();
    open.close();
    harness.clock.jump(YEAR);
    let mut open = harness.open_in_steps();
    open.run();
    assert_eq!(open.journal.now().0 - before.0, 24 * HOUR);
    assert_eq!((seqs(&open.journal).len(), known(&open)), (60, 60));
    assert!(open.journal.wall_time_without_jump().is_none(), "the machine may have been off for a year");
    open.close();

    harness.clock.jump(-YEAR);
    let mut open = harness.open_in_steps();
    open.run();
    assert_eq!(open.journal.now().0 - before.0, 24 * HOUR, "the clock never runs backwards");
    assert_eq!((seqs(&open.journal).len(), known(&open)), (60, 60));
    assert_eq!(jumps(&harness), 1, "the wall clock cannot be earlier than at the last commit without a jump");
    assert!(open.journal.wall_time_without_jump().is_some(), "the clocks disagree");
    open.close();
}

#[test]
fn a_restart_continues_the_clock_where_it_stopped() {
    let harness = expiring();
    let mut open = harness.open_in_steps();
    open.store(&sample(0, 100));
    let before = open.journal.now();
    harness.clock.advance(5_000);
    harness.kill_stepped(open);
    harness.clock.advance(2_000);
    let open = harness.open_in_steps();
    assert_eq!(open.journal.now().0 - before.0, 7_000);
    assert_eq!(jumps(&harness), 0);
    open.close();
}

#[test]
fn the_clocks_disagree_for_ten_minutes_after_a_jump() {
    let harness = expiring();
    let open = harness.open_in_steps();
    let without_jump = || open.journal.wall_time_without_jump().map(|time| time.0);
    harness.clock.jump(5 * 60 * 1000);
    assert_eq!((without_jump(), jumps(&harness)), (None, 0), "five minutes are no jump");
    harness.clock.advance(10);
    harness.clock.jump(5 * 60 * 1000 + 1);
    assert_eq!(without_jump(), Some(NOW + 5 * 60 * 1000 + 10));
    harness.clock.advance(10 * 60 * 1000 - 1);
    assert_eq!(without_jump(), Some(NOW + 15 * 60 * 1000 + 9));
    harness.clock.advance(1);
    assert_eq!((without_jump(), jumps(&harness)), (None, 1));
    open.close();
}

/// A body window ends if the wall clock says so, even if the process has restarted since the jump.
#[test]
fn the_offsets_of_the_wall_clock_survive_a_restart() {
    let harness = expiring();
    let mut open = harness.open_in_steps();
    open.store(&sample(0, 100));
    let first_seen = open.journal.now();
    harness.clock.advance(1_000);
    harness.clock.jump(HOUR as i64);
    open.store(&sample(1, 100));
    let window = Duration::from_secs(1_800);
    let expected = open.journal.before_either_clock(window);
    assert!(expected >= first_seen && expected < open.journal.now(), "only the first key is older than half an hour");
    harness.kill_stepped(open);
    let open = harness.open_in_steps();
    assert!(open.journal.before_either_clock(window) >= first_seen);
    assert!(open.journal.before_either_clock(window) < open.journal.now(), "the second key is not");
    assert_eq!(jumps(&harness), 1, "the restart does not count the jump again");
    open.close();
}
