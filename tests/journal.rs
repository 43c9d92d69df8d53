//! The promises of the journal, one by one, on a simulated disk; what only a real directory can show, on one.

mod common {
    pub mod disk;
    pub mod events;
}

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use common::disk::{SimDisk, Step};
use common::events::{ManualClock, Sample, TOPICS};
use hookhold::event::{Event, Position};
use hookhold::event_key::EventKey;
use hookhold::journal::disk::{Disk, LocalDisk};
use hookhold::journal::{AppendError, AppendRejected, Journal, MemoryLookup, OpenError, Options, ReadOnlyJournal, StoredEvent};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;

const NOW: u64 = 1_700_000_000_000;

type End = Receiver<Result<Position, AppendError>>;

/// A medium, a clock and options: what stays when a journal is opened again.
struct Harness {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    options: Options,
}

impl Harness {
    fn new() -> Harness {
        let limits = JournalLimits { segment_size: 32 << 10, ..JournalLimits::default() };
        let options = Options { limits, ..Options::default() };
        Harness { disk: SimDisk::default(), clock: Arc::new(ManualClock::at(NOW)), metrics: Arc::default(), options }
    }

    fn with(change: impl FnOnce(&mut Options)) -> Harness {
        let mut harness = Harness::new();
        change(&mut harness.options);
        harness
    }

    fn open(&self) -> Journal {
        self.try_open().expect("it opens")
    }

    fn try_open(&self) -> Result<Journal, OpenError> {
        Journal::open(self.disk.start(), self.options.clone(), self.clock.clone(), self.metrics.clone())
    }

    /// The process ends without a word; its threads are collected.
    fn kill(&self, journal: Journal) {
        self.disk.kill();
        journal.close();
    }

    fn outside(&self) -> ReadOnlyJournal {
        let process = if self.disk.is_dead() { self.disk.start() } else { self.disk.second_process() };
        ReadOnlyJournal::open(process).expect("it can be looked at")
    }
}

fn sample(number: usize, length: usize) -> Sample {
    let mut body = format!("body {number} ").into_bytes();
    body.resize(body.len().max(length), b'.');
    Sample { topic: 0, body, id: format!("id-{number}"), key: Some(key(number).0), received_at: NOW, headers: Vec::new() }
}

fn key(number: usize) -> EventKey {
    let mut key = [0xA5; 16];
    key[..8].copy_from_slice(&(number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    EventKey(key)
}

/// Hands an event over and returns where its end will arrive.
fn hand_over(journal: &Journal, event: &Event) -> Result<End, AppendRejected> {
    let (sender, end) = channel();
    journal.append(event, Box::new(move |result| sender.send(result).unwrap_or(())))?;
    Ok(end)
}

fn try_keep(journal: &Journal, sample: &Sample) -> Result<Position, AppendError> {
    hand_over(journal, &sample.event()).expect("it is taken").recv().expect("its end is told")
}

/// The end of an event that may be refused at the door or at the writer.
fn try_hand_over(journal: &Journal, sample: &Sample) -> Result<Position, AppendRejected> {
    match hand_over(journal, &sample.event())?.recv().expect("its end is told") {
        Err(AppendError::Full) => Err(AppendRejected::Full),
        end => Ok(end.expect("it is kept")),
    }
}

fn keep(journal: &Journal, sample: &Sample) -> Position {
    try_keep(journal, sample).expect("it is kept")
}

fn keep_many(journal: &Journal, numbers: std::ops::Range<usize>, length: usize) -> Vec<Position> {
    numbers.map(|number| keep(journal, &sample(number, length))).collect()
}

/// Lets the writer go as far as it can; what it must not do would have happened by then.
fn come_to_rest(journal: &Journal) {
    let mut before = None;
    while before != Some(journal.durable_watermark()) {
        before = Some(journal.durable_watermark());
        (0..20_000).for_each(|_| std::thread::yield_now());
    }
}

fn read(journal: &Journal) -> Vec<StoredEvent> {
    let mut reader = journal.reader(0);
    std::iter::from_fn(|| reader.next().expect("it can be read")).collect()
}

fn seqs(journal: &Journal) -> Vec<u64> {
    read(journal).iter().map(|stored| stored.position.seq).collect()
}

fn ask(journal: &Journal, key: &EventKey) -> Option<u64> {
    match journal.lookup_in_memory(key) {
        MemoryLookup::Seen(seen) => Some(seen.seq),
        MemoryLookup::New => None,
        MemoryLookup::MaybeOnDisk => journal.lookup(key).expect("the key files can be read").map(|seen| seen.seq),
    }
}

/// A harness whose journal holds events 0 to 59 in several segments, two of them sealed, and is closed.
fn filled() -> Harness {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..60, 2_000);
    harness.disk.wait_for(|files| sealed(files, 2));
    journal.close();
    harness
}

fn sealed(files: &[String], count: usize) -> bool {
    files.iter().filter(|name| name.ends_with(".lanes")).count() >= count
}

#[test]
fn nobody_hears_of_an_event_before_its_sync_has_returned() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let first = hand_over(&journal, &sample(0, 10).event()).expect("taken");
    gate.wait_for(1);
    let others: Vec<End> = (1..20).map(|n| hand_over(&journal, &sample(n, 10).event()).expect("taken")).collect();
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
    assert!(others.iter().all(|end| end.try_recv() == Err(TryRecvError::Empty)));
    assert_eq!(journal.durable_watermark(), 0);
    assert!(read(&journal).is_empty(), "readers never pass the mark");
    assert_eq!(harness.outside().log_end().expect("a mark"), 0);
    assert!(journal.sync_age().is_some());
    gate.release();
    assert_eq!(first.recv().expect("told").expect("kept").seq, 0);
    let kept: Vec<u64> = others.iter().map(|end| end.recv().expect("told").expect("kept").seq).collect();
    assert_eq!(kept, (1..20).collect::<Vec<_>>());
    assert_eq!(journal.durable_watermark(), 20);
    journal.close();
}

