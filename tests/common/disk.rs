//! Simulated in-memory disk that gives only the guarantees of POSIX. A power cut may lose written pages until the file is
//! synced, and directory entries until the directory is synced. A step is one disk operation. A test can make any single step
//! fail or wait, and can kill the process in any step.
//!
//! [`SimDisk`] is the medium with its page cache, and [`SimDisk::start`] starts a process that uses the disk. [`SimDisk::kill`]
//! ends the process and preserves the page cache. [`SimDisk::cut_power`] ends the process and may lose unsynced pages and
//! directory entries. [`SimDisk::die_after`] ends the process in the middle of a step.

#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use hookhold::journal::disk::{Disk, DiskFile};

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

struct State {
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes to the directory since the last sync of the directory, oldest first.
    unsynced: Vec<NameChange>,
    /// Lock of the directory.
    lock: Weak<()>,
    rules: Vec<Rule>,
    limit: u64,
    /// Number of the current process, counted from 1. A process that [`SimDisk::second_process`] starts has the number of the
    /// process that already runs. All processes with a lower number are dead.
    process: u64,
    dead: bool,
    steps: u64,
    die_at: Option<u64>,
    ignores_syncs: bool,
    recycled: u64,
    read: u64,
    rng: fastrand::Rng,
}

#[derive(Clone, Default)]
struct Inode {
    cache: Vec<u8>,
    dirty: BTreeSet<usize>,
    durable: Vec<u8>,
}

/// One atomic change to the directory: removes the entry `removed` if it exists, and may add an entry.
struct NameChange {
    removed: String,
    added: Option<(String, usize)>,
}

struct Rule {
    step: Step,
    ending: String,
    action: Action,
    id: u64,
}

