//! File access of the journal. Every read and write uses the [`Disk`] and [`DiskFile`] traits, so a test can delay any single
//! step, make the step fail, or undo the step in a simulated power cut. [`LocalDisk`] implements these traits for a real
//! directory. This module does not depend on segments or frames.
//!
//! A [`Disk`] is one directory, and all file names are plain names inside this directory. The journal writes and syncs a file
//! through the same descriptor. The creation, renaming or deletion of a file survives a power cut only after
//! [`Disk::sync_dir`].

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{
    Advice, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags, fchmod, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

/// Directory that contains a journal.
pub trait Disk: Send + Sync {
    /// Locks the directory, and opens or creates the file `name` for reading and writing. Holds the lock until the returned file
    /// is dropped. Fails with [`io::ErrorKind::WouldBlock`] while another process holds the lock.
    fn lock(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates `name` with `size` preallocated bytes, all zero. Fails if the file exists.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames an existing file and opens it for writing with at least `size` allocated bytes. The old bytes remain, so
    /// overwriting them needs no new blocks. If this function fails, the file may have the old or the new name.
    fn recycle(&self, from: &str, to: &str, size: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Truncates a file to `size` bytes. The caller must ensure that no thread is still writing to the file.
    fn truncate(&self, name: &str, size: u64) -> io::Result<()>;
    /// Renames a file. Replaces `to` if it exists. If this function fails, the file may have the old or the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Lists all files with their sizes in bytes, in no particular order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Makes all earlier creations, renames and deletions of files durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Returns true if a process holds the lock of the directory.
    fn is_locked(&self) -> io::Result<bool>;
    /// Returns the number of bytes that this process may still write to the volume; `None` if this is not known.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// Returns true if the path of the directory still leads to this directory.
    fn is_in_place(&self) -> io::Result<bool>;
    /// Opens the Unix socket `name`, to which only this user can connect. Replaces a socket with the same name. Fails with
    /// [`io::ErrorKind::Unsupported`] if the disk has no sockets.
    fn bind_socket(&self, _name: &str) -> io::Result<UnixListener> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Connects to the Unix socket `name`. Returns `None` if no process has it open.
    fn connect_socket(&self, _name: &str) -> io::Result<Option<UnixStream>> {
        Ok(None)
    }
}

/// Open file in the directory of a journal.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads `buffer.len()` bytes at `offset`, or fewer at the end of the file. Returns the number of bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Syncs all bytes that were written through this handle (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Returns the file's size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Advises the kernel to drop the pages of this file from the page cache, because no read will follow soon.
    fn drop_from_page_cache(&self) {}
}

/// Directory on a local file system. hookhold creates this directory with mode 0700 and its files with mode 0600. All operations
/// are relative to the descriptor of the directory, so they refer to the same directory even if an operator renames it.
pub struct LocalDisk {
    dir: File,
    path: PathBuf,
}

impl LocalDisk {
    /// Opens the directory `dir`. Creates the directory and its parents if they are missing.
    pub fn create(dir: &Path) -> io::Result<LocalDisk> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        LocalDisk::existing(dir)
    }

    /// Opens the existing directory `dir`. Fails if `dir` does not exist.
    pub fn existing(dir: &Path) -> io::Result<LocalDisk> {
        let path = std::path::absolute(dir)?;
        let dir = OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits() as i32).open(&path)?;
        Ok(LocalDisk { dir, path })
    }

    /// Opens a regular file. Rejects everything else: a journal does not continue behind a symbolic link, and the opening of a
    /// named pipe would wait for another process.
    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let irregular =
            |found| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("expected a regular file, found {found}")));
        match openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::LOOP) => irregular("a symbolic link"),
            Err(Errno::ISDIR) => irregular("a directory"),
            opened => Ok(File::from(opened?)),
        }
        .and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { irregular("another kind of file") })
    }

    /// Calls `call` with a short path to the entry `name`. The address of a Unix socket has room for only 108 bytes. Where /proc is
    /// not mounted, the path is the one of the directory.
    fn at_short_path<T>(&self, name: &str, call: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd()));
        let dir = if by_descriptor.exists() { &by_descriptor } else { &self.path };
        call(&dir.join(name))
    }

    /// Opens the directory once more. The new descriptor has a lock of its own.
    fn open_dir(&self) -> io::Result<File> {
        Ok(openat(&self.dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

impl Disk for LocalDisk {
    fn lock(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let dir = self.open_dir()?;
        // Retry, because `is_locked` in another process may briefly hold the lock.
        for _ in 0..LOCK_TRIES {
            if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
        Ok(Arc::new(LocalFile { file, _lock: Some(dir) }))
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let volume = rustix::fs::fstatvfs(&self.dir)?;
        Ok(Some(volume.f_bavail.saturating_mul(volume.f_frsize)))
    }

    fn is_in_place(&self) -> io::Result<bool> {
        let (ours, named) = (self.dir.metadata()?, std::fs::metadata(&self.path));
        match named {
            Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        if size > 0 {
            preallocate(&file, 0, size).inspect_err(|_| drop(self.remove(name)))?;
        }
        Ok(LocalFile::without_lock(file))
    }

    fn recycle(&self, from: &str, to: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open_file(from, OFlags::RDWR)?;
        // Rename the file first, so that every later attempt to open the old name fails.
        self.rename(from, to)?;
        preallocate(&file, file.metadata()?.len(), size)?;
        Ok(LocalFile::without_lock(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(LocalFile::without_lock(self.open_file(name, OFlags::RDONLY)?))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY)?.set_len(size)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.dir, from, &self.dir, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            // Another process may delete an old segment after the listing and before `statat` reads its size.
            match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => files.push((name.to_owned(), stat.st_size as u64)),
                _ => continue,
            }
        }
        Ok(files)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn bind_socket(&self, name: &str) -> io::Result<UnixListener> {
        match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => unlinkat(&self.dir, name, AtFlags::empty())?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "expected a socket, found another kind of file")),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The new entry gets the mode of the socket.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        self.at_short_path(name, |path| Ok(bind(&socket, &SocketAddrUnix::new(path)?)?))?;
        listen(&socket, SOCKET_BACKLOG)?;
        Ok(socket.into())
    }

    fn connect_socket(&self, name: &str) -> io::Result<Option<UnixStream>> {
        let connected = self.at_short_path(name, |path| UnixStream::connect(path));
        match connected.as_ref().err().and_then(Errno::from_io_error) {
            Some(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            _ => connected.map(Some),
        }
    }

    fn is_locked(&self) -> io::Result<bool> {
        match rustix::fs::flock(self.open_dir()?, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Ok(true),
            unlocked => Ok(unlocked.map(|()| false)?),
        }
    }
}

struct LocalFile {
    file: File,
    /// Descriptor of the directory that holds its lock; `None` for every file except the lock file.
    _lock: Option<File>,
}

impl LocalFile {
    fn without_lock(file: File) -> Arc<dyn DiskFile> {
        Arc::new(LocalFile { file, _lock: None })
    }
}

impl DiskFile for LocalFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn drop_from_page_cache(&self) {
        // This call is only a hint. If the kernel ignores the hint, the pages stay cached.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}

/// Reads `buffer.len()` bytes at `offset`, as [`DiskFile::read_at`] does. Repeats a failed read, because an I/O error may be temporary.
/// For callers that would otherwise do without these bytes for good.
pub(super) fn read_patiently(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let repeated = (1..READ_ATTEMPTS).find_map(|_| file.read_at(buffer, offset).ok());
    repeated.map_or_else(|| file.read_at(buffer, offset), Ok)
}

/// Writes a file under a temporary name, syncs the file and renames it, so that `name` never refers to an incomplete file.
pub(super) fn write_atomically(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY_EXT}");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&temporary, bytes.len() as u64)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    // If the rename has taken effect nevertheless, no later startup must find a file of which the caller does not know.
    disk.rename(&temporary, name).inspect_err(|_| drop(delete_after_rename(disk, &temporary, name)))
}

/// Deletes a file after its rename has failed. The rename may have taken effect nevertheless, so the file has the name `from` or `to`.
/// Leaves another file with the name `to` alone, unless the file with the name `from` cannot be deleted. Succeeds if no file has the
/// name `to` because of this rename.
pub(super) fn delete_after_rename(disk: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
    if disk.remove(from).is_ok() {
        return Ok(());
    }
    match disk.remove(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns true if the error means that the disk is full or that the user's disk quota is exceeded.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Allocates blocks for the first `size` bytes of a file, so that a full disk cannot make a commit fail. If the file system
/// does not support preallocation, writes zeroes after the first `len` bytes instead. The first `len` bytes stay unchanged,
/// because a reader may still need them.
fn preallocate(file: &File, len: u64, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill_with_zeroes(file, len, size),
        result => Ok(result?),
    }
}

fn fill_with_zeroes(file: &File, mut offset: u64, size: u64) -> io::Result<()> {
    static WARNED: std::sync::Once = std::sync::Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "expected a file system that can preallocate space, found one that cannot, so hookhold fills new segments with \
             zeroes; use ext4 or XFS"
        )
    });
    let zeroes = vec![0; ZERO_CHUNK];
    while offset < size {
        let step = zeroes.len().min((size - offset) as usize);
        file.write_all_at(&zeroes[..step], offset)?;
        offset += step as u64;
    }
    Ok(())
}

/// Extension of a file that is still being written.
pub(super) const TEMPORARY_EXT: &str = ".tmp";
/// Number of attempts of [`read_patiently`].
const READ_ATTEMPTS: u32 = 3;
const SOCKET_BACKLOG: i32 = 16;
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(5);
const ZERO_CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_filling_preserves_the_bytes_before_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, [7; 3000]).expect("the file can be written");
        let file = OpenOptions::new().write(true).open(&path).expect("the file can be opened");
        fill_with_zeroes(&file, 3000, 5000).expect("the disk has room");
        assert_eq!(std::fs::read(&path).expect("the file can be read"), [&[7; 3000][..], &[0; 2000][..]].concat());
    }
}