#[test]
fn who_watches_no_longer_is_let_go() {
    let harness = Harness::new();
    let journal = harness.open();
    let (for_ever, once) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for (calls, goes_on) in [(for_ever.clone(), true), (once.clone(), false)] {
        journal.on_commit(Box::new(move || {
            calls.fetch_add(1, Ordering::Relaxed);
            goes_on
        }));
    }
    keep_many(&journal, 0..3, 100);
    assert_eq!((for_ever.load(Ordering::Relaxed), once.load(Ordering::Relaxed)), (3, 1));
    assert_eq!((Arc::strong_count(&for_ever), Arc::strong_count(&once)), (2, 1), "what it held is free");
    journal.close();
}

#[test]
fn a_failed_sync_fails_everybody_and_nothing_more_is_taken() {
    let harness = Harness::new();
    let journal = harness.open();
    keep(&journal, &sample(0, 10));
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let first = hand_over(&journal, &sample(1, 10).event()).expect("taken");
    gate.wait_for(1);
    // More than one commit's worth: some of them would go into the next segment.
    let others: Vec<End> = (2..30).map(|n| hand_over(&journal, &sample(n, 3_000).event()).expect("taken")).collect();
    gate.fail(io::ErrorKind::Other);
    assert_eq!(first.recv().expect("told"), Err(AppendError::Sync));
    for end in &others {
        assert_eq!(end.recv().expect("told, not dropped"), Err(AppendError::Sync));
    }
    assert!(journal.failed());
    assert_eq!(hand_over(&journal, &sample(31, 10).event()).err(), Some(AppendRejected::Failed));
    assert_eq!(journal.durable_watermark(), 1);
    journal.close();
}

#[test]
fn events_behind_a_failed_batch_of_the_same_commit_are_told_too() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Write, ".seg");
    let first = hand_over(&journal, &sample(0, 10).event()).expect("taken");
    gate.wait_for(1);
    // All of these are taken at once and need several segments; the sync of the first batch fails.
    let others: Vec<End> = (1..60).map(|n| hand_over(&journal, &sample(n, 3_000).event()).expect("taken")).collect();
    let syncs = harness.disk.hold(Step::Sync, ".seg");
    gate.release();
    syncs.wait_for(1);
    let writes = harness.disk.hold(Step::Write, ".seg");
    syncs.release();
    assert!(first.recv().expect("told").is_ok());
    writes.wait_for(1);
    harness.disk.fail(Step::Sync, ".seg", io::ErrorKind::Other, 1);
    writes.release();
    for end in &others {
        assert_eq!(end.recv().expect("told, not dropped"), Err(AppendError::Sync));
    }
    journal.close();
}

#[test]
fn a_failed_write_abandons_the_segment_and_the_next_event_is_kept_in_a_new_one() {
    let harness = Harness::new();
    let journal = harness.open();
    keep(&journal, &sample(0, 10));
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    assert_eq!(try_keep(&journal, &sample(1, 5_000)), Err(AppendError::Write));
    assert_eq!(ask(&journal, &key(1)), None);
    assert_eq!(keep(&journal, &sample(2, 10)).seq, 1, "the sequence was never used");
    assert!(!journal.failed());
    harness.kill(journal);
    harness.disk.cut_power();
    let journal = harness.open();
    let bodies: Vec<_> = read(&journal).into_iter().map(|stored| stored.event.id().map(str::to_owned)).collect();
    assert_eq!(bodies, [Some("id-0".to_owned()), Some("id-2".to_owned())]);
    assert_eq!(ask(&journal, &key(1)), None, "its retry must be kept");
    journal.close();
}

#[test]
fn a_full_disk_refuses_until_there_is_space_again() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.disk.set_limit(harness.disk.used());
    let mut kept = 0;
    let refused = loop {
        match hand_over(&journal, &sample(kept, 5_000).event()).map(|end| end.recv().expect("told")) {
            Ok(Ok(_)) => kept += 1,
            end => break end,
        }
    };
    assert_eq!(refused, Ok(Err(AppendError::Full)));
    assert!(kept > 3, "the allocated segment could be used: {kept}");
    assert!(!journal.failed());
    harness.disk.set_limit(u64::MAX);
    // A moved cursor makes the keeper look round at once; it also does so every second.
    let end = loop {
        journal.save_cursor(TOPICS[1], 0);
        match hand_over(&journal, &sample(kept, 5_000).event()) {
            Err(refused) => assert_eq!(refused, AppendRejected::Full),
            Ok(end) => match end.recv().expect("told") {
                Err(error) => assert_eq!(error, AppendError::Full),
                Ok(position) => break position,
            },
        }
    };
    assert_eq!(end.seq, kept as u64);
    assert_eq!(seqs(&journal), (0..=kept as u64).collect::<Vec<_>>());
    journal.close();
}

#[test]
fn a_lane_at_its_backlog_refuses_only_its_own_events() {
    let harness = Harness::with(|options| {
        options.forwards = true;
        options.limits.max_backlog = 10_000;
    });
    let journal = harness.open();
    let refused = (0..20).find_map(|n| match hand_over(&journal, &sample(n, 1_000).event()) {
        Ok(end) => end.recv().expect("told").map(|_| None).expect("kept"),
        Err(refused) => Some((n, refused)),
    });
    let (taken, refused) = refused.expect("it is refused at last");
    assert_eq!(refused, AppendRejected::TopicFull);
    assert!((5..10).contains(&taken), "{taken} events of 1,000 bytes and a little more fit into 10,000");
    let other = Sample { topic: 1, ..sample(100, 1_000) };
    keep(&journal, &other);
    journal.save_cursor(TOPICS[0], journal.durable_watermark());
    keep(&journal, &sample(101, 1_000));
    journal.close();
}

