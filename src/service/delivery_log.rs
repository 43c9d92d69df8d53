//! Logs deliveries for the operator: one line per accepted delivery, or a summary per source and minute. The log of the server
//! contains a line for each rejection in any case.
//!
//! The lines of accepted deliveries contain the type and the id, which a thread of its own reads from the journal. A delivery
//! therefore never waits for its line: if the lines arrive too fast, the thread logs the number of omitted lines instead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use governor::{DefaultDirectRateLimiter, Quota};
use prometheus::IntCounterVec;
use prometheus::core::Collector;

use crate::answer::{Answer, AnswerWatcher};
use crate::journal::Journal;
use crate::log::escaped;
use crate::metrics::Metrics;
use crate::outcome::Outcome;

/// The lines of the log about accepted deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryLog {
    /// A line per delivery, at most [`LINES_PER_SECOND`] lines per second.
    Each,
    /// A line per source and minute, with the number of its deliveries. No line for a source without deliveries.
    Summary,
    /// Nothing.
    Off,
}

/// Running log of accepted deliveries.
pub(super) enum DeliveryLogger {
    Each(Arc<DeliveryLines>),
    Summary(DeliverySummary),
    Off,
}

impl DeliveryLogger {
    /// Starts the log. Fails if the process cannot start a thread.
    pub(super) fn start(log: DeliveryLog, journal: &Journal) -> io::Result<DeliveryLogger> {
        Ok(match log {
            DeliveryLog::Each => DeliveryLogger::Each(DeliveryLines::start(journal.clone())?),
            DeliveryLog::Summary => DeliveryLogger::Summary(DeliverySummary::default()),
            DeliveryLog::Off => DeliveryLogger::Off,
        })
    }

    /// Logs a summary in every [`SUMMARY_INTERVAL`], if this log consists of summaries. Never returns.
    pub(super) async fn summarize(&self, metrics: &Metrics) {
        let mut interval = tokio::time::interval(SUMMARY_INTERVAL);
        loop {
            interval.tick().await;
            if let DeliveryLogger::Summary(summary) = self {
                summary.log(metrics);
            }
        }
    }

    /// Logs the deliveries that have no line yet.
    pub(super) fn stop(&self, metrics: &Metrics) {
        match self {
            DeliveryLogger::Each(lines) => lines.stop(LAST_LINES),
            DeliveryLogger::Summary(summary) => summary.log(metrics),
            DeliveryLogger::Off => {}
        }
    }
}

/// Passes accepted deliveries to the thread that logs them.
pub(super) struct DeliveryLines {
    sender: SyncSender<LogRequest>,
    limiter: DefaultDirectRateLimiter,
    omitted: Arc<AtomicU64>,
}

/// Accepted delivery that gets a line.
struct AcceptedDelivery {
    source: String,
    remote: SocketAddr,
    outcome: Outcome,
    status: u16,
    seq: Option<u64>,
}

enum LogRequest {
    Delivery(AcceptedDelivery),
    /// Asks the thread to end, and to confirm it through this channel.
    End(SyncSender<()>),
}

impl DeliveryLines {
    /// Starts the thread that logs deliveries of `journal`. Fails if the process cannot start a thread.
    fn start(journal: Journal) -> io::Result<Arc<DeliveryLines>> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let omitted = Arc::<AtomicU64>::default();
        let quota = Quota::per_second(NonZeroU32::new(LINES_PER_SECOND).unwrap_or(NonZeroU32::MIN));
        let counter = omitted.clone();
        thread::Builder::new().name("delivery-log".into()).spawn(move || log_deliveries(&journal, &receiver, &counter))?;
        Ok(Arc::new(DeliveryLines { sender, limiter: DefaultDirectRateLimiter::direct(quota), omitted }))
    }

    /// Waits until the thread has logged all earlier deliveries, but at most `wait`. The thread then ends.
    fn stop(&self, wait: Duration) {
        let (done, ended) = sync_channel(1);
        if self.sender.try_send(LogRequest::End(done)).is_ok() {
            let _ = ended.recv_timeout(wait);
        }
    }
}

impl AnswerWatcher for DeliveryLines {
    fn answered(&self, source: &str, remote: SocketAddr, answer: &Answer) {
        if !answer.outcome.is_accepted() && answer.outcome != Outcome::Challenge {
            return;
        }
        let delivery = || AcceptedDelivery {
            source: source.to_owned(),
            remote,
            outcome: answer.outcome,
            status: answer.status.as_u16(),
            seq: answer.seq,
        };
        let is_sent = self.limiter.check().is_ok() && self.sender.try_send(LogRequest::Delivery(delivery())).is_ok();
        if !is_sent {
            self.omitted.fetch_add(1, Relaxed);
        }
    }
}

