//! Notices Ctrl-C and SIGTERM, so that a replay ends in an orderly way.

use std::io;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::super::ExitStatus;

/// Receives the request to stop, with the exit status for it.
#[derive(Clone)]
pub(super) struct StopSignal(watch::Receiver<Option<ExitStatus>>);

impl StopSignal {
    /// Starts to listen for both signals. A task of `runtime` waits for them.
    pub(super) fn listen(runtime: &Runtime) -> io::Result<StopSignal> {
        let _context = runtime.enter();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (sender, receiver) = watch::channel(None);
        runtime.spawn(async move {
            let status = tokio::select! {
                _ = interrupt.recv() => ExitStatus::Interrupted,
                _ = terminate.recv() => ExitStatus::Terminated,
            };
            sender.send_replace(Some(status));
            // The receivers need the sender until the process ends.
            std::future::pending::<()>().await;
        });
        Ok(StopSignal(receiver))
    }

    /// Returns the exit status if the replay must stop.
    pub(super) fn requested(&self) -> Option<ExitStatus> {
        *self.0.borrow()
    }

    /// Waits for the request to stop.
    pub(super) async fn wait(&mut self) {
        // The sender exists until the process ends.
        let _ = self.0.wait_for(Option::is_some).await;
    }

    /// Waits for the request to stop, but not beyond `until`.
    pub(super) async fn wait_until(&mut self, until: Instant) {
        let _ = timeout_at(until.into(), self.wait()).await;
    }
}
