//! What is acknowledged survives: random lives of a journal on a disk that loses whatever was not synced, with a plain model
//! to disagree with.
//!
//! A life is a row of openings; each ends by a close, a kill or a power cut, at any step, also in the middle of a recovery.
//! `HOOKHOLD_SEED=n` runs one life again. The seed decides what happens, the threads decide how it interleaves: a seed that
//! failed once may need several runs.

mod common {
    pub mod disk;
    pub mod events;
}

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::disk::{SimDisk, Step};
use common::events::{ManualClock, Sample, TOPICS};
use hookhold::clock::Clock;
use hookhold::event::{LogId, Position};
use hookhold::event_key::EventKey;
use hookhold::journal::{AppendError, AppendRejected, Journal, MemoryLookup, OpenError, Options, ReadOnlyJournal, StoredEvent};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;

/// What a life may contain.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Old segments are deleted.
    retention: bool,
    /// Writes, syncs and creations fail; the disk becomes full.
    faults: bool,
    /// Bytes below the mark change.
    rot: bool,
    /// Every sync lies.
    lies: bool,
    /// Openings are long, so that files of deleted segments are written over.
    long: bool,
}

#[test]
fn what_is_acknowledged_survives_power_cuts_and_kills() {
    assert_all_lives(0..1000, Trouble::default());
}

#[test]
fn what_is_acknowledged_survives_failing_disks() {
    assert_all_lives(1000..1400, Trouble { faults: true, ..Trouble::default() });
}

#[test]
fn what_is_acknowledged_survives_beside_retention() {
    assert_all_lives(1400..1700, Trouble { retention: true, faults: true, ..Trouble::default() });
}

#[test]
fn what_is_acknowledged_survives_in_files_that_are_written_over() {
    assert_all_lives(2000..2300, Trouble { retention: true, long: true, ..Trouble::default() });
}

#[test]
fn rot_costs_only_what_it_hits() {
    assert_all_lives(1700..2000, Trouble { rot: true, ..Trouble::default() });
}

#[test]
fn a_mistaken_early_answer_is_found() {
    let lies = Trouble { lies: true, ..Trouble::default() };
    let found: Vec<_> = (0..40).filter_map(|seed| live(seed, lies).err()).collect();
    assert!(found.len() > 10, "only {} of 40 lives were found to be lies", found.len());
    assert!(found.iter().any(|what| what.contains("is lost")), "{found:?}");
}

