//! Simulated in-memory disk that gives only the guarantees of POSIX. A power cut may lose written pages until the file is
//! synced, and directory entries until the directory is synced. A step is one disk operation. A test can make any single step
//! fail or wait, and can kill the process in any step. It can also break the guarantees: lose a sync, misdirect a write, and
//! damage or remove a synced file. Each of these faults is an [`Incident`].
//!
//! [`SimDisk`] is the medium with its page cache, and [`SimDisk::start`] starts a process that uses the disk. [`SimDisk::kill`]
//! ends the process and preserves the page cache. [`SimDisk::cut_power`] ends the process and may lose unsynced pages and
//! directory entries. [`SimDisk::die_after`] ends the process in the middle of a step.

#![allow(dead_code, reason = "each test file uses its own part of it")]

#[path = "disk/medium.rs"]
mod medium;
#[path = "disk/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use hookhold::journal::disk::Disk;

pub use medium::TornPages;
use medium::{Inode, Names, Sectors};
use process::Process;

/// Kind of disk operation that a test can hold or cause to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Lock,
    Create,
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    Rename,
    Remove,
    List,
    SyncDir,
}

/// Simulated disk: the medium and its page cache.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    observer: Mutex<Option<Observer>>,
}

/// Function that runs before every step, without a lock of the disk.
type Observer = Arc<dyn Fn(Step, &str) + Send + Sync>;

/// State of the disk. The medium and its content, the process, and the requested faults have too many fields for a smaller
/// struct.
struct State {
    files: Vec<Inode>,
    names: Names,
    sectors: Sectors,
    /// True if a failed sync of the directory loses names.
    forgets_names: bool,
    ignores_syncs: bool,
    limit: u64,
    /// Lock of the directory.
    lock: Weak<()>,
    /// True if the path of the directory leads to another directory.
    is_moved: bool,
    rules: Vec<Rule>,
    incidents: Vec<Incident>,
    happened: BTreeMap<&'static str, u64>,
    process: ProcessState,
    recycled: u64,
    read: u64,
    written: u64,
    rng: fastrand::Rng,
}

/// State of the current process.
struct ProcessState {
    /// Number of the process, counted from 1. A process that [`SimDisk::second_process`] starts has the number of the process
    /// that already runs. All processes with a lower number are dead.
    number: u64,
    dead: bool,
    /// Number of steps that change the disk.
    changes: u64,
    die_at: Option<u64>,
    /// Number of all steps.
    steps: u64,
    fail_at: Option<u64>,
    /// Number of steps that a fault has made fail.
    failed: u64,
}

struct Rule {
    step: Step,
    ending: String,
    action: Action,
    id: u64,
}

#[derive(Clone, Copy)]
enum Action {
    /// Makes the next `times` steps fail.
    Fail { error: Failure, times: u64 },
    /// Holds every step until the test releases or drops the gate.
    Hold { waiting: u64 },
    /// Makes the next sync succeed without any effect.
    LoseSync,
    /// Makes the next write succeed, but at another offset or in another file.
    Misdirect,
}

#[derive(Clone, Copy)]
enum Failure {
    Kind(io::ErrorKind),
    /// EIO: the medium cannot read or write a sector.
    Medium,
    /// EIO of a rename that has taken effect.
    Late,
}

/// A fault that breaks the guarantees of the disk.
pub struct Incident {
    /// Name of the file.
    pub file: String,
    /// Bytes that the fault has damaged, or that have not reached the medium because of it.
    pub bytes: Range<usize>,
    /// Content of the file without the fault.
    pub content: Vec<u8>,
    /// Range of the writes that the last sync covered, and of all later writes.
    pub last_write: Range<usize>,
}

/// Gate at which steps wait until the test releases or drops the gate.
pub struct Gate {
    disk: SimDisk,
    id: u64,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new(0)
    }
}