enum Action {
    /// Makes the next `times` steps fail.
    Fail { error: io::ErrorKind, times: u64 },
    /// Holds every step until the test releases or drops the gate.
    Hold { waiting: u64 },
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
        let state = State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced: Vec::new(),
            lock: Weak::new(),
            rules: Vec::new(),
            limit: u64::MAX,
            process: 0,
            dead: true,
            steps: 0,
            die_at: None,
            ignores_syncs: false,
            recycled: 0,
            read: 0,
            rng: fastrand::Rng::with_seed(seed),
        };
        SimDisk(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), observer: Mutex::new(None) }))
    }

    /// Calls `observer` before every later step, with the kind of the step and the name of the file. The observer may perform
    /// steps itself.
    pub fn observe(&self, observer: impl Fn(Step, &str) + Send + Sync + 'static) {
        *self.0.observer.lock().expect("no test panics while it holds this lock") = Some(Arc::new(observer));
    }

    /// Starts a new process. Every later step of an earlier process fails.
    pub fn start(&self) -> Arc<dyn Disk> {
        let mut state = self.state();
        state.process += 1;
        state.dead = false;
        state.steps = 0;
        Arc::new(Process { disk: self.clone(), process: state.process })
    }

    /// Starts a second process. The first process continues to run.
    pub fn second_process(&self) -> Arc<dyn Disk> {
        let state = self.state();
        Arc::new(Process { disk: self.clone(), process: state.process })
    }

    /// Kills the process as `kill -9` does. The page cache retains every write of the process.
    pub fn kill(&self) {
        let mut state = self.state();
        state.dead = true;
        state.lock = Weak::new();
        state.rules.clear();
        state.die_at = None;
        self.0.changed.notify_all();
    }

    /// Kills the process and cuts the power. Each unsynced page and each unsynced directory entry survives or is lost
    /// independently.
    pub fn cut_power(&self) {
        self.kill();
        let State { files, names, durable_names, unsynced, rng, .. } = &mut *self.state();
        let chance = [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)];
        for file in &mut *files {
            for page in std::mem::take(&mut file.dirty) {
                if rng.f64() < chance {
                    file.persist(page);
                }
            }
            if file.durable.len() != file.cache.len() && rng.bool() {
                file.durable.resize(file.cache.len(), 0);
            }
            file.cache.clone_from(&file.durable);
        }
        for change in unsynced.drain(..) {
            if rng.f64() < chance {
                change.apply(durable_names);
            }
        }
        names.clone_from(durable_names);
    }

    /// Kills the process during a later step: the `steps`-th step from now that changes the disk. That step may take effect
    /// partially.
    pub fn die_after(&self, steps: u64) {
        let mut state = self.state();
        state.die_at = Some(state.steps + steps);
    }

    /// Returns true if the process is dead.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Makes the next `times` steps of this kind fail on files whose names end with `ending`.
    pub fn fail(&self, step: Step, ending: &str, error: io::ErrorKind, times: u64) {
        self.rule(step, ending, Action::Fail { error, times });
    }

    /// Cancels all failures that [`SimDisk::fail`] has requested.
    pub fn clear_faults(&self) {
        self.state().rules.retain(|rule| !matches!(rule.action, Action::Fail { .. }));
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

    /// Sets the maximum total size of all files to this number of bytes.
    pub fn set_limit(&self, bytes: u64) {
        self.state().limit = bytes;
    }

    /// Returns the total size of all files in bytes.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Applies `change` to some bytes of a file, on the medium and in the page cache.
    pub fn corrupt(&self, name: &str, bytes: Range<usize>, change: impl Fn(u8) -> u8) {
        let mut state = self.state();
        let index = *state.names.get(name).expect("the file exists");
        let file = &mut state.files[index];
        for at in bytes {
            file.cache[at] = change(file.cache[at]);
            if at < file.durable.len() {
                file.durable[at] = file.cache[at];
            }
        }
    }

    /// Returns the bytes of a file as a process reads them.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[*state.names.get(name).expect("the file exists")].cache.clone()
    }

    /// Returns the length of a file in bytes, or `None` if the file does not exist.
    pub fn len(&self, name: &str) -> Option<usize> {
        let state = self.state();
        state.names.get(name).map(|index| state.files[*index].cache.len())
    }

    /// Creates a file and syncs it.
    pub fn put_file(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let index = state.files.len();
        state.files.push(Inode { cache: bytes.to_vec(), dirty: BTreeSet::new(), durable: bytes.to_vec() });
        state.names.insert(name.into(), index);
        state.durable_names.insert(name.into(), index);
    }

    /// Removes a file and syncs the removal.
    pub fn remove_file(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name).expect("the file exists");
        state.durable_names.remove(name);
    }

    /// Returns all file names that end with `ending`, in alphabetical order.
    pub fn names(&self, ending: &str) -> Vec<String> {
        self.state().names.keys().filter(|name| name.ends_with(ending)).cloned().collect()
    }

    /// Waits until `condition` returns true. `condition` receives the list of all file names.
    pub fn wait_for(&self, condition: impl Fn(&[String]) -> bool) {
        let mut state = self.state();
        while !condition(&state.names.keys().cloned().collect::<Vec<_>>()) {
            state = self.0.changed.wait(state).expect("no test panics while it holds this lock");
        }
    }

    fn rule(&self, step: Step, ending: &str, action: Action) -> u64 {
        let mut state = self.state();
        let id = state.rng.u64(..);
        state.rules.push(Rule { step, ending: ending.into(), action, id });
        id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no test panics while it holds this lock")
    }
}

impl Gate {
    /// Waits until the gate holds at least this many steps.
    pub fn wait_for(&self, steps: u64) {
        let mut state = self.disk.state();
        while self.held(&state) < steps {
            state = self.disk.0.changed.wait(state).expect("no test panics while it holds this lock");
        }
    }

    /// Returns true if the gate holds a step.
    pub fn has_waiting(&self) -> bool {
        self.held(&self.disk.state()) > 0
    }

    fn held(&self, state: &State) -> u64 {
        let rule = state.rules.iter().find(|rule| rule.id == self.id);
        rule.map_or(0, |rule| if let Action::Hold { waiting } = rule.action { waiting } else { 0 })
    }

    /// Lets all held steps continue.
    pub fn release(self) {}