/// A body full of heads that claim to be long; each would have to be read as far as it claims.
#[test]
fn a_body_made_to_look_like_frames_costs_a_start_little_and_hides_nothing() {
    let harness = Harness::with(|options| options.limits.segment_size = 1 << 20);
    let journal = harness.open();
    keep_many(&journal, 0..10, 1_000);
    const HEADS: usize = 2_000;
    let mut body = b"crafted ".to_vec();
    for number in 0..HEADS {
        // Each ends a little further than the one before it.
        let mut head = [0; 32];
        head[..4].copy_from_slice(&(300_000_u32 - 24 * number as u32).to_le_bytes());
        (head[16], head[24]) = (20 + number as u8 % 5, 1);
        body.extend(head);
    }
    let size = body.len() as u64;
    // Wherever it lies, some of its heads lie where frames may begin.
    for shift in 0..8 {
        keep(&journal, &Sample { body: [&vec![b' '; shift][..], &body].concat(), ..sample(10 + shift, 0) });
    }
    keep_many(&journal, 18..25, 60_000);
    journal.close();
    let segment = harness.disk.names(".seg").remove(0);
    let bytes = harness.disk.bytes(&segment);
    let crafted = bytes.windows(8).enumerate().filter(|(_, window)| *window == b"crafted ").map(|(at, _)| at);
    let crafted: Vec<usize> = crafted.collect();
    assert_eq!(crafted.len(), 8);
    crafted.iter().for_each(|at| harness.disk.corrupt(&segment, *at..at + 1, |byte| !byte));
    let before = harness.disk.bytes_read();
    let journal = harness.open();
    let read = harness.disk.bytes_read() - before;
    assert!(read < 100 * size, "{} times the body", read / size);
    assert_eq!(seqs(&journal), (0..10).chain(18..25).collect::<Vec<_>>());
    journal.close();
}

/// Writer and keeper both delete segments, at any moment.
#[test]
fn while_one_thread_lays_a_file_aside_the_other_takes_no_segment() {
    let harness =
        Harness::with(|options| (options.limits.max_size, options.limits.retain) = (8 * (32 << 10), Duration::from_secs(10)));
    let journal = harness.open();
    keep_many(&journal, 0..30, 3_000);
    harness.disk.wait_for(|files| sealed(files, 3));
    // The keeper deletes what is too old, and is stopped in the middle of it; then the writer needs room.
    let gate = harness.disk.hold(Step::Rename, ".spare");
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0);
    gate.wait_for(1);
    let oldest = journal.oldest_seq();
    let ends: Vec<End> = (30..200).map(|n| hand_over(&journal, &sample(n, 3_000).event()).expect("taken")).collect();
    come_to_rest(&journal);
    assert_eq!(journal.oldest_seq(), oldest, "one deletes at a time");
    gate.release();
    for end in ends {
        end.recv().expect("told").expect("kept");
    }
    journal.close();
    assert!(harness.disk.names(".spare").len() <= 1, "{:?}", harness.disk.names(".spare"));
    let segments = harness.disk.names(".seg").into_iter().chain(harness.disk.names(".spare"));
    let bytes: usize = segments.map(|name| harness.disk.bytes(&name).len()).sum();
    assert!(bytes as u64 <= harness.options.limits.max_size, "{bytes} bytes");
}

#[test]
fn a_segment_is_not_deleted_before_its_end_is_cut_off() {
    let harness = Harness::with(|options| options.limits.max_size = 4 * (32 << 10));
    let journal = harness.open();
    let first = harness.disk.names(".seg").remove(0);
    let gate = harness.disk.hold(Step::Truncate, ".seg");
    let ends: Vec<End> = (0..100).map(|n| hand_over(&journal, &sample(n, 3_000).event()).expect("taken")).collect();
    gate.wait_for(1);
    come_to_rest(&journal);
    assert!(harness.disk.names(".seg").contains(&first), "its file may not become another segment yet");
    gate.release();
    for end in ends {
        end.recv().expect("told").expect("kept");
    }
    journal.close();
}

#[test]
fn a_spare_file_that_cannot_be_renamed_costs_nobody_a_503() {
    let harness = Harness::with(|options| options.limits.max_size = 5 * (32 << 10));
    let journal = harness.open();
    keep_many(&journal, 0..100, 1_500);
    let recycled = harness.disk.files_recycled();
    assert!(recycled > 0);
    harness.disk.fail(Step::Rename, ".seg", io::ErrorKind::Other, 3);
    keep_many(&journal, 100..200, 1_500);
    assert!(harness.disk.files_recycled() > recycled, "the next ones are used again");
    journal.close();
}

/// `/readyz` is 503 while nothing can be kept; a balancer then sends nothing that could show the contrary.
#[test]
fn trouble_ends_without_traffic_once_there_is_room() {
    for full_disk in [false, true] {
        let harness = Harness::with(|options| (options.forwards, options.limits.max_size) = (true, 200 << 10));
        let journal = harness.open();
        if full_disk {
            harness.disk.set_limit(harness.disk.used());
        }
        let refused = (0..100).find_map(|n| try_hand_over(&journal, &sample(n, 5_000)).err());
        assert_eq!(refused, Some(AppendRejected::Full));
        assert!(journal.unavailable_reason().is_some());
        harness.disk.set_limit(u64::MAX);
        if !full_disk {
            journal.save_cursor(TOPICS[0], journal.durable_watermark());
        }
        while journal.unavailable_reason().is_some() {
            // The keeper looks round at once; it also does so every second.
            journal.save_cursor(TOPICS[1], 0);
            std::thread::yield_now();
        }
        keep(&journal, &sample(200, 5_000));
        journal.close();
    }
}

#[test]
fn an_event_too_large_for_what_is_left_does_not_stop_smaller_ones() {
    let harness = Harness::with(|options| (options.forwards, options.limits.max_size) = (true, 200 << 10));
    let journal = harness.open();
    keep(&journal, &sample(0, 100));
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let under_way = hand_over(&journal, &sample(1, 100).event()).expect("taken");
    gate.wait_for(1);
    // Both are taken for the same commit.
    let [large, small] =
        [(2, 300_000), (3, 100)].map(|(n, length)| hand_over(&journal, &sample(n, length).event()).expect("taken"));
    gate.release();
    assert!(under_way.recv().expect("told").is_ok());
    assert_eq!(large.recv().expect("told"), Err(AppendError::Full));
    assert_eq!(small.recv().expect("told").expect("kept").seq, 2);
    assert_eq!(journal.unavailable_reason(), None, "usual events can be kept");
    keep(&journal, &sample(4, 100));
    journal.close();
}

#[test]
fn a_missing_reserve_is_laid_in_as_soon_as_there_is_room() {
    let harness = Harness::new();
    harness.disk.set_limit(80 << 10);
    let journal = harness.open();
    assert!(harness.disk.names("reserve").is_empty(), "the first segment left no room for it");
    harness.disk.set_limit(u64::MAX);
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.wait_for(|files| files.iter().any(|file| file == "reserve"));
    journal.close();
}

