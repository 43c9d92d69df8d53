//! The thread behind the writer: seals full segments (key file, lane file), and deletes what nobody needs any more. The
//! writer asks it for room before it begins a segment.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::disk::{Disk, DiskFile, is_full};
use super::keys::KeyFile;
use super::segment::{HEADER, Name, PAGE, SPARE};
use super::segment_map::Segment;
use super::segment_summary::SegmentSummary;
use super::{Alarm, Options, POISON, RESERVE, Shared};
use crate::clock::UnixMillis;

/// Where the keeper's work arrives.
pub struct Inbox {
    work: Mutex<Work>,
    changed: Condvar,
    /// Held by whoever deletes segments or begins one: two at a time would choose the same, or count the same room.
    room: Mutex<()>,
    /// The reserve is not there.
    reserve_missing: AtomicBool,
}

/// Room within `max_size` for one more segment, until it is dropped.
pub type Room<'a> = MutexGuard<'a, ()>;

struct Work {
    to_seal: VecDeque<Arc<Segment>>,
    /// Segments that could not be sealed; tried again at the next look round.
    later: VecDeque<Arc<Segment>>,
    woken: bool,
    closing: bool,
    spare: Option<Spare>,
}

/// Usually the file of a deleted segment. The next segment is written over it, which needs no new blocks: that takes a third off a sync.
pub struct Spare {
    /// Its present name.
    pub name: String,
    /// Open for writing, `segment_size` long, the first page zeroed and synced.
    pub file: Arc<dyn DiskFile>,
}

impl Inbox {
    /// Begins with segments that were found unsealed, perhaps without a reserve.
    pub fn new(unsealed: Vec<Arc<Segment>>, has_reserve: bool) -> Inbox {
        let work = Work { to_seal: unsealed.into(), later: VecDeque::new(), woken: true, closing: false, spare: None };
        Inbox { work: Mutex::new(work), changed: Condvar::new(), room: Mutex::default(), reserve_missing: (!has_reserve).into() }
    }

    /// Hands over a full segment.
    pub fn seal(&self, segment: Arc<Segment>) {
        self.work.lock().expect(POISON).to_seal.push_back(segment);
        self.changed.notify_all();
    }

    /// Something may have become free.
    pub fn wake(&self) {
        self.work.lock().expect(POISON).woken = true;
        self.changed.notify_all();
    }

    /// Ends the thread once the work at hand is done.
    pub fn close(&self) {
        self.work.lock().expect(POISON).closing = true;
        self.changed.notify_all();
    }

    /// The spare file, for a segment of `segment_size`.
    pub fn take_spare(&self) -> Option<Spare> {
        self.work.lock().expect(POISON).spare.take()
    }

    /// Bytes that the spare file occupies.
    pub fn spare_bytes(&self, shared: &Shared) -> u64 {
        let there = self.work.lock().expect(POISON).spare.is_some();
        if there { shared.options.segment_size } else { 0 }
    }

    /// Makes room for a segment of `size` bytes, waiting for those that are being sealed. `None`: everything that is left is
    /// needed.
    pub fn make_room(&self, shared: &Shared, size: u64) -> Option<Room<'_>> {
        loop {
            // Counted before the look round: what is sealed meanwhile must not be missed.
            let waiting = self.work.lock().expect(POISON).to_seal.len();
            if let Some(room) = self.find_room(shared, size) {
                return Some(room);
            }
            let mut work = self.work.lock().expect(POISON);
            if waiting == 0 || work.closing {
                return None;
            }
            while work.to_seal.len() == waiting && !work.closing {
                work = self.changed.wait(work).expect(POISON);
            }
        }
    }

    /// Deletes old segments until one of `size` bytes fits.
    fn find_room(&self, shared: &Shared, size: u64) -> Option<Room<'_>> {
        let room = self.room.lock().expect(POISON);
        loop {
            // A usual segment takes the place of the spare file, a larger one does not.
            if size > shared.options.segment_size
                && let Some(spare) = self.take_spare()
            {
                drop(shared.disk.remove(&spare.name));
            }
            if shared.catalog.bytes() + size <= shared.options.max_size {
                return Some(room);
            }
            if !release_one(shared, &room, |_| true) {
                return None;
            }
        }
    }

    fn set_spare(&self, spare: Spare) {
        self.work.lock().expect(POISON).spare = Some(spare);
    }
}

/// Starts the keeper's thread.
pub fn start(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("journal-keeper".into()).spawn(move || {
        let _alarm = Alarm(shared.clone());
        run(&shared);
    })
}

fn run(shared: &Shared) {
    while let Some(segment) = next(shared) {
        if let Some(segment) = segment {
            let sealed = seal_or_complain(shared, &segment);
            let mut work = shared.keeper.work.lock().expect(POISON);
            work.to_seal.pop_front();
            work.later.extend((!sealed).then_some(segment));
            shared.keeper.changed.notify_all();
        }
        retire(shared);
        prepare_spare(shared);
    }
}

