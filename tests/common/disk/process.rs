//! The steps of a simulated process: the journal's disk traits, on top of the medium.

use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use hookhold::journal::disk::{Disk, DiskFile};

use super::medium::{Inode, PAGE};
use super::{Action, Failure, PATIENCE, POISON, SimDisk, State, Step};

/// One process that uses the disk.
pub struct Process {
    disk: SimDisk,
    number: u64,
}

/// Result of a step.
enum StepFate {
    Completes,
    /// The process is dead.
    Dead,
    /// The process dies in this step, which may have a partial effect.
    Dies,
    Fails(Failure),
    /// The step reports success, but does something else.
    Lies(Action),
}

impl StepFate {
    /// Returns the error that the process sees, or that no process sees because it is dead.
    fn error(&self) -> io::Error {
        match self {
            StepFate::Fails(Failure::Kind(kind)) => (*kind).into(),
            StepFate::Fails(Failure::Medium | Failure::Late) => io::Error::from_raw_os_error(EIO),
            _ => io::Error::other("the process is dead"),
        }
    }
}

impl Process {
    pub fn on(disk: &SimDisk, number: u64) -> Arc<dyn Disk> {
        Arc::new(Process { disk: disk.clone(), number })
    }

    fn begin(&self, step: Step, name: &str) -> (MutexGuard<'_, State>, StepFate) {
        let observer = self.disk.0.observer.lock().expect(POISON).clone();
        if let Some(observer) = observer {
            observer(step, name);
        }
        let mut state = self.disk.state();
        let changes = !matches!(step, Step::Read | Step::List | Step::Open);
        state.process.changes += u64::from(changes);
        state.process.steps += 1;
        loop {
            let process = &mut state.process;
            if process.dead || process.number != self.number {
                return (state, StepFate::Dead);
            }
            if changes && process.die_at.is_some_and(|at| process.changes >= at) {
                process.dead = true;
                self.disk.0.changed.notify_all();
                return (state, StepFate::Dies);
            }
            if process.fail_at.is_some_and(|at| process.steps >= at) {
                process.fail_at = None;
                process.failed += 1;
                state.happened(failed(step), 1);
                return (state, StepFate::Fails(Failure::Medium));
            }
            let Some(rule) = state.rules.iter_mut().find(|rule| rule.step == step && name.ends_with(&rule.ending)) else {
                return (state, StepFate::Completes);
            };
            let (action, id) = (rule.action, rule.id);
            match &mut rule.action {
                Action::Fail { error, times } => {
                    let fate = StepFate::Fails(*error);
                    *times -= 1;
                    state.rules.retain(|rule| !matches!(rule.action, Action::Fail { times: 0, .. }));
                    state.process.failed += 1;
                    state.happened(failed(step), 1);
                    return (state, fate);
                }
                Action::LoseSync | Action::Misdirect => {
                    state.rules.retain(|rule| rule.id != id);
                    return (state, StepFate::Lies(action));
                }
                Action::Hold { waiting } => *waiting += 1,
            }
            self.disk.0.changed.notify_all();
            state = self.wait_at(state, step, name);
            for rule in state.rules.iter_mut().filter(|rule| rule.id == id) {
                if let Action::Hold { waiting } = &mut rule.action {
                    *waiting -= 1;
                }
            }
        }
    }

    /// Waits at a gate until the state of the disk changes.
    fn wait_at<'a>(&'a self, state: MutexGuard<'a, State>, step: Step, name: &str) -> MutexGuard<'a, State> {
        let start = Instant::now();
        let state = self.disk.0.changed.wait_timeout(state, PATIENCE).expect(POISON).0;
        if start.elapsed() >= PATIENCE {
            drop(state);
            panic!("{step:?} of {name} has waited {PATIENCE:?} at a gate");
        }
        state
    }