fn log_deliveries(journal: &Journal, receiver: &Receiver<LogRequest>, omitted: &AtomicU64) {
    loop {
        let request = receiver.recv_timeout(OMITTED_AFTER);
        match request {
            Ok(LogRequest::Delivery(delivery)) => log_delivery(journal, &delivery),
            Ok(LogRequest::End(done)) => {
                log_omitted(omitted);
                let _ = done.send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => log_omitted(omitted),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn log_delivery(journal: &Journal, delivery: &AcceptedDelivery) {
    let AcceptedDelivery { source, remote, outcome, status, seq } = delivery;
    let stored = seq.and_then(|seq| journal.reader(seq).next().ok().flatten().filter(|stored| stored.position.seq == seq));
    let event = stored.as_ref().map(|stored| &stored.event);
    let event_type = event.and_then(|event| event.event_type()).map(escaped);
    let id = event.and_then(|event| event.id()).map(escaped);
    let topic = event.map(|event| &**event.topic());
    let outcome = outcome.word();
    tracing::info!(source, outcome, status, r#type = event_type, id, seq, topic, %remote, "accepted");
}

fn log_omitted(omitted: &AtomicU64) {
    let count = omitted.swap(0, Relaxed);
    if count > 0 {
        tracing::info!(count, "further accepted deliveries have no line, because they arrived faster than {LINES_PER_SECOND}/s");
    }
}

/// Numbers of the deliveries of each source that the last summary has covered.
#[derive(Default)]
pub(super) struct DeliverySummary(Mutex<BTreeMap<(String, String), u64>>);

/// Deliveries of one source since the last summary.
#[derive(Debug, Default, PartialEq, Eq)]
struct SourceSummary {
    stored: u64,
    duplicates: u64,
    other_accepted: u64,
    rejected: u64,
}

impl DeliverySummary {
    /// Logs a line for each source that has had deliveries since the last call.
    fn log(&self, metrics: &Metrics) {
        for (source, SourceSummary { stored, duplicates, other_accepted, rejected }) in self.take(&metrics.deliveries.total) {
            tracing::info!(source, stored, duplicates, other_accepted, rejected, "deliveries since the last summary");
        }
    }

    fn take(&self, total: &IntCounterVec) -> BTreeMap<String, SourceSummary> {
        let mut covered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sources = BTreeMap::<String, SourceSummary>::new();
        for metric in total.collect().iter().flat_map(|family| family.get_metric()) {
            let label = |name: &str| {
                let found = metric.get_label().iter().find(|label| label.name() == name);
                found.map(|label| label.value().to_owned()).unwrap_or_default()
            };
            let (source, outcome) = (label("source"), label("outcome"));
            let count = metric.get_counter().get_value() as u64;
            let before = covered.insert((source.clone(), outcome.clone()), count).unwrap_or_default();
            if count > before {
                sources.entry(source).or_default().add(&outcome, count - before);
            }
        }
        sources
    }
}

impl SourceSummary {
    fn add(&mut self, outcome: &str, count: u64) {
        let field = match Outcome::of_word(outcome) {
            Some(Outcome::Stored) => &mut self.stored,
            Some(Outcome::Duplicate) => &mut self.duplicates,
            Some(Outcome::Filtered | Outcome::Challenge) => &mut self.other_accepted,
            _ => &mut self.rejected,
        };
        *field += count;
    }
}

/// Maximum number of lines per second about accepted deliveries.
const LINES_PER_SECOND: u32 = 100;
/// Maximum number of deliveries that wait for their line.
const MAX_WAITING: usize = 1024;
/// Time without a line after which the thread logs the number of omitted lines.
const OMITTED_AFTER: Duration = Duration::from_secs(1);
/// Maximum time for the last lines at the end.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Interval between two summaries.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_only_what_is_new() {
        let (metrics, summary) = (Metrics::new(), DeliverySummary::default());
        let total = &metrics.deliveries.total;
        metrics.deliveries.declare_source("quiet");
        let count = |outcome: Outcome, by| total.with_label_values(&["stripe", outcome.word()]).inc_by(by);
        count(Outcome::Stored, 3);
        count(Outcome::Duplicate, 2);
        count(Outcome::Challenge, 1);
        count(Outcome::SignatureMismatch, 4);
        count(Outcome::JournalFull, 1);
        let first = SourceSummary { stored: 3, duplicates: 2, other_accepted: 1, rejected: 5 };
        assert_eq!(summary.take(total), BTreeMap::from([("stripe".to_owned(), first)]));
        assert!(summary.take(total).is_empty());
        count(Outcome::Stored, 1);
        let second = SourceSummary { stored: 1, ..SourceSummary::default() };
        assert_eq!(summary.take(total), BTreeMap::from([("stripe".to_owned(), second)]));
    }
}
