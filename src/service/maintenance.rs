//! Work on the journal of a stopped gateway.

use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::JournalConfig;
use crate::journal::disk::Disk;
use crate::journal::{Environment, Journal, OpenError, Options, RenewedIdentity, SystemRandom};
use crate::metrics::Metrics;

/// Gives up the events of a topic below sequence `below`, and returns the number of events that waited. `forwards` is true if
/// `[kafka]` is configured.
pub fn give_up_events(
    journal: &JournalConfig,
    forwards: bool,
    disk: Arc<dyn Disk>,
    topic: &str,
    below: u64,
) -> Result<u64, OpenError> {
    let options = Options { limits: journal.limits, forwards, ..Options::default() };
    Journal::give_up(environment(disk), options, topic, below)
}

/// Draws another id for a journal whose volume was cloned.
pub fn renew_journal_identity(journal: &JournalConfig, disk: Arc<dyn Disk>) -> Result<RenewedIdentity, OpenError> {
    // An opening with `forwards` would give a cursor to every topic, so the next start without `[kafka]` would find a backlog.
    let options = Options { limits: journal.limits, forwards: false, ..Options::default() };
    Journal::renew_identity(environment(disk), options)
}

fn environment(disk: Arc<dyn Disk>) -> Environment {
    Environment { disk, clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), metrics: Arc::new(Metrics::new()) }
}