impl SimDisk {
    /// Creates a disk with an empty directory and without a size limit. `seed` determines which unsynced data a power cut
    /// loses, and which part of a failed or interrupted step takes effect.
    pub fn new(seed: u64) -> SimDisk {
        let process = ProcessState { number: 0, dead: true, changes: 0, die_at: None, steps: 0, fail_at: None, failed: 0 };
        let state = State {
            files: Vec::new(),
            names: Names::default(),
            sectors: Sectors { bytes: medium::PAGE, torn: TornPages::Whole },
            forgets_names: false,
            ignores_syncs: false,
            limit: u64::MAX,
            lock: Weak::new(),
            is_moved: false,
            rules: Vec::new(),
            incidents: Vec::new(),
            happened: BTreeMap::new(),
            process,
            recycled: 0,
            read: 0,
            written: 0,
            rng: fastrand::Rng::with_seed(seed),
        };
        SimDisk(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), observer: Mutex::new(None) }))
    }

    /// Sets the sector size of the medium, and what a power cut may make of an unsynced page.
    pub fn set_sectors(&self, bytes: usize, torn: TornPages) {
        self.state().sectors = Sectors { bytes, torn };
    }

    /// Makes every failed sync of the directory lose names: the directory in memory keeps them, but no later sync makes them
    /// durable.
    pub fn forget_names(&self) {
        self.state().forgets_names = true;
    }

    /// Returns true if a failed sync of the directory has lost names since the last power cut.
    pub fn has_forgotten_names(&self) -> bool {
        self.state().names.has_forgotten()
    }

    /// Calls `observer` before every later step, with the kind of the step and the name of the file. The observer may perform
    /// steps itself.
    pub fn observe(&self, observer: impl Fn(Step, &str) + Send + Sync + 'static) {
        *self.0.observer.lock().expect(POISON) = Some(Arc::new(observer));
    }

    /// Starts a new process. Every later step of an earlier process fails.
    pub fn start(&self) -> Arc<dyn Disk> {
        let number = {
            let process = &mut self.state().process;
            *process = ProcessState { number: process.number + 1, dead: false, changes: 0, steps: 0, ..*process };
            process.number
        };
        Process::on(self, number)
    }

    /// Starts a second process. The first process continues to run.
    pub fn second_process(&self) -> Arc<dyn Disk> {
        Process::on(self, self.state().process.number)
    }

    /// Kills the process as `kill -9` does. The page cache retains every write of the process.
    pub fn kill(&self) {
        self.state().kill();
        self.0.changed.notify_all();
    }

    /// Kills the process and cuts the power. Each unsynced page and each unsynced directory entry survives or is lost
    /// independently.
    pub fn cut_power(&self) {
        let state = &mut *self.state();
        state.kill();
        self.0.changed.notify_all();
        let losses = medium::cut_power(&mut state.files, &mut state.names, state.sectors, &mut state.rng);
        state.happened("lost page", losses.pages);
        state.happened("torn page", losses.mixed);
        state.happened("page with noise", losses.noise);
        state.happened("unreadable page", losses.unreadable);
        state.happened("lost name", losses.names);
    }

    /// Kills the process during a later step: the `steps`-th step from now that changes the disk. That step may take effect
    /// partially.
    pub fn die_after(&self, steps: u64) {
        let process = &mut self.state().process;
        process.die_at = Some(process.changes + steps);
    }

    /// Makes the `steps`-th step from now fail with EIO, whatever it is.
    pub fn fail_after(&self, steps: u64) {
        let process = &mut self.state().process;
        process.fail_at = Some(process.steps + steps);
    }

    /// Returns true if the process is dead.
    pub fn is_dead(&self) -> bool {
        self.state().process.dead
    }

    /// Makes the next `times` steps of this kind fail on files whose names end with `ending`.
    pub fn fail(&self, step: Step, ending: &str, error: io::ErrorKind, times: u64) {
        self.rule(step, ending, Action::Fail { error: Failure::Kind(error), times });
    }

    /// Makes the next step of this kind fail with EIO on a file whose name ends with `ending`.
    pub fn fail_medium(&self, step: Step, ending: &str) {
        self.rule(step, ending, Action::Fail { error: Failure::Medium, times: 1 });
    }

    /// Makes the next rename to a name with this ending take effect and fail.
    pub fn fail_rename_late(&self, ending: &str) {
        self.rule(Step::Rename, ending, Action::Fail { error: Failure::Late, times: 1 });
    }

    /// Makes the next sync succeed without effect on a file whose name ends with `ending`.
    pub fn lose_sync(&self, ending: &str) {
        self.rule(Step::Sync, ending, Action::LoseSync);
    }

    /// Makes the next write go to another offset or another file, on a file whose name ends with `ending`.
    pub fn misdirect_write(&self, ending: &str) {
        self.rule(Step::Write, ending, Action::Misdirect);
    }

    /// Cancels all requested faults that have not happened yet.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.rules.retain(|rule| matches!(rule.action, Action::Hold { .. }));
        state.process.fail_at = None;
    }

    /// Returns the number of steps that a fault has made fail.
    pub fn failed_steps(&self) -> u64 {
        self.state().process.failed
    }

    /// Returns how often each kind of fault has happened so far.
    pub fn happened(&self) -> BTreeMap<&'static str, u64> {
        self.state().happened.clone()
    }

    /// Returns the incidents since the last call.
    pub fn take_incidents(&self) -> Vec<Incident> {
        std::mem::take(&mut self.state().incidents)
    }

    /// Holds every step of this kind on files whose names end with `ending`. The steps continue when the test releases or drops
    /// the returned gate.
    pub fn hold(&self, step: Step, ending: &str) -> Gate {
        let id = self.rule(step, ending, Action::Hold { waiting: 0 });
        Gate { disk: self.clone(), id }
    }

    /// Makes every later sync succeed without any effect.
    pub fn ignore_syncs(&self) {
        self.state().ignores_syncs = true;
    }

    /// Returns the number of times that the file of a deleted segment has become a new segment.
    pub fn files_recycled(&self) -> u64 {
        self.state().recycled
    }

    /// Returns the number of bytes that all processes have read so far.
    pub fn bytes_read(&self) -> u64 {
        self.state().read
    }

    /// Returns true if a page of an existing file cannot be read.
    pub fn has_unreadable_pages(&self) -> bool {
        let state = self.state();
        state.names.iter().any(|(_, index)| state.files[index].has_unreadable_pages())
    }

    /// Returns the number of bytes that all processes have written so far.
    pub fn bytes_written(&self) -> u64 {
        self.state().written
    }

    /// Sets the maximum total size of all files to this number of bytes.
    pub fn set_limit(&self, bytes: u64) {
        self.state().limit = bytes;
    }

    /// Returns the total size of all files in bytes.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Applies `change` to some bytes of a file, on the medium and in the page cache. This is an incident.
    pub fn corrupt(&self, name: &str, bytes: Range<usize>, change: impl Fn(u8) -> u8) {
        self.damage(name, bytes.clone(), |file| file.corrupt(bytes, change));
    }

    /// Cuts a file off after `len` bytes, on the medium and in the page cache. This is an incident.
    pub fn cut_off(&self, name: &str, len: usize) {
        self.damage(name, len..usize::MAX, |file| file.cut_off(len));
    }

    /// Makes the pages with these bytes unreadable. This is an incident.
    pub fn spoil(&self, name: &str, bytes: Range<usize>) {
        let bytes = medium::whole_pages(&bytes);
        self.damage(name, bytes.clone(), |file| file.spoil(&bytes));
    }

    /// Removes a file and syncs the removal. This is an incident.
    pub fn remove_file(&self, name: &str) {
        self.damage(name, 0..usize::MAX, |_| {});
        let State { files, names, .. } = &mut *self.state();
        medium::vanish(files, names, name);
    }

    fn damage(&self, name: &str, bytes: Range<usize>, damage: impl FnOnce(&mut Inode)) {
        let state = &mut *self.state();
        let file = state.names.get(name).expect("the file exists");
        state.incident(file, bytes);
        damage(&mut state.files[file]);
    }

    /// Moves the directory, and creates another directory in its place, until the process is killed.
    pub fn move_away(&self) {
        self.state().is_moved = true;
    }

    /// Returns the bytes of a file as a process reads them.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names.get(name).expect("the file exists")].bytes().to_vec()
    }

    /// Returns the length of a file in bytes, or `None` if the file does not exist.
    pub fn len(&self, name: &str) -> Option<usize> {
        let state = self.state();
        state.names.get(name).map(|index| state.files[index].bytes().len())
    }

    /// Creates a file and syncs it.
    pub fn put_file(&self, name: &str, bytes: &[u8]) {
        let State { files, names, .. } = &mut *self.state();
        medium::put(files, names, name, bytes);
    }

    /// Returns all file names that end with `ending`, in alphabetical order.
    pub fn names(&self, ending: &str) -> Vec<String> {
        self.state().names.iter().map(|(name, _)| name).filter(|name| name.ends_with(ending)).cloned().collect()
    }

    /// Waits until `condition` returns true. `condition` receives the list of all file names.
    #[track_caller]
    pub fn wait_for(&self, condition: impl Fn(&[String]) -> bool) {
        let names = |state: &State| state.names.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        self.wait_until(|state| condition(&names(state)), |state| format!("other files than {:?}", names(state)));
    }

    /// Waits until `condition` returns true. Fails after [`PATIENCE`], with `what` in the message.
    #[track_caller]
    fn wait_until(&self, condition: impl Fn(&State) -> bool, what: impl Fn(&State) -> String) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state();
        while !condition(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = what(&state);
                drop(state);
                panic!("waited {PATIENCE:?} for {what}");
            }
            state = self.0.changed.wait_timeout(state, left).expect(POISON).0;
        }
    }

    fn rule(&self, step: Step, ending: &str, action: Action) -> u64 {
        let mut state = self.state();
        let id = state.rng.u64(..);
        state.rules.push(Rule { step, ending: ending.into(), action, id });
        id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect(POISON)
    }
}