/// Waits for work. `Some(None)`: look round; `None`: the end. A segment stays in the queue until it is sealed.
fn next(shared: &Shared) -> Option<Option<Arc<Segment>>> {
    let inbox = &shared.keeper;
    let mut work = inbox.work.lock().expect(POISON);
    loop {
        if work.closing {
            return None;
        }
        if let Some(segment) = work.to_seal.front() {
            return Some(Some(segment.clone()));
        }
        if std::mem::take(&mut work.woken) {
            return Some(None);
        }
        let (guard, waited) = inbox.changed.wait_timeout(work, LOOK_ROUND).expect(POISON);
        work = guard;
        if waited.timed_out() {
            work.woken = true;
            let later = std::mem::take(&mut work.later);
            work.to_seal.extend(later);
        }
    }
}

fn seal_or_complain(shared: &Shared, segment: &Segment) -> bool {
    let sealed = seal(shared, segment);
    if let Err(error) = &sealed {
        tracing::error!(segment = segment.name.segment(), %error, "a segment could not be sealed; its keys stay in memory");
    }
    sealed.is_ok()
}

/// Writes the key file and the lane file, then lets the keys leave memory and gives back the unused end of the file.
fn seal(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let (disk, name) = (&*shared.disk, segment.name);
    let keys = shared.keys.of_segment(name);
    let table = segment.table();
    let bytes = KeyFile::encode(name, &keys);
    write_whole(disk, &name.keys(), &bytes).or_else(|error| with_reserve(shared, &name.keys(), &bytes, error))?;
    write_whole(disk, &name.lanes(), &table.encode(name))?;
    disk.sync_dir()?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the key file cannot be read back");
    shared.keys.seal(name, Some(KeyFile::open(disk, name)?.ok_or_else(damaged)?));
    if disk.truncate(&name.segment(), table.end).is_ok() {
        segment.size.store(table.end, Ordering::Relaxed);
    }
    // Last: from now on its file may become another segment.
    segment.sealed.store(true, Ordering::Release);
    Ok(())
}

/// Gives up the reserve so that a key file can be written on a full disk; it is laid in again when there is room.
fn with_reserve(shared: &Shared, name: &str, bytes: &[u8], error: io::Error) -> io::Result<()> {
    if !is_full(&error) {
        return Err(error);
    }
    shared.disk.remove(RESERVE).map_err(|_| error)?;
    shared.keeper.reserve_missing.store(true, Ordering::Relaxed);
    tracing::warn!("the disk is full: the journal's reserve is used for a key file");
    write_whole(&*shared.disk, name, bytes)
}

/// Writes a file so that it is either whole or not there.
pub fn write_whole(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&temporary, bytes.len() as u64)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, name)
}

/// Deletes segments that are older than `retain`, key files that have left the window, and lets the writer try again.
fn retire(shared: &Shared) {
    let now = shared.clock.now();
    let keep_from = UnixMillis(now.0.saturating_sub(shared.options.retain.as_millis() as u64));
    while release_one(shared, &shared.keeper.room.lock().expect(POISON), |table| table.newest < keep_from) {}
    let_go(shared);
    let expired = UnixMillis(now.0.saturating_sub(shared.window.load(Ordering::Relaxed)));
    let (old, early) = shared.keys.retire(expired, shared.options.max_key_bytes);
    for (name, keys) in &early {
        shared.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).inc_by(*keys);
        tracing::warn!(file = name.keys(), keys, "keys are forgotten before their window ends: dedupe.max_disk is used up");
    }
    for name in old.into_iter().chain(early.into_iter().map(|(name, _)| name)) {
        forget_keys(shared, name);
    }
    forget_lost_keys(shared);
    lay_in_reserve(shared);
    begin_again(shared);
    shared.queue.lock().expect(POISON).has_room();
    shared.count_sizes();
}

/// A segment that still exists keeps an empty key file: without any it would be read again at the next start.
fn forget_keys(shared: &Shared, name: Name) {
    let exists = shared.catalog.segments().iter().any(|segment| segment.name == name);
    let result = match exists {
        true => write_whole(&*shared.disk, &name.keys(), &KeyFile::encode(name, &[])),
        false => shared.disk.remove(&name.keys()),
    };
    if let Err(error) = result {
        tracing::warn!(file = name.keys(), %error, "an expired key file could not be deleted");
    }
}

