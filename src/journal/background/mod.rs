//! The thread behind the writer: seals full segments (key file, lane file), and deletes what nobody needs any more. The
//! writer asks it for room before it begins a segment.

mod reserve;
mod retention;
mod sealing;
mod spares;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::segment::Segment;
use super::{Alarm, POISON, Shared};
use crate::limits::JournalLimits;
use retention::{release_one, retire};
use sealing::seal_or_complain;
pub use spares::Spare;

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
        if there { shared.options.limits.segment_size } else { 0 }
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
            if size > shared.options.limits.segment_size
                && let Some(spare) = self.take_spare()
            {
                drop(shared.disk.remove(&spare.name));
            }
            if shared.catalog.bytes() + size <= shared.options.limits.max_size {
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

/// Once the next segment will need room, makes it now: the writer then finds the file ready.
fn prepare_spare(shared: &Shared) {
    let JournalLimits { segment_size, max_size, .. } = shared.options.limits;
    let room = shared.keeper.room.lock().expect(POISON);
    let is_wanted = || shared.keeper.spare_bytes(shared) == 0 && shared.catalog.bytes() + segment_size > max_size;
    while is_wanted() && release_one(shared, &room, |_| true) {}
}

/// How often the keeper looks for expired segments and keys while nothing else happens.
const LOOK_ROUND: Duration = Duration::from_secs(1);
