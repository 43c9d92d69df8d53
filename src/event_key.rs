//! The dedupe key of an event, and a hasher for maps whose keys are dedupe keys.

use std::fmt;
use std::hash::Hasher;

/// A keyed 128-bit hash of the fields that identify an event. The journal's meta file contains the random key of the hash
/// function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(pub [u8; 16]);

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventKey({})", base16ct::lower::encode_string(&self.0))
    }
}

/// A hasher that returns the last eight bytes of an [`EventKey`] as the hash. The hasher resists collision attacks only because
/// event keys are keyed hashes: a sender can choose event ids, but cannot find event ids whose keys collide.
#[derive(Default)]
pub struct PassThroughHasher(u64);

impl Hasher for PassThroughHasher {
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
