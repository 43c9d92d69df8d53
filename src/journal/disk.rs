//! The only door to the disk. Everything that the journal writes passes the [`Disk`] and [`DiskFile`] traits, so that a
//! test can hold, fail or lose any single step; [`LocalDisk`] is the real one.
//!
//! Names are plain file names inside one directory. A file is synced through the descriptor that wrote it; a name is safe
//! only after [`Disk::sync_dir`].

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Advice, FallocateFlags, FlockOperation};

/// One directory that holds a journal.
pub trait Disk: Send + Sync {
    /// Opens `name` for writing, creating it if need be, and locks it until the file is dropped. Fails with
    /// [`io::ErrorKind::WouldBlock`] while another process holds it.
    fn lock(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates `name` with `size` bytes allocated ahead, all zero. Fails if it exists.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives an existing file another name and opens it for writing, with `size` bytes allocated. Its bytes stay: whoever
    /// writes over them needs no new blocks. When it fails, the file may have either name.
    fn recycle(&self, from: &str, to: &str, size: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Cuts a file that is no longer written to `size` bytes.
    fn truncate(&self, name: &str, size: u64) -> io::Result<()>;
    /// Renames a file, replacing `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// All files with their sizes in bytes, in no order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Makes creations, renames and deletions so far survive a power cut.
    fn sync_dir(&self) -> io::Result<()>;
    /// True while some process holds the lock on `name`.
    fn is_locked(&self, name: &str) -> io::Result<bool>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Returns once everything written through this file is on the medium (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// The file's size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Nobody will read this file soon: the memory that caches it may be used for something else. Only ever a hint.
    fn drop_from_page_cache(&self) {}
}

/// A directory on a local file system. Directory mode 0700, files 0600.
pub struct LocalDisk {
    dir: PathBuf,
}

impl LocalDisk {
    /// Uses `dir`, creating it with its parents if it is missing.
    pub fn create(dir: &Path) -> io::Result<LocalDisk> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(LocalDisk { dir: dir.to_owned() })
    }

    /// Uses an existing `dir`.
    pub fn existing(dir: &Path) -> io::Result<LocalDisk> {
        std::fs::read_dir(dir)?;
        Ok(LocalDisk { dir: dir.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Disk for LocalDisk {
    fn lock(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.path(name))?;
        // Who only asks whether it is locked (`is_locked`) holds it for a moment.
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Arc::new(LocalFile(file))),
                Err(_) => std::thread::sleep(LOCK_PAUSE),
            }
        }
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        if size > 0 {
            allocate(&file, 0, size).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        }
        Ok(Arc::new(LocalFile(file)))
    }

    fn recycle(&self, from: &str, to: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(from))?;
        // First: whoever opens it under its old name from now on finds that it is gone.
        std::fs::rename(self.path(from), self.path(to))?;
        allocate(&file, file.metadata()?.len(), size)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(File::open(self.path(name))?)))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(name))?.set_len(size)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            // A file may go away between the two calls: another process deletes old segments.
            match (entry.file_name().into_string(), entry.metadata()) {
                (Ok(name), Ok(meta)) if meta.is_file() => files.push((name, meta.len())),
                _ => continue,
            }
        }
        Ok(files)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        match File::open(self.path(name)) {
            Ok(file) => Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

struct LocalFile(File);

impl DiskFile for LocalFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn drop_from_page_cache(&self) {
        // A hint that is not taken costs nothing but memory.
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed);
    }
}

/// True if a step failed because there is no space left for this user.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reserves real blocks, so that a commit cannot meet a full disk. Where the file system cannot, zeroes are written behind the
/// `len` bytes that are there: a reader may still be at those.
fn allocate(file: &File, len: u64, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => fill_with_zeroes(file, len, size),
        result => Ok(result?),
    }
}

fn fill_with_zeroes(file: &File, mut offset: u64, size: u64) -> io::Result<()> {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| tracing::warn!("this file system cannot allocate space ahead; new segments are filled with zeroes"));
    let zeroes = vec![0; ZERO_CHUNK];
    while offset < size {
        let step = zeroes.len().min((size - offset) as usize);
        file.write_all_at(&zeroes[..step], offset)?;
        offset += step as u64;
    }
    Ok(())
}

/// The name of the file system that holds `dir`, and whether a sync on it keeps its promise (ext4 and XFS are the ones that
/// were studied; see `docs/durability.md`).
pub fn file_system(dir: &Path) -> io::Result<(String, bool)> {
    let magic = rustix::fs::statfs(dir)?.f_type as u32;
    Ok(match magic {
        0xEF53 => ("ext4".into(), true),
        0x5846_5342 => ("xfs".into(), true),
        0x9123_683E => ("btrfs".into(), false),
        0x0102_1994 => ("tmpfs".into(), false),
        0x794C_7630 => ("overlayfs".into(), false),
        0x6969 => ("nfs".into(), false),
        0x2FC1_2FC1 => ("zfs".into(), false),
        other => (format!("type 0x{other:x}"), false),
    })
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

const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(5);
const ZERO_CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_a_file_with_zeroes_leaves_the_bytes_that_are_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, [7; 3000]).expect("it can be written");
        let file = OpenOptions::new().write(true).open(&path).expect("it can be opened");
        fill_with_zeroes(&file, 3000, 5000).expect("there is room");
        assert_eq!(std::fs::read(&path).expect("it can be read"), [&[7; 3000][..], &[0; 2000][..]].concat());
    }
}