/// Deletes the oldest segment that is sealed, that no lane needs and that `may_go`.
fn release_one(shared: &Shared, _room: &Room, may_go: impl Fn(&SegmentSummary) -> bool) -> bool {
    let mut segments = shared.catalog.segments();
    // A segment without a commit does not tell yet where the sequences go on: the one before it must stay.
    let newest = segments.iter().rposition(|segment| segment.with(|table| table.end > HEADER));
    segments.truncate(newest.unwrap_or(0));
    // One that is not sealed yet will be read again at the next start: what lay behind it must not look lost then.
    let sealed = segments.iter().take_while(|segment| segment.sealed.load(Ordering::Acquire)).count();
    segments.truncate(sealed);
    let is_needed = shared.catalog.needs(shared.options.forwards);
    let free = |s: &Arc<Segment>| s.with(&may_go) && !is_needed(s);
    let Some(segment) = segments.into_iter().find(free) else { return false };
    // The catalog first: a reader that finds the segment may still use its open file.
    shared.catalog.remove(segment.name);
    let disk = &shared.disk;
    let gone = lay_aside(shared, &segment).and_then(|()| disk.remove(&segment.name.lanes()));
    if !shared.keys.has_file(segment.name) {
        // An empty one, whose keys are forgotten already.
        drop(disk.remove(&segment.name.keys()));
    }
    if let Err(error) = gone.and_then(|()| disk.sync_dir()) {
        tracing::warn!(segment = segment.name.segment(), %error, "an old segment could not be deleted");
    }
    true
}

/// Once the next segment will need room, makes it now: the writer then finds the file ready.
fn prepare_spare(shared: &Shared) {
    let Options { segment_size, max_size, .. } = shared.options;
    let room = shared.keeper.room.lock().expect(POISON);
    let is_wanted = || shared.keeper.spare_bytes(shared) == 0 && shared.catalog.bytes() + segment_size > max_size;
    while is_wanted() && release_one(shared, &room, |_| true) {}
}

/// After the writer has found no room nobody may be sending: `/readyz` tells balancers so, and only an event would make the
/// writer try again. So the keeper does, and lays the file ready.
fn begin_again(shared: &Shared) {
    if !shared.no_room.load(Ordering::Relaxed) {
        return;
    }
    let Some(_room) = shared.keeper.find_room(shared, shared.options.segment_size) else { return };
    if shared.keeper.spare_bytes(shared) == 0 {
        let name = format!("next{SPARE}");
        let Ok(file) = shared.disk.create(&name, shared.options.segment_size) else { return };
        shared.keeper.set_spare(Spare { name, file });
    }
    shared.no_room.store(false, Ordering::Relaxed);
    tracing::info!("there is room for new events again");
}

/// Makes the file of a segment that has left the catalog the spare one, if it fits beside the others, or deletes it.
fn lay_aside(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let Options { segment_size, max_size, .. } = shared.options;
    let (name, size) = (segment.name.spare(), segment.size.load(Ordering::Relaxed));
    let has_room = shared.catalog.bytes() + segment_size <= max_size;
    let suits = size <= segment_size && has_room && shared.keeper.spare_bytes(shared) == 0;
    if !suits {
        return shared.disk.remove(&segment.name.segment());
    }
    let lay = || {
        let file = shared.disk.recycle(&segment.name.segment(), &name, segment_size)?;
        // Before the first byte changes, the old name must be gone for good.
        shared.disk.sync_dir()?;
        file.write_at(&[0; PAGE as usize], 0)?;
        file.sync()?;
        io::Result::Ok(Spare { name: name.clone(), file })
    };
    match lay() {
        Ok(spare) => {
            shared.keeper.set_spare(spare);
            Ok(())
        }
        Err(_) => shared.disk.remove(&name).or_else(|_| shared.disk.remove(&segment.name.segment())),
    }
}

/// Gives back the memory in which the machine caches what is sealed and passed on. Nobody reads that soon, and the writer's next
/// pages then come from warm memory instead of pushing out something that others need.
fn let_go(shared: &Shared) {
    let is_needed = shared.catalog.needs(shared.options.forwards);
    for segment in shared.catalog.segments() {
        let done = segment.sealed.load(Ordering::Acquire) && !is_needed(&segment);
        if done && !segment.let_go.swap(true, Ordering::Relaxed) {
            segment.file.drop_from_page_cache();
        }
    }
}

/// Writes key files anew from which rot has taken events; until then memory alone knows.
fn forget_lost_keys(shared: &Shared) {
    let rewrite = || {
        for (name, keys) in shared.keys.to_rewrite(&*shared.disk)? {
            write_whole(&*shared.disk, &name.keys(), &KeyFile::encode(name, &keys))?;
            shared.disk.sync_dir()?;
            shared.keys.replace(name, KeyFile::open(&*shared.disk, name)?);
        }
        io::Result::Ok(())
    };
    if let Err(error) = rewrite() {
        shared.keys.look_again();
        tracing::warn!(%error, "a key file could not be written anew after damage");
    }
}

/// Allocates the reserve where it is missing. Without room it stays away until the next look.
fn lay_in_reserve(shared: &Shared) {
    if !shared.keeper.reserve_missing.load(Ordering::Relaxed) {
        return;
    }
    let is_there = match shared.disk.create(RESERVE, shared.options.segment_size) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
    };
    shared.keeper.reserve_missing.store(!is_there, Ordering::Relaxed);
}

/// How often the keeper looks for expired segments and keys while nothing else happens.
const LOOK_ROUND: Duration = Duration::from_secs(1);
