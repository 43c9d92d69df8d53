//! The steps of a journal that has no threads: [`Journal::open_in_steps`] opens it, and the caller
//! performs the steps of the writer and of the background work.

use std::sync::Arc;

use super::writer::{CommitWriter, WriterStep};
use super::{Journal, Shared, background};

/// The writer of a journal that has no threads. The caller performs its steps.
pub struct WriterSteps(pub(super) CommitWriter);

/// The background work of a journal that has no threads. The caller performs its steps.
pub struct BackgroundSteps(pub(super) Arc<Shared>);

impl Journal {
    /// Closes a journal that [`Journal::open_in_steps`] has opened, and performs all steps that are still necessary.
    pub(super) fn close_in_steps(&self, mut writer: WriterSteps, mut background: BackgroundSteps) {
        self.close();
        loop {
            match writer.step() {
                WriterStep::Ended => return,
                // The writer needs space that only the background work can free.
                WriterStep::WaitsForTask(_) => _ = background.step(),
                WriterStep::Idle | WriterStep::Saved => {}
            }
        }
    }
}

impl WriterSteps {
    /// Saves the next batch of the queue if one is due.
    pub fn step(&mut self) -> WriterStep {
        self.0.step()
    }
}

impl BackgroundSteps {
    /// Performs the next task if one is due, and then the periodic checks. Returns false if no task was due or the journal is
    /// closed.
    pub fn step(&mut self) -> bool {
        background::step(&self.0)
    }
}