#[test]
fn an_oversized_event_gets_a_segment_of_its_own() {
    let harness = Harness::new();
    let journal = harness.open();
    keep(&journal, &sample(0, 10));
    let large = sample(1, 300_000);
    keep(&journal, &large);
    keep(&journal, &sample(2, 10));
    let stored = read(&journal);
    assert_eq!(stored.iter().map(|stored| stored.position.seq).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(*stored[1].event.body(), large.body);
    assert_eq!(harness.disk.names(".seg").len(), 3, "one before it, its own, one behind it");
    harness.kill(journal);
    harness.disk.cut_power();
    assert_eq!(seqs(&harness.open()), [0, 1, 2]);
}

/// `docs/journal.md`: who reads the files with other means can go from commit to commit.
#[test]
fn every_commit_says_how_long_it_is() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    keep_many(&journal, 0..10, 100);
    harness.kill(journal);
    // A copy of what was unsure, a segment that begins with an opening, and commits of cursors alone.
    let journal = harness.open();
    keep_many(&journal, 10..20, 3_000);
    journal.save_cursor(TOPICS[0], 7);
    journal.close();
    let mut commits = 0;
    for name in harness.disk.names(".seg") {
        let bytes = harness.disk.bytes(&name);
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")) as usize;
        let frame_len = |at: usize| (number(at) as u32 as usize).next_multiple_of(8);
        let (mut at, mut commit_ends) = (64, 64);
        while at + 32 < bytes.len() && frame_len(at) > 0 {
            if bytes[at + 24] == 2 {
                assert_eq!(at, commit_ends, "commit {commits} in {name}");
                commit_ends = at + number(at + 40);
                commits += 1;
            }
            at += frame_len(at);
        }
        assert_eq!(at, commit_ends, "the last commit in {name}");
    }
    assert!(commits > 20, "{commits} commits");
}

#[test]
fn a_clean_stop_needs_no_copy() {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..5, 100);
    journal.save_cursor(TOPICS[0], 3);
    journal.close();
    harness.disk.cut_power();
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!((verdict.events, verdict.unconfirmed), (5, 0), "the last commit holds the mark");
    let before = harness.disk.names(".seg").len();
    let journal = harness.open();
    assert_eq!(harness.disk.names(".seg").len(), before + 1, "only the segment of this opening is new");
    assert_eq!(journal.topic_cursors().iter().map(|lane| lane.cursor).collect::<Vec<_>>(), [3]);
    assert_eq!(seqs(&journal), [0, 1, 2, 3, 4]);
    journal.close();
}

#[test]
fn a_stop_behind_a_full_or_abandoned_segment_still_holds_the_mark() {
    let harness = Harness::new();
    let journal = harness.open();
    keep(&journal, &sample(0, 100));
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    assert_eq!(try_keep(&journal, &sample(1, 100)), Err(AppendError::Write));
    journal.save_cursor(TOPICS[0], 1);
    journal.close();
    harness.disk.cut_power();
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!((verdict.events, verdict.unconfirmed), (1, 0));
    assert_eq!(harness.open().topic_cursors()[0].cursor, 1);
}

#[test]
fn after_a_kill_the_last_commit_is_copied_under_its_first_position() {
    let harness = Harness::new();
    let journal = harness.open();
    let positions = keep_many(&journal, 0..5, 100);
    harness.kill(journal);
    assert_eq!(harness.outside().verify().expect("it can be read").unconfirmed, 1, "the last of five commits");
    let journal = harness.open();
    let found: Vec<Position> = read(&journal).iter().map(|stored| stored.position).collect();
    assert_eq!(found, positions);
    let next = keep(&journal, &sample(5, 10));
    assert_eq!(next.seq, 5);
    assert_ne!(next.log, positions[0].log, "every opening draws a new log id");
    journal.close();
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let harness = Harness::new();
    let journal = harness.open();
    let second =
        || Journal::open(harness.disk.second_process(), harness.options.clone(), harness.clock.clone(), harness.metrics.clone());
    assert!(matches!(second(), Err(OpenError::Locked)));
    journal.close();
    second().expect("the lock is free").close();
}

#[test]
fn a_second_opening_of_a_real_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let harness = Harness::new();
    let disk = || Arc::new(LocalDisk::create(dir.path()).expect("a disk"));
    let open = || Journal::open(disk(), harness.options.clone(), harness.clock.clone(), harness.metrics.clone());
    let journal = open().expect("it opens");
    assert!(disk().is_locked("lock").expect("an answer"));
    assert!(matches!(open(), Err(OpenError::Locked)));
    journal.close();
    assert!(!disk().is_locked("lock").expect("an answer"));
    open().expect("the lock is free").close();
}

#[test]
fn the_meta_file_missing_damaged_or_later_says_so() {
    let text = |harness: &Harness| match harness.try_open() {
        Err(error) => format!("{error}: {}", std::error::Error::source(&error).expect("a cause")),
        Ok(_) => panic!("it opened"),
    };
    let harness = Harness::new();
    harness.open().close();
    let meta = harness.disk.bytes("meta");

    harness.disk.corrupt("meta", 20..21, |byte| !byte);
    assert!(text(&harness).contains("meta") && text(&harness).contains("damaged"), "{}", text(&harness));

    harness.disk.remove_file("meta");
    assert!(text(&harness).contains("missing"), "{}", text(&harness));

    let mut later = meta.clone();
    later[8] = 2;
    let crc = crc32c::crc32c(&later[..28]);
    later[28..].copy_from_slice(&crc.to_le_bytes());
    harness.disk.put_file("meta", &later);
    assert!(text(&harness).contains("later version"), "{}", text(&harness));

    harness.disk.remove_file("meta");
    harness.disk.put_file("meta", &meta);
    harness.open().close();
}

#[test]
fn damage_in_a_version_is_damage_and_not_a_later_version() {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..3, 100);
    journal.close();
    harness.open().close();
    let segment = harness.disk.names(".seg").remove(0);
    harness.disk.corrupt(&segment, 8..9, |_| 2);
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!(verdict.damage.len(), 1);
    assert_eq!(verdict.damage[0].bytes, 0..64);
    let journal = harness.open();
    assert_eq!(seqs(&journal), [0, 1, 2], "a header costs no event");
    journal.close();
}

