//! Random numbers for log ids, segment ids and the hash key.

use std::io;

/// Source of random numbers. The numbers of [`SystemRandom`] are unpredictable. A simulation replaces it, so that a seed repeats
/// a run exactly.
pub trait Random: Send + Sync {
    /// Returns the next random number.
    fn next_u64(&self) -> io::Result<u64>;
}

/// Random numbers from the operating system.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }
}
