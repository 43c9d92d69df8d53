//! Content of the lock file. While a process has the journal open for writing, the writer publishes the durable watermark at
//! the start of this file, and other processes read the watermark there.

use crate::event::LogId;

/// Name of the lock file.
pub(super) const LOCK_FILE: &str = "lock";

/// Number of bytes that the writer publishes at the start of the lock file.
pub(super) const PUBLISHED_LEN: usize = 24;

/// Encodes the published bytes: the log id, the durable watermark and a checksum of both.
pub(super) fn encode_watermark(log: LogId, watermark: u64) -> [u8; PUBLISHED_LEN] {
    let mut out = [0; PUBLISHED_LEN];
    out[..8].copy_from_slice(&log.0.to_le_bytes());
    out[8..16].copy_from_slice(&watermark.to_le_bytes());
    let crc = crc32c::crc32c(&out[..16]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Decodes the durable watermark from the published bytes; `None` if the checksum does not match, for example because the
/// writer is updating the bytes.
pub(super) fn decode_watermark(bytes: &[u8; PUBLISHED_LEN]) -> Option<u64> {
    let is_valid = bytes[16..20] == crc32c::crc32c(&bytes[..16]).to_le_bytes();
    is_valid.then(|| u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes")))
}