#[test]
fn a_tail_that_does_not_fit_uses_the_reserve_and_without_one_ends_the_start() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let ends: Vec<End> = (0..4).map(|n| hand_over(&journal, &sample(n, 5_000).event()).expect("taken")).collect();
    gate.wait_for(1);
    drop(gate);
    for end in ends {
        assert!(end.recv().expect("told").is_ok());
    }
    harness.kill(journal);
    let unsure = harness.outside().verify().expect("it can be read").unconfirmed;
    assert!(unsure > 0);
    harness.disk.set_limit(harness.disk.used());

    // The copy finds no room, takes the reserve's, and then there is none for the segment of this opening.
    let needed = match harness.try_open() {
        Err(OpenError::NoRoom { bytes }) => bytes,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    };
    assert!(needed > 0);
    assert!(harness.disk.names("reserve").is_empty(), "it was used");
    assert_eq!(harness.outside().verify().expect("it can be read").unconfirmed, 0, "the copy is done");

    // A small segment will do, though not a whole one.
    harness.disk.set_limit(harness.disk.used() + 80_000);
    let journal = harness.open();
    assert_eq!(seqs(&journal), [0, 1, 2, 3]);
    journal.close();
}

#[test]
fn key_files_are_written_from_the_reserve_when_the_disk_is_full() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Create, ".keys.tmp");
    let mut number = 0;
    while harness.disk.names(".seg").len() < 2 {
        keep(&journal, &sample(number, 2_000));
        number += 1;
    }
    gate.wait_for(1);
    harness.disk.set_limit(harness.disk.used());
    assert_eq!(harness.disk.names("reserve").len(), 1);
    gate.release();
    harness.disk.wait_for(|files| sealed(files, 1));
    journal.close();
    let journal = harness.open();
    assert!((0..number).all(|number| ask(&journal, &key(number)) == Some(number as u64)));
    journal.close();
}

#[test]
fn an_id_is_seen_although_its_payload_has_been_deleted() {
    let harness = Harness::with(|options| options.limits.max_size = 200 << 10);
    let journal = harness.open();
    keep_many(&journal, 0..200, 3_000);
    let oldest = journal.oldest_seq();
    assert!(oldest > 100, "old segments are deleted: {oldest}");
    assert!(read(&journal)[0].position.seq >= oldest);
    assert!((0..200).all(|number| ask(&journal, &key(number)) == Some(number as u64)), "before a restart");
    harness.kill(journal);
    harness.disk.cut_power();
    let journal = harness.open();
    assert!((0..200).all(|number| ask(&journal, &key(number)) == Some(number as u64)), "after it");
    assert_eq!(ask(&journal, &key(1_000)), None);
    journal.close();
}

#[test]
fn what_is_older_than_retain_is_deleted_and_keys_leave_with_their_window() {
    let harness = Harness::with(|options| {
        options.limits.retain = Duration::from_secs(10);
        options.dedupe_window = Duration::from_secs(100);
    });
    let journal = harness.open();
    keep_many(&journal, 0..30, 3_000);
    harness.disk.wait_for(|files| sealed(files, 2));
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0);
    let is = |ending: &'static str, wanted: usize| {
        move |files: &[String]| files.iter().filter(|name| name.ends_with(ending)).count() <= wanted
    };
    harness.disk.wait_for(is(".lanes", 0));
    assert!(journal.oldest_seq() > 0);
    assert_eq!(ask(&journal, &key(0)), Some(0), "its key stays");
    harness.clock.advance(100_000);
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.wait_for(is(".keys", 0));
    while ask(&journal, &key(0)).is_some() {
        std::thread::yield_now();
    }
    journal.close();
    assert_eq!(harness.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).get(), 0, "nothing went early");
}

#[test]
fn key_files_beyond_their_limit_go_early_and_are_counted() {
    let harness = Harness::with(|options| {
        options.limits.max_size = 200 << 10;
        options.max_key_bytes = 1_000;
    });
    let journal = harness.open();
    keep_many(&journal, 0..300, 3_000);
    journal.close();
    let kept: usize = harness.disk.names(".keys").iter().map(|name| harness.disk.bytes(name).len()).sum();
    assert!(kept < 3_000, "{kept} bytes of keys");
    assert!(harness.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).get() > 100);
    assert_eq!(ask(&harness.open(), &key(299)), Some(299), "the newest are still known");
}

#[test]
fn the_file_of_a_deleted_segment_becomes_the_next_one() {
    let harness = Harness::with(|options| options.limits.max_size = 5 * (32 << 10));
    let journal = harness.open();
    keep_many(&journal, 0..200, 1500);
    assert!(harness.disk.files_recycled() > 3, "{} files", harness.disk.files_recycled());
    // What is deleted while it is read may be missing, and nothing else.
    let whole = |journal: &Journal| {
        let (found, oldest) = (seqs(journal), journal.oldest_seq());
        let kept: Vec<u64> = found.into_iter().filter(|seq| *seq >= oldest).collect();
        assert_eq!(kept, (oldest..200).collect::<Vec<_>>());
    };
    whole(&journal);
    let spare = harness.disk.names(".spare");
    harness.kill(journal);
    // What an earlier life left behind the newest commit is neither read nor called damage.
    let journal = harness.open();
    whole(&journal);
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    assert!(harness.disk.names(".spare").iter().all(|name| !spare.contains(name)), "a start begins without");
    keep(&journal, &sample(200, 1500));
}

#[test]
fn who_reads_a_segment_that_is_written_over_goes_on_behind_it() {
    // Longer than what a reader reads ahead.
    let harness = Harness::with(|options| (options.limits.segment_size, options.limits.max_size) = (1 << 20, 5 << 20));
    let journal = harness.open();
    keep_many(&journal, 0..60, 30_000);
    let (mut inside, mut outside) = (journal.reader(0), harness.outside());
    assert_eq!(inside.next().expect("it can be read").map(|stored| stored.position.seq), Some(0));
    assert_eq!(outside.next().expect("it can be read").map(|stored| stored.position.seq), Some(0));
    keep_many(&journal, 60..300, 30_000);
    assert!(harness.disk.files_recycled() > 3, "{} files", harness.disk.files_recycled());
    let inside: Vec<u64> = std::iter::from_fn(|| inside.next().expect("it can be read")).map(|s| s.position.seq).collect();
    let outside: Vec<u64> = std::iter::from_fn(|| outside.next().expect("it can be read")).map(|s| s.position.seq).collect();
    for rest in [inside, outside] {
        assert_eq!(rest[rest.len() - 50..], (250..300).collect::<Vec<_>>());
    }
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    assert_eq!(harness.outside().verify().expect("it can be read").damage, []);
}

