//! Handles the signals of `hookhold run`: SIGTERM and SIGINT stop the gateway, and SIGHUP reloads its configuration.

use std::io;

use hookhold::server::Shutdown;
use hookhold::service::{LAST_RESPONSES, Service};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use super::super::ExitStatus;

/// Starts the task that handles the signals until the process ends. `hangups` is the receiver of SIGHUP.
pub(super) fn handle(service: Service, shutdown: Shutdown, mut hangups: Signal) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangups.recv() => {
                    let service = service.clone();
                    spawn_blocking(move || service.reload());
                    continue;
                }
            };
            let again = shutdown.begun();
            tracing::info!(signal = name, again, "stopping; a second signal ends the process at once");
            shutdown.signal();
            if again {
                tokio::spawn(exit_by_force());
            }
        }
    });
    Ok(())
}

/// Ends the process even if a disk or a broker hangs. Every delivery that hookhold answered with 2xx is already on disk.
async fn exit_by_force() {
    tokio::time::sleep(LAST_RESPONSES).await;
    tracing::warn!("shutdown timed out; exiting");
    std::process::exit(ExitStatus::Failed as i32);
}
