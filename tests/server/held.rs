//! A disk whose syncs can be held back: events are then under way for as long as a test wants.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use hookhold::journal::disk::{Disk, DiskFile};

/// Open at first.
#[derive(Default)]
pub struct Gate {
    held: Mutex<bool>,
    reached: AtomicBool,
    changed: Condvar,
}

impl Gate {
    /// No sync returns from now on.
    pub fn hold(&self) {
        *self.held.lock().expect("no holder panics") = true;
    }

    /// Lets all syncs return.
    pub fn release(&self) {
        *self.held.lock().expect("no holder panics") = false;
        self.changed.notify_all();
    }

    /// True once a sync is being held.
    pub fn is_reached(&self) -> bool {
        self.reached.load(SeqCst)
    }

    fn pass(&self) {
        let held = self.held.lock().expect("no holder panics");
        self.reached.fetch_or(*held, SeqCst);
        drop(self.changed.wait_while(held, |held| *held).expect("no holder panics"));
    }
}

/// Everything passes through to `disk`; syncs of files wait at `gate`.
pub struct HeldDisk {
    pub disk: Arc<dyn Disk>,
    pub gate: Arc<Gate>,
}

struct HeldFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl HeldDisk {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HeldFile { file, gate: self.gate.clone() })
    }
}

impl Disk for HeldDisk {
    fn lock(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.lock(name)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.disk.create(name, size)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        self.disk.truncate(name, size)
    }

    fn recycle(&self, from: &str, to: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.disk.recycle(from, to, size)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.disk.is_locked(name)
    }
}

impl DiskFile for HeldFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}
