//! Callbacks of the journal: completions of appends, and watchers of commits.

use std::sync::{Mutex, OnceLock};

use super::POISON;
use super::errors::AppendError;
use crate::event::Position;

/// Callback for the result of an accepted append. Runs once, on a journal thread or in the journal's [`CompletionRunner`]. Must
/// not block.
pub type Completion = Box<dyn FnOnce(Result<Position, AppendError>) + Send>;

/// Callback that runs after every commit until the callback returns false.
pub type CommitWatcher = Box<dyn Fn() -> bool + Send + Sync>;

/// Function that runs the completions of one commit.
pub type CompletionBatch = Box<dyn FnOnce() + Send>;

/// Function that passes a [`CompletionBatch`] to another task or thread. Returns the batch if no task or thread can run it.
pub type CompletionRunner = Box<dyn Fn(CompletionBatch) -> Result<(), CompletionBatch> + Send + Sync>;

/// Commit watchers and completion runner of a journal.
#[derive(Default)]
pub(super) struct CommitListeners {
    watchers: Mutex<Vec<CommitWatcher>>,
    runner: OnceLock<CompletionRunner>,
}

impl CommitListeners {
    pub(super) fn add_watcher(&self, watcher: CommitWatcher) {
        self.watchers.lock().expect(POISON).push(watcher);
    }

    /// Sets the completion runner; only the first call has an effect.
    pub(super) fn set_runner(&self, runner: CompletionRunner) {
        drop(self.runner.set(runner));
    }

    /// Passes a batch of completions to the runner. If there is no runner, or if the runner returns the batch, runs the batch
    /// on the current thread.
    pub(super) fn complete(&self, batch: CompletionBatch) {
        let accepted = match self.runner.get() {
            Some(runner) => runner(batch),
            None => Err(batch),
        };
        if let Err(batch) = accepted {
            batch();
        }
    }

    /// Calls all watchers. Removes each watcher that returns false.
    pub(super) fn notify_watchers(&self) {
        self.watchers.lock().expect(POISON).retain(|watcher| watcher());
    }
}
