//! The hash that identifies an event, and the hasher for maps keyed by it.

use std::fmt;
use std::hash::Hasher;

/// A keyed 128-bit hash of what identifies an event. Its hash key lives in the journal's meta file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(pub [u8; 16]);

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventKey({})", base16ct::lower::encode_string(&self.0))
    }
}

/// Event keys are keyed hashes already, so eight of their bytes are as good as any hash of them. Safe only because the hash
/// is keyed: a sender may choose its ids.
#[derive(Default)]
pub struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn write_usize(&mut self, _length_prefix: usize) {}
}
