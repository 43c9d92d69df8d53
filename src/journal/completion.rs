//! Completions.

use super::errors::AppendError;
use crate::event::Position;

/// Called once with the end of an append, on a thread of the journal or by its [`CompletionRunner`]: must not block.
pub type Completion = Box<dyn FnOnce(Result<Position, AppendError>) + Send>;

/// Called after every commit. False: it has nothing to watch for any more.
pub type CommitWatcher = Box<dyn Fn() -> bool + Send + Sync>;

/// Tells the ends of one commit's events.
pub type CompletionBatch = Box<dyn FnOnce() + Send>;

/// Takes a [`CompletionBatch`] to run it elsewhere, soon; gives it back where that cannot be.
pub type CompletionRunner = Box<dyn Fn(CompletionBatch) -> Result<(), CompletionBatch> + Send + Sync>;
