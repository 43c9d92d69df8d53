//! Replaces the Kafka client when a file on which it depends has changed, such as a renewed certificate or a new password. Needs no
//! SIGHUP. Applies only the contents of the files, and not a changed configuration file.

use std::future;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::{Service, settings};
use crate::forward;

/// Detector of changed files. Compares the hash of the files with the hash at the last check.
#[derive(Default)]
struct FileChecks {
    last: Option<u64>,
    /// Hash for which hookhold has already reported that the files cannot be used.
    reported: Option<u64>,
    /// True if hookhold has already reported that a file cannot be read.
    is_unreadable: bool,
}

impl Service {
    /// Checks the files of the Kafka client at an interval. Never returns. Only a thread of its own takes the lock on the
    /// configuration, which a reload may hold for long.
    pub(super) async fn watch_kafka_files(&self) {
        let mut interval = interval(FILE_CHECK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checks = FileChecks::default();
        loop {
            interval.tick().await;
            let service = self.clone();
            let check = move || {
                service.check_kafka_files(&mut checks);
                checks
            };
            let Ok(next) = spawn_blocking(check).await else { return future::pending().await }; // the runtime is shutting down
            checks = next;
        }
    }

    /// Replaces the Kafka client if the files differ from those for which it was created. Waits until two checks in turn find the
    /// same contents, because a renewal writes several files one after the other. If librdkafka rejects the files, the client stays
    /// as it is.
    fn check_kafka_files(&self, checks: &mut FileChecks) {
        let mut config = self.config();
        let Some(kafka) = &config.kafka else { return };
        let next = match kafka.read_again() {
            Ok(next) => next,
            Err(error) => {
                if !std::mem::replace(&mut checks.is_unreadable, true) {
                    tracing::error!(error, "cannot read a file of the Kafka client; the client stays in use");
                }
                return;
            }
        };
        checks.is_unreadable = false;
        let is_stable = checks.last.replace(next.fingerprint) == Some(next.fingerprint);
        if !is_stable || next.fingerprint == kafka.fingerprint {
            return;
        }
        if let Some(error) = forward::check_settings(&next.librdkafka) {
            if checks.reported.replace(next.fingerprint) != Some(next.fingerprint) {
                tracing::error!(error, "cannot use the changed files of the Kafka client; the client stays in use");
            }
            return;
        }
        config.kafka = Some(next);
        tracing::info!("files of the Kafka client have changed; the client starts again");
        if let Some(settings) = settings::forward_settings(&config) {
            self.0.forwarding.apply(settings);
        }
    }
}

/// Interval between two checks of the files.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(10);
