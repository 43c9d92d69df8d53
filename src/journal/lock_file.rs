//! Lock file.

use crate::event::LogId;

/// What stands at the start of the lock file while the lock is held: log id, mark, and a checksum of both.
pub fn published(log: LogId, mark: u64) -> [u8; 24] {
    let mut out = [0; 24];
    out[..8].copy_from_slice(&log.0.to_le_bytes());
    out[8..16].copy_from_slice(&mark.to_le_bytes());
    let crc = crc32c::crc32c(&out[..16]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out
}