impl Gate {
    /// Waits until the gate holds at least this many steps.
    #[track_caller]
    pub fn wait_for(&self, steps: u64) {
        let held = |state: &State| format!("{steps} steps at a gate that holds {}", state.held(self.id));
        self.disk.wait_until(|state| state.held(self.id) >= steps, held);
    }

    /// Returns true if the gate holds a step.
    pub fn has_waiting(&self) -> bool {
        self.disk.state().held(self.id) > 0
    }

    /// Lets all held steps continue.
    pub fn release(self) {}

    /// Makes one held step fail and lets all other held steps continue.
    pub fn fail(self, error: io::ErrorKind) {
        let mut state = self.disk.state();
        for rule in state.rules.iter_mut().filter(|rule| rule.id == self.id) {
            rule.action = Action::Fail { error: Failure::Kind(error), times: 1 };
            rule.id = 0;
        }
        self.disk.0.changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.disk.state().rules.retain(|rule| rule.id != self.id);
        self.disk.0.changed.notify_all();
    }
}

impl State {
    fn kill(&mut self) {
        self.process.dead = true;
        self.lock = Weak::new();
        self.is_moved = false;
        self.rules.clear();
        (self.process.die_at, self.process.fail_at) = (None, None);
    }

    fn used(&self) -> u64 {
        self.names.iter().map(|(_, index)| self.files[index].bytes().len() as u64).sum()
    }

    fn index(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, removed: &str, added: Option<(String, usize)>) {
        self.names.change(removed, added, &mut self.files);
    }

    fn held(&self, gate: u64) -> u64 {
        let rule = self.rules.iter().find(|rule| rule.id == gate);
        rule.map_or(0, |rule| if let Action::Hold { waiting } = rule.action { waiting } else { 0 })
    }

    fn happened(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.happened.entry(what).or_default() += times;
        }
    }

    /// Records an incident in the file `index`, before the fault changes the file.
    fn incident(&mut self, index: usize, bytes: Range<usize>) {
        let file = &self.files[index];
        let (content, last_write) = (file.bytes().to_vec(), file.last_write());
        let bytes = bytes.start..bytes.end.min(content.len());
        let name = file.name().map(|name| name.to_string()).unwrap_or_default();
        self.incidents.push(Incident { file: name, bytes, content, last_write });
    }
}

/// Maximum duration of every wait. A longer wait fails the test.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POISON: &str = "no test panics while it holds this lock";
