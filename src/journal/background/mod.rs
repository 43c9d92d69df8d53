//! The journal's background thread, which seals full segments, deletes expired segments and keys, and prepares the file of the
//! next segment. The writer calls [`Background::make_room`] before it starts a segment.

mod key_retention;
mod reserve;
mod retention;
mod sealing;
mod spares;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::segment::Segment;
use super::{POISON, Shared, spawn};
use reserve::Reserve;
pub(super) use reserve::{release_reserve, restore_reserve, write_with_reserve};
use retention::{Retention, SpaceGuard};
pub(super) use spares::Spare;
use spares::SpareSlot;

/// State that the background thread and the writer share.
pub(super) struct Background {
    tasks: Mutex<TaskQueue>,
    changed: Condvar,
    retention: Retention,
    spare: SpareSlot,
    reserve: Reserve,
}

struct TaskQueue {
    to_seal: VecDeque<Arc<Segment>>,
    /// Segments that the background thread could not seal. The thread queues these segments again at its next periodic check.
    retry: VecDeque<Arc<Segment>>,
    request: TaskRequest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskRequest {
    None,
    /// Request to run the periodic checks at once, because space may have become free.
    Check,
    Stop,
}

enum Task {
    /// Full segment that the background thread must seal. The segment stays in the queue until the thread has tried to seal it.
    Seal(Arc<Segment>),
    Check,
    Stop,
}

impl Background {
    /// Creates the shared state and queues the unsealed segments that recovery found.
    pub(super) fn new(unsealed: Vec<Arc<Segment>>, reserve_exists: bool) -> Background {
        let tasks = TaskQueue { to_seal: unsealed.into(), retry: VecDeque::new(), request: TaskRequest::Check };
        Background {
            tasks: Mutex::new(tasks),
            changed: Condvar::new(),
            retention: Retention::default(),
            spare: SpareSlot::default(),
            reserve: Reserve::new(reserve_exists),
        }
    }

    /// Adds a full segment to the segments that the background thread must seal.
    pub(super) fn seal(&self, segment: Arc<Segment>) {
        self.tasks.lock().expect(POISON).to_seal.push_back(segment);
        self.changed.notify_all();
    }

    /// Makes the background thread run its periodic checks at once, because space may have become free.
    pub(super) fn wake(&self) {
        self.tasks.lock().expect(POISON).request_check();
        self.changed.notify_all();
    }

    /// Makes the background thread end after its current task.
    pub(super) fn close(&self) {
        self.tasks.lock().expect(POISON).request = TaskRequest::Stop;
        self.changed.notify_all();
    }

    /// Removes the spare file from its slot and returns the file; `None` if there is no spare file. The size of the file is
    /// `segment_size` bytes.
    pub(super) fn take_spare(&self) -> Option<Spare> {
        self.spare.take()
    }

    /// Returns the size of the spare file in bytes; 0 if there is no spare file.
    pub(super) fn spare_bytes(&self, shared: &Shared) -> u64 {
        if self.spare.is_some() { shared.options.limits.segment_size } else { 0 }
    }

    /// Makes room for a segment of `size` bytes by deleting old segments, and returns a guard that reserves this room. If
    /// necessary, waits until the background thread has sealed queued segments. Returns `None` if there is not enough room and
    /// the journal cannot delete a further segment.
    pub(super) fn make_room(&self, shared: &Shared, size: u64) -> Option<SpaceGuard<'_>> {
        loop {
            // Count the queued segments before `make_space`, so that this function notices if a segment is sealed during that
            // call.
            let waiting = self.tasks.lock().expect(POISON).to_seal.len();
            if let Some(space) = self.retention.make_space(shared, size) {
                return Some(space);
            }
            let mut tasks = self.tasks.lock().expect(POISON);
            if waiting == 0 || tasks.request == TaskRequest::Stop {
                return None;
            }
            while tasks.to_seal.len() == waiting && tasks.request != TaskRequest::Stop {
                tasks = self.changed.wait(tasks).expect(POISON);
            }
        }
    }

    fn next_task(&self) -> Task {
        let mut tasks = self.tasks.lock().expect(POISON);
        loop {
            if tasks.request == TaskRequest::Stop {
                return Task::Stop;
            }
            if let Some(segment) = tasks.to_seal.front() {
                return Task::Seal(segment.clone());
            }
            if tasks.request == TaskRequest::Check {
                tasks.request = TaskRequest::None;
                return Task::Check;
            }
            let (guard, waited) = self.changed.wait_timeout(tasks, CHECK_INTERVAL).expect(POISON);
            tasks = guard;
            if waited.timed_out() {
                tasks.request_check();
                let retry = std::mem::take(&mut tasks.retry);
                tasks.to_seal.extend(retry);
            }
        }
    }

    /// Removes a segment from the queue, and schedules a retry if sealing the segment failed.
    fn finish_sealing(&self, segment: Arc<Segment>, is_sealed: bool) {
        let mut tasks = self.tasks.lock().expect(POISON);
        tasks.to_seal.pop_front();
        tasks.retry.extend((!is_sealed).then_some(segment));
        self.changed.notify_all();
    }
}

impl TaskQueue {
    fn request_check(&mut self) {
        if self.request == TaskRequest::None {
            self.request = TaskRequest::Check;
        }
    }
}

/// Starts the background thread.
pub(super) fn start(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    spawn("journal-bg", shared, |shared| run(&shared))
}

fn run(shared: &Shared) {
    loop {
        match shared.background.next_task() {
            Task::Seal(segment) => {
                let is_sealed = sealing::try_seal(shared, &segment);
                shared.background.finish_sealing(segment, is_sealed);
            }
            Task::Check => {}
            Task::Stop => return,
        }
        maintain(shared);
    }
}

fn maintain(shared: &Shared) {
    retention::delete_expired(shared);
    retention::drop_from_page_cache(shared);
    key_retention::delete_expired(shared);
    key_retention::rewrite_stale(shared);
    shared.background.reserve.restore(shared);
    restore_availability(shared);
    shared.queue.set_room();
    shared.update_sizes();
    prepare_spare(shared);
}

/// Makes the journal available again after the writer could not start a segment: makes room for a segment and provides a spare
/// file. Without this function, the journal would stay unavailable: the writer tries again only when an event arrives, and load
/// balancers send no deliveries while `/readyz` returns 503.
fn restore_availability(shared: &Shared) {
    if !shared.health.has_no_room() {
        return;
    }
    let Some(_space) = shared.background.retention.make_space(shared, shared.options.limits.segment_size) else { return };
    if !shared.background.spare.is_some() && spares::create(shared).is_err() {
        return;
    }
    shared.health.set_room();
    tracing::info!("the journal has room for new events again");
}

/// Deletes old segments before the next segment needs their space, so that the file of a deleted segment becomes the spare file
/// and is ready for the writer.
fn prepare_spare(shared: &Shared) {
    let (segment_size, max_size) = (shared.options.limits.segment_size, shared.options.limits.max_size);
    let space = shared.background.retention.lock();
    let is_wanted = || !shared.background.spare.is_some() && shared.segments.bytes() + segment_size > max_size;
    while is_wanted() && retention::delete_oldest(shared, &space, |_| true) {}
}

/// Interval between two checks for expired segments and keys while the background thread has no other task.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