    /// Makes one held step fail and lets all other held steps continue.
    pub fn fail(self, error: io::ErrorKind) {
        let mut state = self.disk.state();
        for rule in state.rules.iter_mut().filter(|rule| rule.id == self.id) {
            rule.action = Action::Fail { error, times: 1 };
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

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        names.remove(&self.removed);
        names.extend(self.added);
    }
}

impl Inode {
    fn persist(&mut self, page: usize) {
        let range = page * PAGE..((page + 1) * PAGE).min(self.cache.len());
        if range.start < range.end {
            if self.durable.len() < range.end {
                self.durable.resize(range.end, 0);
            }
            self.durable[range.clone()].copy_from_slice(&self.cache[range]);
        }
    }

    fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.persist(page);
        }
        self.durable.resize(self.cache.len(), 0);
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / PAGE..end.div_ceil(PAGE));
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|index| self.files[*index].cache.len() as u64).sum()
    }

    fn index(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, removed: &str, added: Option<(String, usize)>) {
        NameChange { removed: removed.into(), added: added.clone() }.apply(&mut self.names);
        self.unsynced.push(NameChange { removed: removed.into(), added });
    }
}

/// Reason why a step does not complete.
enum StepError {
    /// The process is dead. If the process died in this step, the step may have had a partial effect.
    Dead {
        in_this_step: bool,
    },
    Failed(io::ErrorKind),
}

impl From<StepError> for io::Error {
    fn from(error: StepError) -> io::Error {
        match error {
            StepError::Dead { .. } => io::Error::other("the process is dead"),
            StepError::Failed(kind) => kind.into(),
        }
    }
}

struct Process {
    disk: SimDisk,
    process: u64,
}

impl Process {
    fn begin(&self, step: Step, name: &str) -> Result<MutexGuard<'_, State>, (MutexGuard<'_, State>, StepError)> {
        let observer = self.disk.0.observer.lock().expect("no test panics while it holds this lock").clone();
        if let Some(observer) = observer {
            observer(step, name);
        }
        let mut state = self.disk.state();
        let changes = !matches!(step, Step::Read | Step::List | Step::Open);
        state.steps += u64::from(changes);
        loop {
            if state.dead || state.process != self.process {
                return Err((state, StepError::Dead { in_this_step: false }));
            }
            if changes && state.die_at.is_some_and(|at| state.steps >= at) {
                state.dead = true;
                self.disk.0.changed.notify_all();
                return Err((state, StepError::Dead { in_this_step: true }));
            }
            let rule = state.rules.iter_mut().find(|rule| rule.step == step && name.ends_with(&rule.ending));
            match rule.map(|rule| (&mut rule.action, rule.id)) {
                None => return Ok(state),
                Some((Action::Fail { error, times }, _)) => {
                    let error = *error;
                    *times -= 1;
                    state.rules.retain(|rule| !matches!(rule.action, Action::Fail { times: 0, .. }));
                    return Err((state, StepError::Failed(error)));
                }
                Some((Action::Hold { waiting }, id)) => {
                    *waiting += 1;
                    self.disk.0.changed.notify_all();
                    state = self.disk.0.changed.wait(state).expect("no test panics while it holds this lock");
                    for rule in state.rules.iter_mut().filter(|rule| rule.id == id) {
                        if let Action::Hold { waiting } = &mut rule.action {
                            *waiting -= 1;
                        }
                    }
                }
            }
        }
    }

    fn enter(&self, step: Step, name: &str) -> io::Result<MutexGuard<'_, State>> {
        self.begin(step, name).map_err(|(_, error)| error.into())
    }

    fn file(&self, index: usize, name: &str, lock: Option<Arc<()>>) -> Arc<dyn DiskFile> {
        let process = Process { disk: self.disk.clone(), process: self.process };
        Arc::new(File { process, index, name: name.into(), _lock: lock })
    }
}