fn assert_all_lives(seeds: Range<u64>, trouble: Trouble) {
    if let Ok(seed) = std::env::var("HOOKHOLD_SEED") {
        let seed = seed.parse().expect("HOOKHOLD_SEED is a number");
        return if seeds.contains(&seed) {
            assert_eq!(live(seed, trouble).err(), None, "seed {seed}")
        };
    }
    let next = Mutex::new(seeds);
    let counts = Mutex::new(LifeCounts::default());
    let worker = || {
        while let Some(seed) = { next.lock().expect("no panic inside").next() } {
            match live(seed, trouble) {
                Ok(one) => counts.lock().expect("no panic inside").add(one),
                Err(what) => panic!("seed {seed}: {what}"),
            }
        }
    };
    std::thread::scope(|scope| {
        let handles = [scope.spawn(worker), scope.spawn(worker)];
        for handle in handles {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let counts = counts.into_inner().expect("no panic inside");
    println!("{counts:?}");
    counts.assert_not_empty(trouble);
}

/// What happened, so that an empty test is noticed.
#[derive(Debug, Default)]
struct LifeCounts {
    lives: u64,
    acknowledged: u64,
    recovered: u64,
    cut_openings: u64,
    cuts: u64,
    rotten: u64,
    deleted: u64,
    recycled: u64,
    failed: u64,
}

impl LifeCounts {
    fn add(&mut self, other: LifeCounts) {
        self.lives += 1;
        self.acknowledged += other.acknowledged;
        self.recovered += other.recovered;
        self.cut_openings += other.cut_openings;
        self.cuts += other.cuts;
        self.rotten += other.rotten;
        self.deleted += other.deleted;
        self.recycled += other.recycled;
        self.failed += other.failed;
    }

    fn assert_not_empty(&self, trouble: Trouble) {
        let lives = self.lives;
        assert!(lives >= 300, "{self:?}");
        assert!(self.acknowledged > 10 * lives && self.cuts > lives && self.cut_openings > lives / 10, "{self:?}");
        assert!(self.recovered > lives / 10, "{self:?}");
        assert!(!trouble.rot || self.rotten > lives / 5, "{self:?}");
        assert!(!trouble.retention || self.deleted > lives / 2, "{self:?}");
        assert!(!trouble.long || self.recycled > lives, "{self:?}");
        assert!(!trouble.faults || self.failed > lives / 10, "{self:?}");
    }
}

/// What the model knows about an event that was handed over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Its end was not told: it may be kept or not.
    Open,
    /// Told to be not kept; it may still lie on the disk.
    Failed,
    /// Not kept, and it must never appear.
    Void,
    /// Kept for ever, here.
    Kept(Position),
    /// Lost to rot.
    Rotten,
}

struct Handed {
    sample: Sample,
    fate: Fate,
}

/// One life: the medium, the model, and what was seen on the way.
struct Life {
    rng: fastrand::Rng,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    options: Options,
    trouble: Trouble,
    events: Vec<Handed>,
    /// The highest cursor that was ever saved, by lane; and the one that was found at the last start.
    saved: HashMap<String, u64>,
    found: HashMap<String, u64>,
    /// What came after a lane was first found is not deleted before its cursor passes, by lane.
    pinned_from: HashMap<String, u64>,
    counts: LifeCounts,
}

macro_rules! ensure {
    ($condition:expr, $($what:tt)*) => {
        if !$condition {
            return Err(format!($($what)*));
        }
    };
}

type Checked = Result<(), String>;
type Ends = Receiver<(usize, Result<Position, AppendError>)>;

fn live(seed: u64, trouble: Trouble) -> Result<LifeCounts, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let retention = trouble.retention;
    // With retention: segments that hold enough to be written over, and few enough that they are.
    let sizes = if retention { [24, 32, 40, 64] } else { [18, 20, 32, 64] };
    let segment_size = sizes[rng.usize(..4)] * 1024;
    let limits = JournalLimits {
        max_size: if retention { rng.u64(4..9) * segment_size } else { u64::MAX / 4 },
        retain: if retention && rng.bool() { Duration::from_secs(10) } else { Duration::from_secs(86_400) },
        segment_size,
        max_backlog: u64::MAX / 8,
    };
    let options =
        Options { limits, dedupe_window: Duration::from_secs(7 * 86_400), max_key_bytes: u64::MAX / 4, forwards: rng.bool() };
    let disk = SimDisk::new(seed);
    if trouble.lies {
        disk.ignore_syncs();
    }
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let (events, saved, found, pinned_from, counts) = Default::default();
    let mut life = Life { rng, disk, clock, options, trouble, events, saved, found, pinned_from, counts };
    for _ in 0..life.rng.usize(2..6) {
        life.opening()?;
    }
    life.last_opening()?;
    life.counts.recycled = life.disk.files_recycled();
    Ok(life.counts)
}

impl Life {
    /// Opens, checks, uses and ends the journal; each part may be cut.
    fn opening(&mut self) -> Checked {
        let cut_early = self.rng.u8(..3) == 0;
        let Some((journal, _)) = self.open(cut_early)? else { return Ok(()) };
        let checked = self.check(&journal);
        if !self.disk.is_dead() {
            checked?;
            self.use_it(&journal)?;
        }
        self.end(journal);
        Ok(())
    }

    /// Opens twice without any trouble, and damages the disk in between.
    fn last_opening(&mut self) -> Checked {
        self.disk.kill();
        self.disk.set_limit(u64::MAX);
        let Some((journal, _)) = self.open(false)? else { return Err("it does not open".into()) };
        self.check(&journal)?;
        let ends = self.append(&journal, 3)?;
        journal.close();
        self.settle(ends)?;
        if self.rng.bool() {
            self.disk.cut_power();
        }
        // Once more, so that a newer segment says how far the older ones were on disk.
        let Some((journal, _)) = self.open(false)? else { return Err("it does not open again".into()) };
        journal.close();
        let damage = self.trouble.rot.then(|| self.damage()).flatten();
        let Some((journal, metrics)) = self.open(false)? else { return Err("it does not open a third time".into()) };
        match damage {
            None => self.check(&journal)?,
            Some(damage) => self.check_damaged(&journal, &metrics, &damage)?,
        }
        journal.close();
        self.check_from_outside()
    }

    fn open(&mut self, cut: bool) -> Result<Option<(Journal, Arc<Metrics>)>, String> {
        self.disk.kill();
        let process = self.disk.start();
        if cut {
            self.disk.die_after(self.rng.u64(1..25));
        }
        let metrics = Arc::new(Metrics::new());
        let clock: Arc<dyn Clock> = self.clock.clone();
        match Journal::open(process, self.options.clone(), clock, metrics.clone()) {
            Ok(journal) => Ok(Some((journal, metrics))),
            Err(error) if self.disk.is_dead() => {
                drop(error);
                self.counts.cut_openings += 1;
                self.crash();
                Ok(None)
            }
            Err(OpenError::NoRoom { .. }) if self.trouble.faults => {
                self.disk.set_limit(u64::MAX);
                self.crash();
                Ok(None)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|source| source.to_string());
                Err(format!("it does not open: {error}: {}", cause.unwrap_or_default()))
            }
        }
    }

    fn crash(&mut self) {
        self.counts.cuts += 1;
        match self.rng.u8(..3) {
            0 => self.disk.kill(),
            _ => self.disk.cut_power(),
        }
    }

    fn use_it(&mut self, journal: &Journal) -> Checked {
        if self.rng.u8(..3) > 0 {
            let steps = [8, 30, 90][self.rng.usize(..3)];
            let steps = if self.trouble.long { 10 * steps } else { steps };
            self.disk.die_after(self.rng.u64(1..steps));
        }
        let mut ends = Vec::new();
        let rounds = if self.trouble.long { 10..60 } else { 1..12 };
        for _ in 0..self.rng.usize(rounds) {
            if self.trouble.faults {
                self.make_trouble();
            }
            let count = [2, 4, 16][self.rng.usize(..3)];
            ends.push(self.append(journal, count)?);
            if self.rng.bool() {
                for ends in ends.drain(..) {
                    self.settle(ends)?;
                }
            }
            if self.rng.u8(..3) == 0 {
                self.save_cursors(journal);
            }
            self.clock.advance(self.rng.u64(..5_000));
        }
        if self.rng.u8(..4) == 0 {
            journal.close();
        } else if self.rng.bool() {
            self.crash();
        }
        self.stop_writing(journal);
        for ends in ends {
            self.settle(ends)?;
        }
        Ok(())
    }

    /// Nothing reaches the disk any more; then the threads can be collected.
    fn stop_writing(&mut self, journal: &Journal) {
        if !self.disk.is_dead() && self.rng.bool() {
            self.disk.kill();
        }
        journal.close();
    }

    fn end(&mut self, journal: Journal) {
        self.disk.kill();
        journal.close();
        self.crash();
    }

    fn make_trouble(&mut self) {
        let error = io::ErrorKind::Other;
        match self.rng.u8(..10) {
            0 => self.disk.fail(Step::Write, ".seg", error, 1),
            1 => self.disk.fail(Step::Sync, ".tmp", error, 1),
            2 if self.rng.bool() => self.disk.fail(Step::Sync, ".seg", error, 1),
            3 => self.disk.fail(Step::Create, ".seg", error, 1),
            4 => self.disk.fail(Step::SyncDir, "", error, 1),
            5 => self.disk.fail(Step::Rename, "", error, 1),
            6 => self.disk.set_limit(self.disk.used() + self.rng.u64(..40_000)),
            7 => self.disk.set_limit(u64::MAX),
            _ => {}
        }
    }

    /// Hands over some events: new ones, and those again whose senders were told 503.
    fn append(&mut self, journal: &Journal, count: usize) -> Result<Ends, String> {
        let (sender, ends) = channel();
        for _ in 0..self.rng.usize(..=count) {
            let again = self.failed_for_good();
            let sample = again.filter(|_| self.rng.bool()).unwrap_or_else(|| self.new_sample());
            self.hand_over(journal, sample, &sender)?;
        }
        Ok(ends)
    }

    fn hand_over(&mut self, journal: &Journal, sample: Sample, ends: &Sender<(usize, Result<Position, AppendError>)>) -> Checked {
        let index = self.events.len();
        let ends = ends.clone();
        let told = journal.append(&sample.event(), Box::new(move |end| ends.send((index, end)).unwrap_or(())));
        match told {
            Ok(()) => self.events.push(Handed { sample, fate: Fate::Open }),
            Err(AppendRejected::Full | AppendRejected::Failed | AppendRejected::Closing) => {
                self.events.push(Handed { sample, fate: Fate::Void });
            }
            Err(other) => return Err(format!("refused as {other}")),
        }
        Ok(())
    }

    /// An event that is certainly not kept, and that has not been sent again.
    fn failed_for_good(&self) -> Option<Sample> {
        let last = self.events.last()?;
        let open = |handed: &Handed| handed.sample.key == last.sample.key && !matches!(handed.fate, Fate::Failed | Fate::Void);
        let failed = matches!(last.fate, Fate::Failed | Fate::Void) && last.sample.key.is_some();
        (failed && !self.events.iter().any(open)).then(|| last.sample.clone())
    }

    fn new_sample(&mut self) -> Sample {
        let number = self.events.len();
        let length = match self.rng.u8(..20) {
            0..3 => self.rng.usize(2_000..9_000),
            3 => self.rng.usize(20_000..70_000),
            _ => self.rng.usize(..400),
        };
        let mut body = format!("<event {number}>").into_bytes();
        body.extend(std::iter::repeat_with(|| self.rng.u8(..)).take(length));
        let mut key = [0; 16];
        self.rng.fill(&mut key);
        Sample {
            topic: self.rng.usize(..TOPICS.len()),
            body,
            id: format!("id-{number}"),
            key: (self.rng.u8(..5) > 0).then_some(key),
            received_at: self.clock.now().0,
            headers: Vec::new(),
        }
    }

    /// Waits for the ends of all that was handed over, and believes them.
    fn settle(&mut self, ends: Ends) -> Checked {
        for (index, end) in ends {
            match end {
                Ok(position) => {
                    self.counts.acknowledged += 1;
                    self.events[index].fate = Fate::Kept(position);
                    // Its sequence was free: what failed before has lost it.
                    for handed in &mut self.events[..index] {
                        if handed.fate == Fate::Failed {
                            handed.fate = Fate::Void;
                        }
                    }
                }
                // A dead process tells nobody.
                Err(_) if self.disk.is_dead() => {}
                Err(AppendError::Sync) => {}
                Err(AppendError::Write | AppendError::Full) => {
                    self.counts.failed += 1;
                    self.events[index].fate = Fate::Failed;
                }
            }
        }
        Ok(())
    }

    fn save_cursors(&mut self, journal: &Journal) {
        let lanes = journal.topic_cursors();
        for lane in TOPICS {
            let at = lanes.iter().find(|found| *found.name == *lane).map(|found| found.cursor);
            // Who passes events on moves only the cursor of a lane that has some.
            if at.is_none() && self.options.forwards || self.rng.bool() {
                continue;
            }
            let cursor = self.rng.u64(at.unwrap_or(0)..=journal.durable_watermark());
            journal.save_cursor(lane, cursor);
            let highest = self.saved.entry(lane.into()).or_default();
            *highest = cursor.max(*highest);
        }
    }

    /// Compares what can be read with the model. What is found although its end was open is kept from now on.
    fn check(&mut self, journal: &Journal) -> Checked {
        let read = read_all(journal)?;
        let oldest = journal.oldest_seq();
        self.check_each(&read)?;
        let positions: BTreeMap<u64, Position> = read.iter().map(|stored| (stored.position.seq, stored.position)).collect();
        self.find_kept_and_deleted(journal, &positions)?;
        let mut gone = 0;
        for (index, handed) in self.events.iter_mut().enumerate() {
            match handed.fate {
                Fate::Kept(position) if positions.get(&position.seq) == Some(&position) => {}
                Fate::Kept(position) => {
                    let lane = TOPICS[handed.sample.topic];
                    // A lane without a cursor on disk pins nothing, unless events are passed on.
                    let since = if self.options.forwards { Some(&0) } else { self.pinned_from.get(lane) };
                    let cursor = self.found.get(lane).max(self.saved.get(lane)).copied().unwrap_or(0);
                    let pinned = since.is_some_and(|since| position.seq >= cursor.max(*since));
                    let deleted = self.trouble.retention
                        && !pinned
                        && (position.seq < oldest || self.options.forwards || !self.saved.is_empty());
                    ensure!(deleted, "event {index} ({lane}) at {position} is lost; oldest {oldest}, {} read", read.len());
                    gone += 1;
                }
                Fate::Open | Fate::Failed => handed.fate = Fate::Void,
                Fate::Void | Fate::Rotten => {}
            }
        }
        self.counts.deleted += gone;
        self.check_keys(journal)?;
        self.check_cursors(journal)
    }

    /// An event whose end was open may have been recovered and deleted at once: its key tells.
    fn find_kept_and_deleted(&mut self, journal: &Journal, positions: &BTreeMap<u64, Position>) -> Checked {
        let last = if self.trouble.retention { self.events.len() } else { 0 };
        for index in (0..last).rev() {
            let Handed { sample, fate: Fate::Open | Fate::Failed } = &self.events[index] else { continue };
            let Some(key) = sample.key else { continue };
            // Sent again, and that one is kept.
            if self.events.iter().any(|other| other.sample.key == sample.key && matches!(other.fate, Fate::Kept(_))) {
                continue;
            }
            if let Some(seq) = self.ask(journal, &EventKey(key))?.filter(|seq| !positions.contains_key(seq)) {
                self.events[index].fate = Fate::Kept(Position { log: LogId(0), seq });
            }
        }
        Ok(())
    }

    /// Everything that was read is an event that was handed over, unchanged, once, and not void.
    fn check_each(&mut self, read: &[StoredEvent]) -> Checked {
        ensure!(read.is_sorted_by(|a, b| a.position.seq < b.position.seq), "sequences do not grow");
        for stored in read {
            let index = number(stored.event.body()).ok_or_else(|| format!("{} is not an event of ours", stored.position))?;
            let candidates = self.events.iter().enumerate().filter(|(_, handed)| handed.sample.body == *stored.event.body());
            let fates: Vec<(usize, Fate)> = candidates.map(|(at, handed)| (at, handed.fate)).collect();
            ensure!(!fates.is_empty(), "event {index} at {} has another body", stored.position);
            let kept = fates.iter().find(|(_, fate)| matches!(fate, Fate::Kept(_)));
            let at = match kept {
                Some((at, Fate::Kept(position))) => {
                    ensure!(*position == stored.position, "event {at} is kept at {position} and again at {}", stored.position);
                    *at
                }
                _ => {
                    let open = fates.iter().rev().find(|(_, fate)| matches!(fate, Fate::Open | Fate::Failed));
                    let (at, _) =
                        open.ok_or_else(|| format!("void event {index} came back at {}: {fates:?}", stored.position))?;
                    self.counts.recovered += 1;
                    self.events[*at].fate = Fate::Kept(stored.position);
                    *at
                }
            };
            let sample = &self.events[at].sample;
            let same = stored.event.id() == Some(&*sample.id)
                && **stored.event.topic() == *TOPICS[sample.topic]
                && stored.event.dedupe_key() == sample.key.map(EventKey)
                && stored.event.received_at().0 == sample.received_at;
            ensure!(same, "event {at} has changed: {:?}", stored.event);
        }
        Ok(())
    }

    fn check_keys(&self, journal: &Journal) -> Checked {
        for (index, handed) in self.events.iter().enumerate() {
            let Some(key) = handed.sample.key.map(EventKey) else { continue };
            let kept = self.events.iter().filter(|other| other.sample.key == handed.sample.key);
            let kept: Vec<u64> =
                kept.filter_map(|other| if let Fate::Kept(at) = other.fate { Some(at.seq) } else { None }).collect();
            ensure!(kept.len() <= 1, "event {index} is kept at {kept:?}");
            let seen = self.ask(journal, &key)?;
            ensure!(seen == kept.first().copied(), "the key of event {index} is {seen:?}, not {kept:?} ({:?})", handed.fate);
        }
        Ok(())
    }

    fn ask(&self, journal: &Journal, key: &EventKey) -> Result<Option<u64>, String> {
        match journal.lookup_in_memory(key) {
            MemoryLookup::Seen(seen) => Ok(Some(seen.seq)),
            MemoryLookup::New => Ok(None),
            MemoryLookup::MaybeOnDisk => match journal.lookup(key) {
                Ok(seen) => Ok(seen.map(|seen| seen.seq)),
                Err(error) => Err(format!("lookup: {error}")),
            },
        }
    }

    fn check_cursors(&mut self, journal: &Journal) -> Checked {
        for lane in journal.topic_cursors() {
            let first = self.found.get(&*lane.name).copied();
            let saved = self.saved.get(&*lane.name).copied().unwrap_or(0);
            let skipped = self.kept_in(&lane.name).find(|seq| (saved..lane.cursor).contains(seq));
            ensure!(skipped.is_none(), "{} is at {}, behind {skipped:?}, although saved was {saved}", lane.name, lane.cursor);
            ensure!(first.is_none_or(|first| lane.cursor >= first), "{} fell back from {first:?} to {}", lane.name, lane.cursor);
            ensure!(lane.cursor <= journal.durable_watermark(), "{} is beyond the mark", lane.name);
            self.found.insert(lane.name.to_string(), lane.cursor);
            self.pinned_from.entry(lane.name.to_string()).or_insert_with(|| journal.durable_watermark());
        }
        for (lane, cursor) in &self.found {
            ensure!(journal.topic_cursors().iter().any(|found| *found.name == **lane), "the cursor {cursor} of {lane} is lost");
        }
        Ok(())
    }

    fn kept_in(&self, lane: &str) -> impl Iterator<Item = u64> {
        let mine = self.events.iter().filter(move |handed| TOPICS[handed.sample.topic] == lane);
        mine.filter_map(|handed| if let Fate::Kept(at) = handed.fate { Some(at.seq) } else { None })
    }

    /// Changes some bytes of an older segment. What and where; `None`: there is none to change.
    fn damage(&mut self) -> Option<Damage> {
        let segments = self.disk.names(".seg");
        let older: Vec<&String> = segments[..segments.len() - 1].iter().filter(|name| self.disk.bytes(name).len() > 64).collect();
        let name = older.get(self.rng.usize(..older.len().max(1)))?.to_string();
        let before = self.disk.bytes(&name);
        let start = self.rng.usize(..before.len());
        let length = [1, 8, 64, 600, 5_000][self.rng.usize(..5)];
        let bytes = start..(start + length).min(before.len());
        match self.rng.bool() {
            true => self.disk.corrupt(&name, bytes.clone(), |_| 0),
            false => self.disk.corrupt(&name, bytes.clone(), |byte| byte ^ 0x5A),
        }
        Some(Damage { name, bytes, before })
    }

    /// Lost is what was hit, and its key; everything else is there.
    fn check_damaged(&mut self, journal: &Journal, metrics: &Metrics, damage: &Damage) -> Checked {
        let verdict = ReadOnlyJournal::open(self.disk.second_process())
            .and_then(|outside| outside.verify())
            .map_err(|error| error.to_string())?;
        let read = read_all(journal)?;
        self.check_each(&read)?;
        let mut lost = 0;
        for (index, handed) in self.events.iter_mut().enumerate() {
            let Fate::Kept(position) = handed.fate else { continue };
            if !read.iter().any(|stored| stored.position == position) {
                ensure!(damage.hits(&handed.sample.body), "event {index} at {position} is lost, but {damage} did not hit it");
                handed.fate = Fate::Rotten;
                lost += 1;
            }
        }
        self.counts.rotten += lost;
        let counted = metrics.journal.damaged.get();
        ensure!(lost == 0 || counted > 0, "{lost} events are lost to {damage}, none is counted");
        ensure!(counted <= 2, "one damage is counted as {counted}");
        let shown = verdict.damage.iter().any(|found| found.file == damage.name && found.bytes.end as usize > damage.bytes.start);
        ensure!(lost == 0 || shown, "{lost} events are lost to {damage}, but verify shows {:?}", verdict.damage);
        self.check_keys(journal)?;
        self.check_cursors(journal)
    }

    /// Another process sees the same, and nothing damaged.
    fn check_from_outside(&mut self) -> Checked {
        let open = || ReadOnlyJournal::open(self.disk.second_process());
        let mut outside = open().map_err(|error| error.to_string())?;
        let mut seen = Vec::new();
        while let Some(stored) = outside.next().map_err(|error| error.to_string())? {
            seen.push(stored.position);
        }
        let verdict = open().and_then(|outside| outside.verify()).map_err(|error| error.to_string())?;
        let kept = self.events.iter().filter_map(|handed| if let Fate::Kept(at) = handed.fate { Some(at) } else { None });
        let mut kept: Vec<Position> = kept.collect();
        kept.sort_by_key(|at| at.seq);
        if !self.trouble.retention {
            ensure!(seen == kept, "from outside {} events are seen, {} are kept", seen.len(), kept.len());
            ensure!(verdict.events == kept.len() as u64, "verify counts {} events, {} are kept", verdict.events, kept.len());
        }
        ensure!(self.trouble.rot || verdict.damage.is_empty(), "verify shows damage: {:?}", verdict.damage);
        ensure!(verdict.unconfirmed == 0, "{} events are unsure after a close", verdict.unconfirmed);
        Ok(())
    }
}

/// Bytes that were changed, and the file as it was before.
struct Damage {
    name: String,
    bytes: Range<usize>,
    before: Vec<u8>,
}

impl Damage {
    /// True if a frame that ends with this body lies where the damage is. What stands before a body is at most 600 bytes.
    fn hits(&self, body: &[u8]) -> bool {
        let found = self.before.windows(body.len()).position(|window| window == body);
        found.is_some_and(|at| at < self.bytes.end + 600 && at + body.len() > self.bytes.start)
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the damage at {:?} of {}", self.bytes, self.name)
    }
}

fn read_all(journal: &Journal) -> Result<Vec<StoredEvent>, String> {
    let mut reader = journal.reader(0);
    let mut read = Vec::new();
    while let Some(stored) = reader.next().map_err(|error| format!("{error}: {}", error.source))? {
        read.push(stored);
    }
    Ok(read)
}

/// The number at the start of a body.
fn number(body: &[u8]) -> Option<usize> {
    let text = body.strip_prefix(b"<event ")?;
    let end = text.iter().position(|byte| *byte == b'>')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}
