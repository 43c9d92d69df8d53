//! Counts the work that a delivery causes, in hashed bytes. The server charges the work of a rejected delivery to the address of
//! its sender.

use std::cell::Cell;

/// The work of one verification. Values that the verifier only compares or copies do not count.
#[derive(Default)]
pub(super) struct Work(Cell<usize>);

impl Work {
    /// Adds bytes that the verifier hashes or parses.
    pub(super) fn add(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_add(bytes));
    }

    /// Adds the check of one signature with one public key.
    pub(super) fn add_public_key_check(&self) {
        self.add(PUBLIC_KEY_CHECK_BYTES);
    }

    /// Returns the work so far, in hashed bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.get()
    }
}

/// Number of hashed bytes that take as long as the check of one signature with one public key, which is 30 to 60 µs for the
/// usual key sizes.
const PUBLIC_KEY_CHECK_BYTES: usize = 64 << 10;