impl Disk for Process {
    fn lock(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.enter(Step::Lock, name)?;
        if state.lock.strong_count() > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !state.names.contains_key(name) {
            let index = state.files.len();
            state.files.push(Inode::default());
            state.rename(name, Some((name.into(), index)));
        }
        let (index, lock) = (state.index(name)?, Arc::new(()));
        state.lock = Arc::downgrade(&lock);
        Ok(self.file(index, name, Some(lock)))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.enter(Step::Create, name)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.used() + size > state.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let index = state.files.len();
        state.files.push(Inode { cache: vec![0; size as usize], ..Inode::default() });
        state.rename(name, Some((name.into(), index)));
        self.disk.0.changed.notify_all();
        Ok(self.file(index, name, None))
    }

    fn recycle(&self, from: &str, to: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.enter(Step::Rename, to)?;
        let index = state.index(from)?;
        state.rename(from, Some((to.into(), index)));
        self.disk.0.changed.notify_all();
        let more = size.saturating_sub(state.files[index].cache.len() as u64);
        if state.used() + more > state.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let grown = state.files[index].cache.len().max(size as usize);
        state.files[index].cache.resize(grown, 0);
        Ok(self.file(index, to, None))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let index = self.enter(Step::Open, name)?.index(name)?;
        Ok(self.file(index, name, None))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.enter(Step::Truncate, name)?;
        let index = state.index(name)?;
        state.files[index].cache.resize(size as usize, 0);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.enter(Step::Rename, to)?;
        let index = state.index(from)?;
        state.recycled += u64::from(from.ends_with(".spare"));
        state.rename(from, Some((to.into(), index)));
        self.disk.0.changed.notify_all();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.enter(Step::Remove, name)?;
        state.index(name)?;
        state.rename(name, None);
        self.disk.0.changed.notify_all();
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.enter(Step::List, "")?;
        Ok(state.names.iter().map(|(name, index)| (name.clone(), state.files[*index].cache.len() as u64)).collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.enter(Step::SyncDir, "")?;
        if !state.ignores_syncs {
            state.durable_names = state.names.clone();
            state.unsynced.clear();
        }
        Ok(())
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.disk.state().lock.strong_count() > 0)
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

struct File {
    process: Process,
    index: usize,
    name: String,
    _lock: Option<Arc<()>>,
}

impl File {
    /// Returns the current name of the file. If the file has been removed, returns the name under which the process opened it.
    fn name(&self) -> String {
        let state = self.process.disk.state();
        let now = state.names.iter().find(|(_, index)| **index == self.index);
        now.map_or_else(|| self.name.clone(), |(name, _)| name.clone())
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let index = self.index;
        match self.process.begin(Step::Write, &self.name()) {
            Ok(mut state) => {
                state.files[index].write(bytes, offset as usize);
                Ok(())
            }
            Err((mut state, error)) => {
                // An interrupted or failed write may have written a part of its bytes.
                if !matches!(error, StepError::Dead { in_this_step: false }) {
                    let part = state.rng.usize(..=bytes.len());
                    state.files[index].write(&bytes[..part], offset as usize);
                }
                Err(error.into())
            }
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.process.enter(Step::Read, &self.name())?;
        let bytes = state.files[self.index].cache.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        state.read += count as u64;
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let index = self.index;
        match self.process.begin(Step::Sync, &self.name()) {
            Ok(mut state) => {
                if !state.ignores_syncs {
                    state.files[index].sync();
                }
            }
            Err((mut state, error)) => {
                // An interrupted or failed sync writes some pages to the medium. After a failed sync, the page cache treats the
                // other pages as clean, although a power cut loses them.
                let failed = matches!(error, StepError::Failed(_));
                if !matches!(error, StepError::Dead { in_this_step: false }) {
                    let State { files, rng, .. } = &mut *state;
                    for page in files[index].dirty.clone() {
                        if rng.bool() {
                            files[index].persist(page);
                            files[index].dirty.remove(&page);
                        } else if failed {
                            files[index].dirty.remove(&page);
                        }
                    }
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.process.enter(Step::Read, &self.name())?;
        Ok(state.files[self.index].cache.len() as u64)
    }
}

const PAGE: usize = 4096;
