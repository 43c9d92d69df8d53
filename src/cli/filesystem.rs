//! Which file system a directory is on. A promise rests on it: an event that was synced survives a power cut.

use std::path::{Path, PathBuf};

/// A file system by its name, and whether its promises are known to hold.
pub struct FileSystem {
    /// Such as `ext4`; `0x…` when unknown.
    pub name: String,
    /// True for ext4 and XFS.
    pub trusted: bool,
}

/// The file system that `dir` is on, or will be on once it is created.
pub fn of(dir: &Path) -> std::io::Result<FileSystem> {
    let magic = rustix::fs::statfs(existing(dir))?.f_type as u32;
    let known = KNOWN.iter().find(|(number, _)| *number == magic);
    let name = known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned());
    Ok(FileSystem { trusted: ["ext4", "xfs"].contains(&name.as_str()), name })
}

fn existing(dir: &Path) -> PathBuf {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    whole.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// From Linux's `magic.h`.
const KNOWN: &[(u32, &str)] = &[
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x00c3_6400, "ceph"),
];
