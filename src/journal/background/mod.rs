//! The journal's background thread, which seals and rewrites full segments, deletes expired segments and keys, merges key files,
//! and prepares the file of the next segment. The writer calls [`Background::make_room`] before it starts a segment.

mod key_merging;
mod key_retention;
mod reserve;
mod retention;
mod rewriting;
mod sealing;
mod spares;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::random::Random;
use super::segment::Segment;
use super::{POISON, Shared, ownership, spawn};
use crate::clock::Clock;
use key_merging::RunningMerges;
use reserve::Reserve;
pub(super) use reserve::{RESERVE_FILE, release_reserve, restore_reserve, write_with_reserve};
use retention::{Retention, Space, SpaceGuard};
pub(super) use spares::Spare;
use spares::SpareSlot;

/// State that the background thread and the writer share.
pub(super) struct Background {
    tasks: Mutex<TaskQueue>,
    changed: Condvar,
    retention: Retention,
    spare: SpareSlot,
    reserve: Reserve,
    merges: RunningMerges,
    /// Source of the ids of merged key files and of rewritten segments.
    random: Arc<dyn Random>,
}

struct TaskQueue {
    to_seal: VecDeque<Arc<Segment>>,
    /// Segments that the background thread could not seal. The thread queues these segments again at its next periodic check.
    retry: VecDeque<Arc<Segment>>,
    /// Number of finished tasks that may have freed space.
    finished: usize,
    request: TaskRequest,
    /// Uptime at which the background work must run its periodic checks.
    next_check: Duration,
    /// Uptime at which the background work must perform the next step of the merges of key files; `None` if no merge is due.
    next_merge: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskRequest {
    None,
    /// Request to run the periodic checks at once, because space may have become free.
    Check,
    Stop,
}

/// Space for a new segment.
pub(super) enum Room<'a> {
    /// Guard that reserves the space.
    Made { _space: SpaceGuard<'a> },
    /// Segments that must be deleted first, and whose release is not recorded yet.
    NeedsRelease(Vec<Arc<Segment>>, SpaceGuard<'a>),
    /// There is no space yet. The next task of the background work may free some. The number counts the tasks that the work has
    /// finished so far.
    WaitsForTask(usize),
    /// There is no space, and the journal cannot delete a further segment.
    Full,
}

enum Task {
    /// Full segment that the background thread must seal, and rewrite if it is mostly padding. The segment stays in the queue
    /// until then.
    Seal(Arc<Segment>),
    Check,
    /// Step of the merges of key files.
    Merge,
    Stop,
}

impl Background {
    /// Creates the shared state and queues the unsealed segments that recovery found.
    pub(super) fn new(unsealed: Vec<Arc<Segment>>, reserve_exists: bool, random: Arc<dyn Random>) -> Background {
        let tasks = TaskQueue {
            to_seal: unsealed.into(),
            retry: VecDeque::new(),
            finished: 0,
            request: TaskRequest::Check,
            next_check: Duration::ZERO,
            next_merge: None,
        };
        Background {
            tasks: Mutex::new(tasks),
            changed: Condvar::new(),
            retention: Retention::default(),
            spare: SpareSlot::default(),
            reserve: Reserve::new(reserve_exists),
            merges: RunningMerges::default(),
            random,
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

    /// Returns true if the background work must stop.
    fn is_stopping(&self) -> bool {
        self.tasks.lock().expect(POISON).request == TaskRequest::Stop
    }

    /// Removes the spare file from its slot and returns the file; `None` if there is no spare file. The size of the file is
    /// `segment_size` bytes.
    pub(super) fn take_spare(&self) -> Option<Spare> {
        self.spare.take()
    }

    /// Returns true while a thread deletes segments or starts a segment.
    pub(super) fn is_locked(&self) -> bool {
        self.retention.is_locked()
    }

    /// Returns the size of the spare file in bytes; 0 if there is no spare file.
    pub(super) fn spare_bytes(&self, shared: &Shared) -> u64 {
        if self.spare.is_some() { shared.options.limits.segment_size } else { 0 }
    }

    /// Makes room for a segment of `size` bytes by deleting old segments whose release is recorded.
    pub(super) fn make_room(&self, shared: &Shared, size: u64) -> Room<'_> {
        // Count the tasks before `make_space`, so that the writer notices if a task ends during that call.
        let (finished, seals) = self.progress();
        match self.retention.make_space(shared, size) {
            Space::Made(space) => Room::Made { _space: space },
            Space::NeedsRelease(segments, space) => Room::NeedsRelease(segments, space),
            Space::Full if !self.is_stopping() && (seals || rewriting::can_make_space(shared, size)) => {
                self.wake();
                Room::WaitsForTask(finished)
            }
            Space::Full => Room::Full,
        }
    }

    /// Returns the number of finished tasks that may have freed space, and whether a segment waits for sealing.
    fn progress(&self) -> (usize, bool) {
        let tasks = self.tasks.lock().expect(POISON);
        (tasks.finished, !tasks.to_seal.is_empty())
    }

    /// Waits until the number of finished tasks differs from `finished`, or until the background thread stops.
    pub(super) fn wait_for_task(&self, finished: usize) {
        let tasks = self.tasks.lock().expect(POISON);
        let waits = |tasks: &mut TaskQueue| tasks.finished == finished && tasks.request != TaskRequest::Stop;
        drop(self.changed.wait_while(tasks, waits).expect(POISON));
    }

    /// Notes that a task has ended which may have freed space.
    fn finish_task(&self) {
        self.tasks.lock().expect(POISON).finished += 1;
        self.changed.notify_all();
    }

    /// Returns the next task. Waits until there is one.
    fn next_task(&self, clock: &dyn Clock) -> Task {
        let mut tasks = self.tasks.lock().expect(POISON);
        loop {
            let uptime = clock.uptime();
            if let Some(task) = tasks.take(uptime) {
                return task;
            }
            let next = tasks.next_merge.map_or(tasks.next_check, |merge| merge.min(tasks.next_check));
            let rest = next.saturating_sub(uptime);
            tasks = self.changed.wait_timeout(tasks, rest).expect(POISON).0;
        }
    }

    /// Removes a segment from the queue, and schedules a retry if sealing the segment failed.
    fn finish_sealing(&self, segment: Arc<Segment>, is_sealed: bool) {
        let mut tasks = self.tasks.lock().expect(POISON);
        tasks.to_seal.pop_front();
        tasks.retry.extend((!is_sealed).then_some(segment));
        drop(tasks);
        self.finish_task();
    }
}

impl TaskQueue {
    /// Removes and returns the task that is due at `uptime`; `None` if no task is due.
    fn take(&mut self, uptime: Duration) -> Option<Task> {
        if self.request == TaskRequest::Stop {
            return Some(Task::Stop);
        }
        if uptime >= self.next_check {
            self.next_check = uptime + CHECK_INTERVAL;
            self.request_check();
            self.to_seal.extend(std::mem::take(&mut self.retry));
        }
        if let Some(segment) = self.to_seal.front() {
            return Some(Task::Seal(segment.clone()));
        }
        if std::mem::replace(&mut self.request, TaskRequest::None) == TaskRequest::Check {
            return Some(Task::Check);
        }
        self.next_merge.take_if(|at| *at <= uptime).map(|_| Task::Merge)
    }

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
    while perform(shared, shared.background.next_task(shared.time.clock())) {}
}

/// Performs the next task if one is due, without waiting. Returns true if a task was due.
pub(super) fn step(shared: &Shared) -> bool {
    let task = shared.background.tasks.lock().expect(POISON).take(shared.time.clock().uptime());
    task.is_some_and(|task| perform(shared, task))
}

/// Performs a task and the periodic checks. Returns false if the background work must stop.
fn perform(shared: &Shared, task: Task) -> bool {
    match task {
        Task::Seal(segment) => {
            let is_sealed = sealing::try_seal(shared, &segment);
            if is_sealed {
                rewriting::rewrite_if_padded(shared, &segment);
            }
            shared.background.finish_sealing(segment, is_sealed);
        }
        Task::Check => {}
        Task::Merge => {
            let next = key_merging::step(shared);
            shared.background.tasks.lock().expect(POISON).next_merge = next;
            return true;
        }
        Task::Stop => return false,
    }
    maintain(shared);
    // A sealed segment or the time may have made a merge due.
    let uptime = shared.time.clock().uptime();
    shared.background.tasks.lock().expect(POISON).next_merge.get_or_insert(uptime);
    true
}

fn maintain(shared: &Shared) {
    ownership::check(shared);
    shared.time.times();
    retention::delete_released(shared, &shared.background.retention.lock());
    retention::release_expired(shared);
    if rewriting::make_space(shared) {
        // A further segment may be due.
        shared.background.wake();
    }
    shared.background.finish_task();
    retention::drop_from_page_cache(shared);
    key_retention::delete_old(shared);
    shared.background.reserve.restore(shared);
    restore_availability(shared);
    shared.queue.set_room();
    shared.update_sizes();
    measure(shared);
    shared.recount_parked();
    prepare_spare(shared);
}

/// Updates the metrics of the key files and of the volume. A scrape does not, because it must not wait for the volume.
fn measure(shared: &Shared) {
    let (sizes, metrics) = (shared.keys.sizes(), &shared.metrics.journal);
    metrics.unmerged_keys.set(sizes.recent_keys as i64);
    metrics.key_files.set(sizes.asked_files as i64);
    if let Ok(Some(free)) = shared.disk.free_bytes() {
        metrics.volume_free.with_label_values::<&str>(&[]).set(i64::try_from(free).unwrap_or(i64::MAX));
    }
}

/// Makes the journal available again after the writer could not start a segment: makes room for a segment and provides a spare
/// file. Without this function, the journal would stay unavailable: the writer tries again only when an event arrives, and load
/// balancers send no deliveries while `/readyz` returns 503.
fn restore_availability(shared: &Shared) {
    if !shared.health.has_no_segment() {
        return;
    }
    let _space = match shared.background.retention.make_space(shared, shared.options.limits.segment_size) {
        Space::Made(space) => space,
        Space::NeedsRelease(segments, _space) => return retention::request_release(shared, segments.into_iter()),
        Space::Full => return,
    };
    if !shared.background.spare.is_some() && spares::create(shared).is_err() {
        return;
    }
    shared.health.set_room();
    tracing::info!("the journal has room for new events again");
}

/// Releases an old segment before the next segment needs its space, so that the file of the deleted segment becomes the spare
/// file and is ready for the writer.
fn prepare_spare(shared: &Shared) {
    let (segment_size, max_size) = (shared.options.limits.segment_size, shared.options.limits.max_size);
    let _space = shared.background.retention.lock();
    if !shared.background.spare.is_some() && shared.segments.bytes() + segment_size > max_size {
        retention::request_release(shared, retention::deletable(shared).into_iter().take(1));
    }
}

/// Interval between two checks for expired segments and keys while the background thread has no other task.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
