//! Recognises the file system of a directory.

use std::io;
use std::path::Path;

/// File system that contains a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Name, such as `ext4`, or the type number of an unknown file system.
    pub name: String,
    /// Known behaviour of its syncs.
    pub kind: FileSystemKind,
}

/// Known behaviour of the syncs and locks of a file system; see `docs/durability.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystemKind {
    /// File system that is known to honour syncs: ext4 or XFS.
    Tested,
    /// Local file system about whose syncs nothing is known, or that is known to lose data.
    Untested,
    /// Network file system. Its syncs and locks depend on the server and on mount options.
    Network,
}

/// Returns the file system that contains `dir`.
pub fn file_system(dir: &Path) -> io::Result<FileSystem> {
    Ok(of_type(rustix::fs::statfs(dir)?.f_type as u32))
}

/// Returns the file system with this type number, the field `f_type` of statfs(2).
fn of_type(number: u32) -> FileSystem {
    let (name, kind) = match number {
        0xEF53 => ("ext4", FileSystemKind::Tested),
        0x5846_5342 => ("xfs", FileSystemKind::Tested),
        0x9123_683E => ("btrfs", FileSystemKind::Untested),
        0x0102_1994 => ("tmpfs", FileSystemKind::Untested),
        0x794C_7630 => ("overlayfs", FileSystemKind::Untested),
        0x2FC1_2FC1 => ("zfs", FileSystemKind::Untested),
        0x6573_5546 => ("fuse", FileSystemKind::Untested),
        0x0102_1997 => ("9p", FileSystemKind::Untested),
        0x6969 => ("nfs", FileSystemKind::Network),
        0x517B => ("smb", FileSystemKind::Network),
        0xFE53_4D42 => ("smb2", FileSystemKind::Network),
        0xFF53_4D42 => ("cifs", FileSystemKind::Network),
        0x00C3_6400 => ("ceph", FileSystemKind::Network),
        0x5346_414F => ("afs", FileSystemKind::Network),
        0x0BD0_0BD0 => ("lustre", FileSystemKind::Network),
        other => return FileSystem { name: format!("type 0x{other:x}"), kind: FileSystemKind::Untested },
    };
    FileSystem { name: name.into(), kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_recognised() {
        for (number, name) in [(0x6969, "nfs"), (0xFF53_4D42, "cifs"), (0xFE53_4D42, "smb2"), (0x00C3_6400, "ceph")] {
            assert_eq!(of_type(number), FileSystem { name: name.into(), kind: FileSystemKind::Network });
        }
        assert_eq!(of_type(0xEF53).kind, FileSystemKind::Tested);
        assert_eq!(of_type(0x1234), FileSystem { name: "type 0x1234".into(), kind: FileSystemKind::Untested });
    }
}
