//! Takes the listening sockets that the service manager has passed to this process (`LISTEN_FDS`, systemd's socket activation).
//! The service manager holds these sockets open over a restart, so that the kernel queues new connections in the meantime.

use std::env;

use hookhold::service::OpenSockets;
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::super::UsageError;

/// Takes the passed sockets. Removes the environment variables of the protocol, so the caller must not have started a thread yet.
pub(super) fn take() -> Result<OpenSockets, UsageError> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    let names: Vec<&str> = names.split(':').filter(|_| !names.is_empty()).collect();
    let mut sockets = OpenSockets::default();
    for index in 0..count {
        let name = name_of(names.get(index).copied(), count)?;
        let socket = passed.take_tcp_listener(index).ok().flatten().filter(|socket| socket_acceptconn(socket).unwrap_or(false));
        let socket = socket.ok_or_else(|| {
            UsageError(format!("LISTEN_FDS: expected a listening TCP socket {name}, found another descriptor; use ListenStream="))
        })?;
        let place = if name == DELIVERIES { &mut sockets.deliveries } else { &mut sockets.admin };
        if place.replace(socket).is_some() {
            return Err(UsageError(format!(
                "LISTEN_FDNAMES: expected one socket {name}, found several; give each a name of its own"
            )));
        }
    }
    Ok(sockets)
}

/// Logs the address of each passed socket.
pub(super) fn log(sockets: &OpenSockets) {
    for (name, socket) in [(DELIVERIES, &sockets.deliveries), (ADMIN, &sockets.admin)] {
        if let Some(address) = socket.as_ref().and_then(|socket| socket.local_addr().ok()) {
            tracing::info!(socket = name, %address, "the service manager has passed this listening socket");
        }
    }
}

/// Returns the name of a passed socket: [`DELIVERIES`] or [`ADMIN`].
fn name_of(name: Option<&str>, count: usize) -> Result<&'static str, UsageError> {
    match name {
        Some(DELIVERIES) => Ok(DELIVERIES),
        Some(ADMIN) => Ok(ADMIN),
        // Without FileDescriptorName, systemd passes the name of the socket unit.
        None | Some("" | "unknown") if count == 1 => Ok(DELIVERIES),
        Some(unit) if count == 1 && unit.ends_with(".socket") => Ok(DELIVERIES),
        other => {
            let found = other.unwrap_or_default().escape_debug();
            Err(UsageError(format!(
                "LISTEN_FDNAMES: expected {DELIVERIES} or {ADMIN} for each of {count} sockets, found \"{found}\"; set \
                 FileDescriptorName= in each socket unit"
            )))
        }
    }
}

const DELIVERIES: &str = "deliveries";
const ADMIN: &str = "admin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_socket_needs_no_name() {
        for unnamed in [None, Some(""), Some("unknown"), Some("hookhold.socket")] {
            assert_eq!(name_of(unnamed, 1).map_err(|error| error.0), Ok(DELIVERIES));
            assert!(name_of(unnamed, 2).is_err_and(|error| error.0.contains("FileDescriptorName=")));
        }
        assert_eq!(name_of(Some(ADMIN), 1).map_err(|error| error.0), Ok(ADMIN));
        assert!(name_of(Some("hooks"), 1).is_err_and(|error| error.0.contains("found \"hooks\"")));
    }
}