#[test]
fn a_recycled_segment_that_could_not_be_begun_hides_nothing() {
    let harness = Harness::with(|options| (options.limits.segment_size, options.limits.max_size) = (64 << 10, 5 * (64 << 10)));
    let journal = harness.open();
    keep_many(&journal, 0..200, 1500);
    let recycled = harness.disk.files_recycled();
    let gate = harness.disk.hold(Step::Rename, ".seg");
    // While the writer waits at the gate, the background thread seals nothing. All older segments must be sealed by then, so
    // that the failures below hit the writer.
    let wait_until_older_are_sealed = || {
        let older = harness.disk.names(".seg").into_iter().rev().skip(1);
        older.for_each(|name| while harness.disk.len(&name) == Some(64 << 10) {});
    };
    wait_until_older_are_sealed();
    let (mut number, mut end) = (200, hand_over(&journal, &sample(200, 8_000).event()).expect("taken"));
    while !gate.has_waiting() {
        if end.try_recv().is_ok_and(|end| end.is_ok()) {
            number += 1;
            wait_until_older_are_sealed();
            end = hand_over(&journal, &sample(number, 8_000).event()).expect("taken");
        }
    }
    // The name of a new segment is there, but not surely, and cannot be taken back: the one before it goes on.
    harness.disk.fail(Step::SyncDir, "", io::ErrorKind::Other, 1);
    harness.disk.fail(Step::Remove, ".seg", io::ErrorKind::Other, 1);
    gate.release();
    assert_eq!(end.recv().expect("told"), Err(AppendError::Write));
    let last = keep(&journal, &sample(300, 10));
    assert_eq!((harness.disk.files_recycled(), last.seq), (recycled + 1, number as u64));
    harness.kill(journal);
    let journal = harness.open();
    assert_eq!(read(&journal).last().map(|stored| stored.position), Some(last));
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
}

#[test]
fn a_lane_with_a_cursor_pins_its_events() {
    let harness = Harness::with(|options| {
        options.limits.max_size = 200 << 10;
        options.forwards = true;
    });
    let journal = harness.open();
    let mut number = 0;
    let full = loop {
        match hand_over(&journal, &sample(number, 3_000).event()).map(|end| end.recv().expect("told")) {
            Ok(Ok(_)) => number += 1,
            other => break other,
        }
    };
    assert_eq!(full, Ok(Err(AppendError::Full)));
    assert_eq!(journal.oldest_seq(), 0, "nothing was deleted");
    assert_eq!(journal.count(TOPICS[0], 0, u64::MAX), number as u64);
    journal.save_cursor(TOPICS[0], journal.durable_watermark());
    while hand_over(&journal, &sample(number, 3_000).event()).is_err() {
        std::thread::yield_now();
    }
    keep(&journal, &sample(number + 1, 3_000));
    assert!(journal.oldest_seq() > 0, "what is acknowledged makes room");
    journal.close();
}

/// One topic with a trickle that never flows, among others that do.
#[test]
fn a_blocked_trickle_is_refused_alone_and_the_others_flow_on() {
    let segment = 32 << 10;
    let harness = Harness::with(|options| {
        options.limits.max_size = 12 * segment;
        options.limits.max_backlog = 6 * segment;
        options.forwards = true;
    });
    let journal = harness.open();
    let mut refused = 0;
    for number in 0..500 {
        // Some 90 bytes in 10,000: its own bytes would never reach any limit.
        if number % 3 == 0 {
            match hand_over(&journal, &Sample { topic: 1, ..sample(1_000 + number, 90) }.event()) {
                Ok(end) => drop(end.recv().expect("told").expect("kept")),
                Err(error) => {
                    assert_eq!(error, AppendRejected::TopicFull);
                    refused += 1;
                }
            }
        }
        let flowing = keep(&journal, &sample(number, 3_000));
        journal.save_cursor(TOPICS[0], flowing.seq + 1);
    }
    assert!(refused > 100, "{refused} of the blocked topic were refused");
    journal.update_metrics();
    let pinned = |topic: &str| harness.metrics.journal.pinned_bytes.with_label_values(&[topic]).get() as u64;
    assert!((3 * segment..=6 * segment).contains(&pinned(TOPICS[1])), "{} bytes, within max_backlog", pinned(TOPICS[1]));
    assert!(pinned(TOPICS[0]) < segment, "{} bytes", pinned(TOPICS[0]));
    // Once it flows, everything is as before.
    journal.save_cursor(TOPICS[1], journal.durable_watermark());
    while hand_over(&journal, &Sample { topic: 1, ..sample(2_000, 90) }.event()).is_err() {
        std::thread::yield_now();
    }
    journal.close();
}

#[test]
fn while_nothing_flows_a_topic_is_charged_with_its_own_bytes_only() {
    let segment = 32 << 10;
    let harness = Harness::with(|options| {
        options.limits.max_size = 12 * segment;
        options.limits.max_backlog = 6 * segment;
        options.forwards = true;
    });
    let journal = harness.open();
    let keep = |number: usize| try_hand_over(&journal, &Sample { topic: number % 2, ..sample(number, 3_000) });
    // Half of the bytes are each topic's: all of max_size can be used before anybody is refused.
    let (number, refused) = (0..).find_map(|number| Some((number, keep(number).err()?))).expect("it is full at last");
    assert_eq!(refused, AppendRejected::Full);
    assert!(number as u64 * 3_000 > 8 * segment, "{number} events");
    journal.close();
}

#[test]
fn damaged_lane_and_key_files_are_written_again_from_their_segment() {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..60, 2_000);
    harness.disk.wait_for(|files| sealed(files, 4));
    journal.close();
    let (lanes, keys) = (harness.disk.names(".lanes"), harness.disk.names(".keys"));
    assert!(lanes.len() >= 3 && keys.len() >= 3);
    harness.disk.corrupt(&lanes[0], 30..31, |byte| !byte);
    harness.disk.corrupt(&keys[1], 30..31, |byte| !byte);
    harness.disk.remove_file(&lanes[2]);
    let journal = harness.open();
    assert_eq!(seqs(&journal), (0..60).collect::<Vec<_>>());
    assert!((0..60).all(|number| ask(&journal, &key(number)) == Some(number as u64)));
    harness.disk.wait_for(|files| files.contains(&lanes[2]));
    journal.close();
    assert_eq!(harness.metrics.journal.damaged.get(), 0, "no event is lost");
}

