//! The harness for all tests that run a gateway inside the test process. The harness opens a [`Service`] with the disk and the
//! clock that the test passes in. Each suite adds methods to the harness.

#![allow(dead_code, reason = "each suite uses a part of this")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::config::{AdminConfig, Config, JournalConfig, ServerConfig};
use hookhold::gateway::Gateway;
use hookhold::journal::Journal;
use hookhold::limits::DedupeLimits;
use hookhold::metrics::Metrics;
use hookhold::server::{self, Shutdown};
use hookhold::service::{Listeners, ServeError, Service};
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use tokio::task::JoinHandle;

use crate::disk::SimDisk;

/// A gateway in the test process. [`Harness::serve`] opens the listeners. Dropping the harness closes the journal.
pub struct Harness {
    pub service: Service,
    pub gateway: Arc<Gateway>,
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    pub disk: SimDisk,
    pub clock: TestClock,
    pub shutdown: Shutdown,
    config: Config,
    serving: Option<Serving>,
}

struct Serving {
    address: SocketAddr,
    task: JoinHandle<Result<(), ServeError>>,
}

/// The system clock, or a clock that only the test advances. Clones of a clock share the same time.
#[derive(Clone)]
pub enum TestClock {
    System,
    Stopped(Arc<StoppedClock>),
    /// The system clock, which panics in the thread with this name.
    PanicsIn(&'static str),
}

/// Time of the wall clock and uptime, in milliseconds.
pub struct StoppedClock {
    wall_ms: AtomicU64,
    uptime_ms: AtomicU64,
}

impl Harness {
    /// Opens a service with this configuration, disk and clock.
    pub fn build(config: Config, disk: SimDisk, clock: TestClock) -> Harness {
        let shutdown = Shutdown::new();
        let service = Service::open(config.clone(), disk.start(), Arc::new(clock.clone()), shutdown.clone());
        let service = service.unwrap_or_else(|error| panic!("{error}"));
        let (gateway, journal, metrics) = (service.gateway().clone(), service.journal().clone(), service.metrics().clone());
        Harness { service, gateway, journal, metrics, disk, clock, shutdown, config, serving: None }
    }

    /// Stops the service cleanly, then opens a new service on the same disk.
    pub fn restarted(self) -> Harness {
        self.service.stop().expect("the journal works");
        self.killed()
    }

    /// Like [`Harness::restarted`], but calls `change` while no thread of the journal runs.
    pub fn restarted_after(self, change: impl FnOnce(&Harness)) -> Harness {
        self.service.stop().expect("the journal works");
        self.disk.kill();
        self.journal.close();
        change(&self);
        self.started_again()
    }

    /// Simulates `kill -9`, then opens a new service on the same disk.
    pub fn killed(self) -> Harness {
        self.disk.kill();
        self.started_again()
    }

    /// Simulates a power cut, then opens a new service on the same disk.
    pub fn after_power_cut(self) -> Harness {
        self.disk.cut_power();
        self.started_again()
    }

    fn started_again(self) -> Harness {
        // The simulated disk rejects every step of the killed process, so closing the journal only ends the journal's threads.
        self.journal.close();
        Harness::build(self.config.clone(), self.disk.clone(), self.clock.clone())
    }

    /// Opens both listeners on free ports and runs the servers in the Tokio runtime of the test.
    pub fn serve(&mut self) {
        let listen = || server::listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let listeners = Listeners { deliveries: listen(), admin: listen() };
        let address = listeners.deliveries.local_addr().expect("the listener is open");
        let serving = self.service.start(listeners).expect("a thread can be started");
        self.serving = Some(Serving { address, task: tokio::spawn(serving) });
    }

    /// Waits until the servers have ended, and returns their result. The service still runs.
    pub async fn served(&mut self) -> Result<(), ServeError> {
        let task = self.serving.take().expect("the harness serves").task;
        task.await.expect("serving does not panic")
    }

    /// Returns the address of the listener for deliveries.
    pub fn address(&self) -> SocketAddr {
        self.serving.as_ref().expect("the harness serves").address
    }

    /// Waits until the servers have shut down, then stops the service.
    pub async fn ended(mut self) {
        self.served().await.expect("the journal works");
        self.service.stop().expect("the journal works");
    }

    /// Returns the configuration of the service.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.service.stop_forwarding(Duration::ZERO);
        self.journal.close();
    }
}

impl TestClock {
    /// Returns a clock that is set to this time and that only the test advances.
    pub fn stopped_at(time: UnixMillis) -> TestClock {
        TestClock::Stopped(Arc::new(StoppedClock { wall_ms: AtomicU64::new(time.0), uptime_ms: AtomicU64::new(3_600_000) }))
    }

    /// Advances the clock by `time`. Panics if the clock is the system clock.
    pub fn advance(&self, time: Duration) {
        let millis = time.as_millis() as u64;
        self.stopped().wall_ms.fetch_add(millis, Ordering::Relaxed);
        self.stopped().uptime_ms.fetch_add(millis, Ordering::Relaxed);
    }

    /// Moves only the wall clock, by this number of milliseconds. Panics if the clock is the system clock.
    pub fn jump(&self, millis: i64) {
        self.stopped().wall_ms.fetch_add(millis as u64, Ordering::Relaxed);
    }

    fn stopped(&self) -> &StoppedClock {
        let TestClock::Stopped(clock) = self else { panic!("the system clock cannot be moved") };
        clock
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        match self {
            TestClock::System => SystemClock.now(),
            TestClock::Stopped(clock) => UnixMillis(clock.wall_ms.load(Ordering::Relaxed)),
            TestClock::PanicsIn(thread) => {
                assert_ne!(std::thread::current().name(), Some(*thread), "the test makes this thread panic");
                SystemClock.now()
            }
        }
    }

    fn uptime(&self) -> Duration {
        match self {
            TestClock::System | TestClock::PanicsIn(_) => SystemClock.uptime(),
            TestClock::Stopped(clock) => Duration::from_millis(clock.uptime_ms.load(Ordering::Relaxed)),
        }
    }
}

/// Returns a configuration with these sources. All other settings have their defaults, so Kafka and TLS are off.
pub fn config(sources: Vec<Source>) -> Config {
    Config {
        path: "hookhold.toml".into(),
        server: ServerConfig::default(),
        admin: AdminConfig::default(),
        journal: JournalConfig::default(),
        dedupe: DedupeLimits::default(),
        kafka: None,
        providers: Default::default(),
        sources: sources.into_iter().map(Arc::new).collect(),
        stated: BTreeMap::new(),
        references: BTreeMap::new(),
    }
}

/// Compiles the source `name`. Its only secret has the value `secret` and the name "secret". `entry` contains all other options
/// as TOML.
pub fn source(name: &str, secret: &str, entry: &str, defaults: &SourceDefaults) -> Source {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, secret).expect("a temporary directory is writable");
    let text = format!("secrets = [\"file:{}\"]\n{entry}", file.display());
    let diagnostics = Diagnostics::default();
    let source =
        TomlTable::parse("test", &text, &diagnostics).and_then(|entry| Source::compile(name, entry, defaults, &diagnostics));
    source.filter(|_| diagnostics.is_empty()).unwrap_or_else(|| panic!("{diagnostics}"))
}
