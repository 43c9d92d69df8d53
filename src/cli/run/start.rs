//! Opens the journal of `hookhold run`, normally or by a hand-over from the running process.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookhold::config::Config;
use hookhold::journal::OpenError;
use hookhold::journal::disk::LocalDisk;
use hookhold::service::{HandoverOffer, HeldListeners, Listeners, OpenSockets, Preparation, ServeError, Service, StartError};
use tokio::runtime::Runtime;

/// Listeners with which a service starts.
pub(super) enum StartListeners {
    /// The process still has to open them, except for these sockets.
    ToOpen(OpenSockets),
    /// They already accept.
    Held(HeldListeners),
}

/// Opens the journal. If `take_over` is true and a process has the journal open, takes over its listening sockets first, and waits
/// until that process has closed the journal.
pub(super) fn open(
    runtime: &Runtime,
    preparation: &Preparation,
    (config, disk): (&Config, &Arc<LocalDisk>),
    sockets: OpenSockets,
    take_over: bool,
) -> Result<(Service, StartListeners), Box<dyn Error>> {
    let _entered = runtime.enter();
    let offer = if take_over { runtime.block_on(HandoverOffer::request(&**disk, config))? } else { None };
    let Some(mut offer) = offer else {
        if take_over {
            tracing::info!(
                dir = %config.journal.dir.display(),
                "no running process offers a hand-over in this directory, so this process starts normally"
            );
        }
        return Ok((preparation.open()?, StartListeners::ToOpen(sockets)));
    };
    tracing::info!(process = offer.pid, version = offer.version, "taking over from the running process");
    // The sockets of the service manager are the same ones as those of the running process.
    drop(sockets);
    let listeners = Listeners::open(config, offer.take_sockets())?;
    runtime.block_on(offer.switch(config.server.limits.drain_delay))?;
    let held = HeldListeners::start(preparation, listeners)?;
    tracing::info!("accepting deliveries, and holding them until this process has the journal");
    runtime.block_on(offer.released(config.server.limits.request_deadline));
    match open_when_unlocked(preparation) {
        Ok(service) => Ok((service, StartListeners::Held(held))),
        Err(error) => {
            runtime.block_on(held.abandon());
            Err(error.into())
        }
    }
}

/// Opens the journal as soon as its lock is free. The kernel releases the lock of a process that has been killed a moment after it
/// closes the connections of that process.
fn open_when_unlocked(preparation: &Preparation) -> Result<Service, StartError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match preparation.open() {
            Err(StartError::Journal(OpenError::Locked)) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            opened => return opened,
        }
    }
}

/// Starts the service, and serves until a shutdown or a hand-over is complete.
pub(super) async fn serve(
    service: &Service,
    config: &Config,
    listeners: StartListeners,
    started: impl FnOnce() -> std::io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let served = match listeners {
        StartListeners::ToOpen(sockets) => {
            let serving = service.start(Listeners::open(config, sockets)?)?;
            started()?;
            serving.await
        }
        StartListeners::Held(held) => {
            let serving = service.start_held(held)?;
            started()?;
            serving.await
        }
    };
    match served {
        // `Service::stop` returns the journal's error again.
        Err(ServeError::Journal(_)) => Ok(()),
        served => Ok(served?),
    }
}

/// Maximum time for which a process that takes over waits for the journal's lock after the other process has ended.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const LOCK_RETRY: Duration = Duration::from_millis(5);
