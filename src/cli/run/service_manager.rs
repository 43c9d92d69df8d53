//! Tells the service manager (`NOTIFY_SOCKET`, systemd's `Type=notify`) about the start, the reload and the stop. Does nothing without
//! a service manager.

use sd_notify::NotifyState;

/// Tells that this process has started or has reloaded, and that it is the main process of the service.
pub(super) fn ready() {
    send(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// Tells that a reload has begun. [`ready`] ends it.
pub(super) fn reloading() {
    // systemd needs the time to match the reload with its own request.
    let time = NotifyState::monotonic_usec_now();
    send(&[Some(NotifyState::Reloading), time.ok()].into_iter().flatten().collect::<Vec<_>>());
}

/// Tells that another process is the main process of the service from now on. The service manager listens to this process as long
/// as it is the main one.
pub(super) fn succeeded_by(process: u32) {
    send(&[NotifyState::MainPid(process)]);
}

/// Tells that a shutdown has begun.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "NOTIFY_SOCKET: expected a service manager that reads it, found none; correct the variable");
    }
}
