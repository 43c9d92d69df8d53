//! Handles the signals of `hookhold run`: SIGTERM and SIGINT stop the gateway, SIGHUP reloads its configuration, and SIGUSR2 starts
//! an upgrade.

use std::io;

use hookhold::server::Shutdown;
use hookhold::service::{LAST_RESPONSES, Service};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use super::super::ExitStatus;
use super::service_manager;
use super::upgrade::UpgradeCommand;

/// Receivers of the signals that must not end the process during its start.
pub(super) struct EarlySignals {
    hangups: Signal,
    upgrades: Signal,
}

impl EarlySignals {
    /// Starts to catch the signals. Must be called inside a tokio runtime.
    pub(super) fn catch() -> io::Result<EarlySignals> {
        Ok(EarlySignals { hangups: signal(SignalKind::hangup())?, upgrades: signal(SignalKind::user_defined2())? })
    }
}

/// Starts the task that handles the signals until the process ends.
pub(super) fn handle(service: Service, shutdown: Shutdown, early: EarlySignals, upgrade: UpgradeCommand) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let EarlySignals { mut hangups, mut upgrades } = early;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangups.recv() => {
                    let service = service.clone();
                    spawn_blocking(move || {
                        service_manager::reloading();
                        service.reload();
                        service_manager::ready();
                    });
                    continue;
                }
                _ = upgrades.recv() => {
                    upgrade.start();
                    continue;
                }
            };
            let again = shutdown.begun();
            tracing::info!(signal = name, again, "stopping; a second signal ends the process at once");
            service_manager::stopping();
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