#[test]
fn a_damaged_entry_of_a_key_file_hides_no_other() {
    let harness = filled();
    let keys = harness.disk.names(".keys").remove(0);
    let entries = (harness.disk.bytes(&keys).len() - 48) / 36;
    assert!(entries > 5);
    harness.disk.corrupt(&keys, 48 + 36 * (entries / 2)..49 + 36 * (entries / 2), |byte| !byte);
    let journal = harness.open();
    let known = (0..60).filter(|number| ask(&journal, &key(*number)) == Some(*number as u64)).count();
    assert_eq!(known, 59);
    let again = (0..60).filter(|number| ask(&journal, &key(*number)).is_some()).count();
    assert_eq!(again, 59);
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once, not at each look");
    journal.close();
}

#[test]
fn a_key_file_that_is_written_anew_is_not_called_damaged_by_who_asks_it_meanwhile() {
    let harness = filled();
    let segment = harness.disk.names(".seg").remove(0);
    let at = harness.disk.bytes(&segment).windows(7).position(|window| window == b"body 3 ").expect("the event is there");
    let journal = harness.open();
    harness.disk.corrupt(&segment, at..at + 1, |byte| !byte);
    let whole = harness.disk.bytes(&segment.replace(".seg", ".keys")).len();
    // The new file is there, but the journal does not go by it yet.
    harness.disk.fail(Step::SyncDir, "", io::ErrorKind::Other, 1_000);
    assert_eq!(read(&journal).len(), 59);
    while harness.disk.bytes(&segment.replace(".seg", ".keys")).len() == whole {
        std::thread::yield_now();
    }
    for number in 0..60 {
        assert_eq!(ask(&journal, &key(number)), (number != 3).then_some(number as u64));
    }
    assert_eq!(ask(&journal, &EventKey([0xFF; 16])), None, "the last entry is asked for it");
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the rot, and nothing else");
    journal.close();
}

#[test]
fn the_key_file_of_a_segment_without_keys_is_written_once_and_goes_with_it() {
    let harness = Harness::with(|options| options.limits.retain = Duration::from_secs(10));
    let journal = harness.open();
    let renamed = harness.disk.hold(Step::Rename, ".keys");
    let mut numbers = 0..;
    while harness.disk.names(".seg").len() < 2 {
        keep(&journal, &Sample { key: None, ..sample(numbers.next().expect("there are many"), 2_000) });
    }
    renamed.wait_for(1);
    // A second time would wait here for ever, and the keeper with it.
    let _again = harness.disk.hold(Step::Create, ".keys.tmp");
    renamed.release();
    harness.disk.wait_for(|files| sealed(files, 1));
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.wait_for(|files| !files.iter().any(|file| file.ends_with(".lanes") || file.ends_with(".keys")));
    journal.close();
}

#[test]
fn rot_in_a_sealed_segment_forgets_the_keys_of_what_is_lost() {
    let harness = filled();
    let segment = harness.disk.names(".seg").remove(0);
    let bytes = harness.disk.bytes(&segment);
    let at = bytes.windows(7).position(|window| window == b"body 3 ").expect("the event is there");
    harness.disk.corrupt(&segment, at..at + 1, |byte| !byte);
    let journal = harness.open();
    assert_eq!(ask(&journal, &key(3)), Some(3), "nobody has looked yet");
    let expected: Vec<u64> = (0..60).filter(|seq| *seq != 3).collect();
    assert_eq!(seqs(&journal), expected);
    assert_eq!(ask(&journal, &key(3)), None, "its retry must be kept");
    assert_eq!(harness.metrics.journal.damaged.get(), 1);
    assert_eq!(seqs(&journal), expected);
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once");
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!(verdict.damage.len(), 1);
    assert!(verdict.damage[0].file == segment && verdict.damage[0].bytes.contains(&(at as u64)));
    assert_eq!(verdict.events, 59);
    // The key file itself is written anew behind the scenes.
    let name = segment.replace(".seg", ".keys");
    while harness.disk.bytes(&name).windows(16).any(|window| window == key(3).0) {
        std::thread::yield_now();
    }
    journal.close();
    assert_eq!(ask(&harness.open(), &key(3)), None, "also after a restart");
}

#[test]
fn a_tail_follows_while_another_process_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let harness = Harness::new();
    let disk = Arc::new(LocalDisk::create(dir.path()).expect("a disk"));
    let journal = Journal::open(disk, harness.options.clone(), harness.clock.clone(), harness.metrics.clone()).expect("it opens");
    let writer = std::thread::spawn({
        let journal = journal.clone();
        move || keep_many(&journal, 0..300, 1_000).len()
    });
    let mut tail = ReadOnlyJournal::open(Arc::new(LocalDisk::existing(dir.path()).expect("a disk"))).expect("no lock is needed");
    let mut seen = Vec::new();
    while seen.len() < 300 {
        match tail.next().expect("it can be read") {
            Some(stored) => seen.push(stored.position.seq),
            None => std::thread::yield_now(),
        }
        assert!(tail.log_end().expect("a mark") <= journal.durable_watermark() + 1);
    }
    assert_eq!(writer.join().expect("it ends"), 300);
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    let verdict = ReadOnlyJournal::open(Arc::new(LocalDisk::existing(dir.path()).expect("a disk")))
        .and_then(|outside| outside.verify())
        .expect("it can be read");
    assert_eq!((verdict.events, verdict.damage.len()), (300, 0));
    journal.close();
}

#[test]
fn verify_finds_nothing_wrong_while_another_process_writes() {
    let harness = Harness::new();
    let journal = harness.open();
    let writer = std::thread::spawn({
        let journal = journal.clone();
        move || keep_many(&journal, 0..300, 1_000).len()
    });
    let mut looks = 0;
    while !writer.is_finished() || looks < 3 {
        let verdict = harness.outside().verify().expect("it can be read");
        assert!(verdict.damage.is_empty(), "{:?}", verdict.damage);
        looks += 1;
    }
    assert_eq!(writer.join().expect("it ends"), 300);
    journal.close();
}

