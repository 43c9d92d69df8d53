//! Time and random numbers of a simulated machine.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hookhold::clock::{Clock, UnixMillis};
use hookhold::journal::Random;

/// Clock that only the simulation advances.
pub struct SimClock {
    wall_ms: AtomicU64,
    uptime_ms: AtomicU64,
}

/// Random numbers that a seed determines.
pub struct SimRandom(Mutex<fastrand::Rng>);

impl SimClock {
    /// Creates a clock at a time in November 2023, an hour after the machine has started.
    pub fn new() -> SimClock {
        SimClock { wall_ms: AtomicU64::new(START_OF_WALL_MS), uptime_ms: AtomicU64::new(START_MS) }
    }

    /// Advances the wall-clock time and the uptime by this number of milliseconds.
    pub fn advance(&self, millis: u64) {
        self.wall_ms.fetch_add(millis, Ordering::Relaxed);
        self.uptime_ms.fetch_add(millis, Ordering::Relaxed);
    }

    /// Moves only the wall-clock time, by this number of milliseconds.
    pub fn jump(&self, millis: i64) {
        let jump = |now: u64| Some(now.saturating_add_signed(millis).max(1));
        let _ = self.wall_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, jump);
    }

    /// Returns the milliseconds that have passed since the life began.
    pub fn elapsed_ms(&self) -> u64 {
        self.uptime_ms.load(Ordering::Relaxed) - START_MS
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.wall_ms.load(Ordering::Relaxed))
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime_ms.load(Ordering::Relaxed))
    }
}

impl SimRandom {
    pub fn new(seed: u64) -> SimRandom {
        SimRandom(Mutex::new(fastrand::Rng::with_seed(seed)))
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("no test panics while it holds this lock").u64(..))
    }
}

/// Wall-clock time at the start of a life, in Unix milliseconds.
pub const START_OF_WALL_MS: u64 = 1_700_000_000_000;
const START_MS: u64 = 3_600_000;