    fn enter(&self, step: Step, name: &str) -> io::Result<MutexGuard<'_, State>> {
        match self.begin(step, name) {
            (state, StepFate::Completes) => Ok(state),
            (_, fate) => Err(fate.error()),
        }
    }

    /// Begins a rename that takes effect. Returns its result, which may be an error all the same.
    fn begin_rename(&self, to: &str) -> io::Result<(MutexGuard<'_, State>, io::Result<()>)> {
        match self.begin(Step::Rename, to) {
            (state, StepFate::Completes) => Ok((state, Ok(()))),
            (mut state, fate @ StepFate::Fails(Failure::Late)) => {
                state.happened("failed rename that took effect", 1);
                Ok((state, Err(fate.error())))
            }
            (_, fate) => Err(fate.error()),
        }
    }

    fn file(&self, index: usize, name: &str, lock: Option<Arc<()>>) -> Arc<dyn DiskFile> {
        let process = Process { disk: self.disk.clone(), number: self.number };
        Arc::new(File { process, index, name: name.into(), _lock: lock })
    }
}

impl Disk for Process {
    fn lock(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.enter(Step::Lock, name)?;
        if state.lock.strong_count() > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if state.names.get(name).is_none() {
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
        if state.names.get(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.used() + size > state.limit {
            state.happened("full disk", 1);
            return Err(io::ErrorKind::StorageFull.into());
        }
        let index = state.files.len();
        state.files.push(Inode::preallocated(size as usize));
        state.rename(name, Some((name.into(), index)));
        self.disk.0.changed.notify_all();
        Ok(self.file(index, name, None))
    }

    fn recycle(&self, from: &str, to: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let (mut state, renamed) = self.begin_rename(to)?;
        let index = state.index(from)?;
        state.rename(from, Some((to.into(), index)));
        self.disk.0.changed.notify_all();
        renamed?;
        let len = state.files[index].bytes().len();
        let more = size.saturating_sub(len as u64);
        if state.used() + more > state.limit {
            state.happened("full disk", 1);
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files[index].set_len(len.max(size as usize));
        Ok(self.file(index, to, None))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let index = self.enter(Step::Open, name)?.index(name)?;
        Ok(self.file(index, name, None))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.enter(Step::Truncate, name)?;
        let index = state.index(name)?;
        state.files[index].set_len(size as usize);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut state, renamed) = self.begin_rename(to)?;
        let index = state.index(from)?;
        state.recycled += u64::from(from.ends_with(".spare"));
        let ordinal = to.split('-').next().unwrap_or(to);
        let is_replacement =
            from.ends_with(".seg.tmp") && state.names.iter().any(|(name, _)| name.ends_with(".seg") && name.starts_with(ordinal));
        state.happened("segment rewritten", u64::from(is_replacement));
        state.rename(from, Some((to.into(), index)));
        self.disk.0.changed.notify_all();
        renamed
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
        Ok(state.names.iter().map(|(name, index)| (name.clone(), state.files[index].bytes().len() as u64)).collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.begin(Step::SyncDir, "") {
            (mut state, StepFate::Completes) => {
                if !state.ignores_syncs {
                    state.names.sync();
                }
                Ok(())
            }
            (mut state, fate) => {
                if let (StepFate::Fails(_), true) = (&fate, state.forgets_names) {
                    let State { names, rng, .. } = &mut *state;
                    let mut losses = Default::default();
                    names.sync_partially(rng, &mut losses);
                    state.happened("lost name", losses.names);
                }
                Err(fate.error())
            }
        }
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.disk.state().lock.strong_count() > 0)
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(!self.disk.state().is_moved)
    }
}

struct File {
    process: Process,
    index: usize,
    name: Arc<str>,
    _lock: Option<Arc<()>>,
}

impl File {
    /// Returns the current name of the file. If the file has been removed, returns the name under which the process opened it.
    fn name(&self) -> Arc<str> {
        self.process.disk.state().files[self.index].name().unwrap_or(&self.name).clone()
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, fate) = self.process.begin(Step::Write, &self.name());
        let (index, start) = (self.index, offset as usize);
        if state.files[index].is_unwritable(&(start..start + bytes.len())) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let growth = (start + bytes.len()).saturating_sub(state.files[index].bytes().len());
        if growth > 0 && state.used() + growth as u64 > state.limit {
            state.happened("full disk", 1);
            return Err(io::ErrorKind::StorageFull.into());
        }
        match fate {
            StepFate::Completes => {
                state.files[index].write(bytes, start);
                state.written += bytes.len() as u64;
            }
            StepFate::Lies(_) => state.misdirect(index, bytes, start),
            StepFate::Dead => return Err(fate.error()),
            StepFate::Dies | StepFate::Fails(_) => {
                // An interrupted or failed write may have written a part of its bytes.
                let part = state.rng.usize(..=bytes.len());
                state.files[index].write(&bytes[..part], start);
                return Err(fate.error());
            }
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.process.enter(Step::Read, &self.name())?;
        let file = &state.files[self.index];
        let bytes = file.bytes().get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        if file.is_unreadable(&(offset as usize..offset as usize + count)) {
            state.happened("read of an unreadable page", 1);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        buffer[..count].copy_from_slice(&bytes[..count]);
        state.read += count as u64;
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fate) = self.process.begin(Step::Sync, &self.name());
        let index = self.index;
        let State { files, rng, ignores_syncs, .. } = &mut *state;
        match &fate {
            StepFate::Completes => {
                if !*ignores_syncs {
                    files[index].sync();
                }
                return Ok(());
            }
            StepFate::Lies(_) => {
                let bytes = files[index].unsynced();
                state.incident(index, bytes);
                state.happened("lost sync", 1);
                return Ok(());
            }
            StepFate::Dead => {}
            // An interrupted or failed sync writes some pages to the medium. After a failed sync, the page cache treats the
            // other pages as clean, although a power cut loses them.
            StepFate::Dies => files[index].sync_partially(false, rng),
            StepFate::Fails(_) => files[index].sync_partially(true, rng),
        }
        Err(fate.error())
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.process.enter(Step::Read, &self.name())?;
        Ok(state.files[self.index].bytes().len() as u64)
    }
}

impl State {
    /// Writes bytes that belong to the file `index` to another offset or to another file. Records the damage at both places.
    fn misdirect(&mut self, index: usize, bytes: &[u8], offset: usize) {
        // The medium writes whole pages, so the bytes arrive in other pages.
        let others: Vec<usize> = self.names.iter().map(|(_, file)| file).filter(|file| *file != index).collect();
        let target = if others.is_empty() || self.rng.bool() { index } else { others[self.rng.usize(..others.len())] };
        let len = self.files[target].bytes().len();
        let start = (self.rng.usize(..=len / PAGE) * PAGE + offset % PAGE).min(len);
        let hit = start..(start + bytes.len()).min(len);
        // In the same file, the bytes may be valid at the wrong place. A reader that finds sequences out of order skips
        // everything between this place and the intended one.
        let skipped = if target == index { hit.start..hit.end.max(offset) } else { hit.clone() };
        self.incident(target, skipped);
        let mut source = bytes.iter();
        self.files[target].corrupt(hit, |_| source.next().copied().unwrap_or_default());
        // The bytes that do not arrive.
        self.incident(index, offset..offset + bytes.len());
        if let Some(incident) = self.incidents.last_mut() {
            incident.content.resize(incident.content.len().max(offset + bytes.len()), 0);
            incident.content[offset..offset + bytes.len()].copy_from_slice(bytes);
            incident.bytes = offset..offset + bytes.len();
            incident.last_write = incident.bytes.clone();
        }
        self.happened("misdirected write", 1);
    }
}

/// Returns the name under which the disk counts a failed step.
fn failed(step: Step) -> &'static str {
    match step {
        Step::Lock => "failed lock",
        Step::Create => "failed creation",
        Step::Open => "failed opening of a file",
        Step::Read => "failed read",
        Step::Write => "failed write",
        Step::Sync => "failed sync",
        Step::Truncate => "failed truncation",
        Step::Rename => "failed rename",
        Step::Remove => "failed removal",
        Step::List => "failed listing",
        Step::SyncDir => "failed sync of the directory",
    }
}

/// Error number of an input/output error.
const EIO: i32 = 5;