#[test]
fn stat_tells_sizes_cursors_and_what_waits() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    keep_many(&journal, 0..10, 100);
    journal.save_cursor(TOPICS[0], 4);
    journal.close();
    let stat = harness.outside().stat().expect("it can be read");
    assert_eq!((stat.events, stat.oldest, stat.next, stat.in_use), (10, 0, 10, false));
    let lane = &stat.topics[0];
    assert_eq!((&*lane.topic, lane.cursor, lane.waiting, lane.events), (TOPICS[0], Some(4), 6, 10));
}

#[test]
fn stat_reads_lane_files_and_tells_what_a_frame_by_frame_count_would() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    for number in 0..300 {
        keep(&journal, &Sample { topic: number % 2, ..sample(number, 3_000) });
    }
    // One cursor stands in the middle of a segment.
    journal.save_cursor(TOPICS[0], 151);
    journal.save_cursor(TOPICS[1], 300);
    harness.disk.wait_for(|files| sealed(files, files.iter().filter(|name| name.ends_with(".seg")).count() - 1));
    journal.close();
    journal.update_metrics();
    let pinned = TOPICS.map(|topic| harness.metrics.journal.pinned_bytes.with_label_values(&[topic]).get() as u64);
    assert!(pinned[0] > 150 * 3_000, "its own, and what the other topic has passed in between");
    let (before, journal_bytes) =
        (harness.disk.bytes_read(), harness.outside().verify().map(|_| harness.disk.used()).expect("it can be read"));
    let (verified, stat) = (harness.disk.bytes_read(), harness.outside().stat().expect("it can be read"));
    assert!(verified - before > 300 * 3_000, "verify reads everything");
    assert!(harness.disk.bytes_read() - verified < journal_bytes / 5, "stat does not");
    let lane = |topic: &str| stat.topics.iter().find(|lane| &*lane.topic == topic).expect("it is listed");
    let (orders, invoices) = (lane(TOPICS[0]), lane(TOPICS[1]));
    assert_eq!((orders.events, orders.waiting, invoices.events, invoices.waiting), (150, 74, 150, 0));
    assert_eq!([orders.pinned, invoices.pinned], pinned[..2], "the same as the metric");
    assert_eq!((stat.events, stat.next), (300, 300));
}

#[test]
fn directory_and_files_are_the_owners_alone() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("a/journal");
    let harness = Harness::new();
    let disk = Arc::new(LocalDisk::create(&dir).expect("a disk"));
    let journal = Journal::open(disk, harness.options.clone(), harness.clock.clone(), harness.metrics.clone()).expect("it opens");
    keep_many(&journal, 0..60, 2_000);
    journal.close();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.len() > 6, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}

#[test]
fn every_field_of_an_event_comes_back_byte_for_byte() {
    let harness = Harness::new();
    let journal = harness.open();
    let full = Sample {
        topic: 2,
        body: (0..=255).chain([0, 13, 10, 0xFF, 0xFE]).collect(),
        id: "an id".into(),
        key: Some([7; 16]),
        received_at: NOW + 17,
        headers: vec![
            ("x-type", b"order.paid".to_vec()),
            ("x-latin", vec![0x41, 0xE9, 0xFF, 0x80]),
            ("x-twice", b"one".to_vec()),
            ("x-twice", b"two".to_vec()),
            ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec()),
        ],
    };
    let bare = Sample { body: Vec::new(), id: String::new(), ..Sample::default() };
    let events = [full.event(), bare.event()];
    assert!(events[0].request().headers.iter().any(|(name, value)| name == "x-latin" && value == &[0x41, 0xE9, 0xFF, 0x80][..]));
    assert!(events[0].request().traceparent.is_some() && events[1].dedupe_key().is_none());
    for event in &events {
        hand_over(&journal, event).expect("taken").recv().expect("told").expect("kept");
    }
    journal.close();
    let journal = harness.open();
    let stored = read(&journal);
    assert_eq!(stored.len(), 2);
    for (event, stored) in events.iter().zip(&stored) {
        assert_eq!(format!("{event:?}"), format!("{:?}", stored.event));
        assert_eq!(event.body(), stored.event.body());
    }
    journal.close();
}

#[test]
fn random_bytes_in_any_file_never_panic_and_never_look_like_events() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let harness = Harness::new();
        let journal = harness.open();
        keep_many(&journal, 0..40, 1_500);
        journal.close();
        harness.open().close();
        let files: Vec<String> = harness.disk.names("").into_iter().filter(|name| name != "lock" && name != "meta").collect();
        assert!(files.len() > 4);
        for _ in 0..rng.usize(1..6) {
            let file = &files[rng.usize(..files.len())];
            let size = harness.disk.bytes(file).len();
            if size > 0 {
                let start = rng.usize(..size);
                let end = (start + rng.usize(1..20_000)).min(size);
                let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(256).collect();
                let small = rng.bool();
                harness.disk.corrupt(file, start..end, |byte| if small { byte & 3 } else { noise[byte as usize] });
            }
        }
        let found = harness.outside().verify().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let journal = harness.try_open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for stored in read(&journal) {
            let number = stored.position.seq as usize;
            assert_eq!(*stored.event.body(), sample(number, 1_500).body, "seed {seed}");
        }
        assert!(found.events <= 40, "seed {seed}");
        (0..40).for_each(|number| assert!(ask(&journal, &key(number)).is_none_or(|seq| seq == number as u64), "seed {seed}"));
        journal.close();
    }
}

#[test]
fn the_newest_segment_with_a_commit_is_never_released() {
    let harness = Harness::with(|options| options.limits.retain = Duration::ZERO);
    let journal = harness.open();
    keep_many(&journal, 0..3, 100);
    // The next segment exists, but nothing of it reaches the disk; everything older is over its time.
    harness.clock.advance(60_000);
    let gate = harness.disk.hold(Step::Write, ".seg");
    let end = hand_over(&journal, &sample(3, 100_000).event()).expect("taken");
    gate.wait_for(1);
    harness.disk.wait_for(|files| sealed(files, 1));
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.kill();
    drop(gate);
    journal.close();
    assert!(end.recv().expect("told").is_err());
    harness.disk.cut_power();
    let journal = harness.open();
    assert_eq!(journal.durable_watermark(), 3, "the sequence goes on");
    journal.close();
}
