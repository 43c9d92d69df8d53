//! Tests the `service` module of the library: reloads and readiness.

#[path = "common/disk.rs"]
mod disk;
#[path = "common/harness.rs"]
mod harness;

use std::fs::File;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use disk::SimDisk;
use harness::{Harness, TestClock};
use hookhold::admin::{AdminQueries, HealthState};
use hookhold::source::{Source, SourceDefaults};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request while a reload hangs. A reload holds the lock on the configuration while the reload reads the file. In this
/// test, the file is a pipe that contains no data, so the read waits.
#[tokio::test]
async fn listeners_are_served_while_a_reload_hangs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("hookhold.toml");
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a temporary directory is writable");
    let mut config = harness::config(vec![source()]);
    config.path = file.clone();
    let mut harness = Harness::build(config, SimDisk::default(), TestClock::System);
    harness.serve();
    let service = harness.service.clone();
    let reload = thread::spawn(move || service.reload());
    // This call of `open` blocks until the reload opens the pipe for reading. At this point, no task has polled the listeners.
    let pipe = File::options().write(true).open(&file).expect("the reload reads the pipe");
    let (end_reload, reload_ends) = channel::<()>();
    let closer = thread::spawn(move || {
        let _ = reload_ends.recv_timeout(TIMEOUT);
        drop(pipe);
    });

    let mut connection = TcpStream::connect(harness.address()).await.expect("the listener is open");
    connection.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.expect("writable");
    let mut response = String::new();
    connection.read_to_string(&mut response).await.expect("the server closes without a reset");
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    assert!(!reload.is_finished(), "the listener is served only after the reload");

    drop(end_reload);
    closer.join().expect("the pipe is closed");
    reload.join().expect("a reload does not panic");
    assert_eq!(harness.metrics.config.last_reload_successful.get(), 0, "an empty file is no configuration");
}

#[tokio::test]
async fn damaged_key_files_degrade_the_readiness_and_reject_nothing() {
    let disk = SimDisk::default();
    // The name of a merged key file, but not its content.
    disk.put_file("merged-00000000000000ff.keys", b"damaged");
    let harness = Harness::build(harness::config(vec![source()]), disk, TestClock::System);
    let readiness = harness.service.readiness();
    assert_eq!(readiness.journal.state, HealthState::Degraded, "{readiness:?}");
    assert!(readiness.journal.details[0].contains("key files"), "{readiness:?}");
    assert!(readiness.is_ready(), "the journal stores events");
}

/// Returns a source of Stripe.
fn source() -> Source {
    let defaults = SourceDefaults {
        providers: Default::default(),
        public_url: None,
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: Duration::from_secs(8),
        window: Duration::from_secs(60),
    };
    harness::source("stripe", "whsec_only_for_tests", "provider = \"stripe\"", &defaults)
}

/// Maximum duration of the reload. The limit exists only to end a stuck test.
const TIMEOUT: Duration = Duration::from_secs(60);
