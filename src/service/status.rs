//! Answers the queries of the admin pages from the state of the running service.

use std::time::Duration;

use super::{Service, forwarding, status_report, stored_rejections};
use crate::admin::{AdminQueries, ComponentHealth, HealthState, Readiness, ReleaseError, StatusReport};
use crate::clock::UnixMillis;
use crate::forward::{self, Blocked, ConnectionFailure};
use crate::journal::{Journal, UnforwardedEvents};

impl AdminQueries for Service {
    fn render_metrics(&self) -> String {
        let (gateway, metrics) = (self.gateway(), self.metrics());
        self.journal().update_metrics();
        gateway.update_metrics();
        metrics.journal.dedupe_hot_keys.set(gateway.hot_keys() as i64);
        self.0.forwarding.measure();
        metrics.render()
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            draining: self.0.shutdown.begun(),
            journal: journal_health(self.journal(), self.0.facts.patience),
            kafka: self.forwarding().map_or_else(|| health_without_kafka(&self.0.forwarding.unforwarded()), kafka_health),
        }
    }

    fn status(&self) -> StatusReport {
        status_report::report(self)
    }

    fn changes(&self) -> String {
        self.preview_reload()
    }

    fn rejections(&self, source: Option<&str>) -> Option<String> {
        let queue = self.gateway().rejections().queue();
        let limits = queue.limits();
        if limits.keep_rejected == 0 {
            return None;
        }
        queue.flush(LAST_REJECTIONS);
        let not_before = UnixMillis(self.0.clock.now().0.saturating_sub(limits.keep_rejected_for.as_millis() as u64));
        let page = stored_rejections::page(self.0.disk.clone(), source, not_before);
        Some(page.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the files with rejected deliveries");
            String::new()
        }))
    }

    fn release(&self, topic: &str, below: u64) -> Result<u64, ReleaseError> {
        let config = self.config();
        if let Some(source) = config.sources.iter().find(|source| source.topics.include(topic)).filter(|_| config.kafka.is_some())
        {
            return Err(ReleaseError::StillForwarded { topic: topic.to_owned(), name: source.name.to_string() });
        }
        let below = below.min(self.journal().durable_watermark());
        let found = self.journal().topic_cursors().into_iter().find(|known| &*known.name == topic);
        let known = found.ok_or_else(|| ReleaseError::UnknownTopic(topic.to_owned()))?;
        let events = self.journal().count(topic, known.cursor, below);
        if known.cursor < below {
            tracing::warn!(topic, events, from = known.cursor, below, "gave up the waiting events of a topic");
            self.0.forwarding.release(&known.name, below);
            self.0.forwarding.unforwarded().retain(|waiting| waiting.topic != known.name);
        }
        Ok(events)
    }
}

/// Returns the health of the journal. Damaged key files make the state `Degraded`, because the journal continues to store events.
fn journal_health(journal: &Journal, patience: Duration) -> ComponentHealth {
    let health = |state, reason: &str| ComponentHealth::or(state, vec![reason.to_owned()]);
    match (journal.unavailable_reason(patience), journal.degraded_reason()) {
        (Some(reason), _) => health(HealthState::Failed, reason),
        (None, Some(reason)) => health(HealthState::Degraded, reason),
        (None, None) => ComponentHealth::ok(),
    }
}

/// Returns the health of forwarding if no forwarder runs. Events that still wait for Kafka make the state `Degraded`.
fn health_without_kafka(unforwarded: &[UnforwardedEvents]) -> ComponentHealth {
    match unforwarded {
        [] => ComponentHealth::off(),
        waiting => ComponentHealth::or(HealthState::Degraded, waiting.iter().map(forwarding::unforwarded).collect()),
    }
}

/// Returns the health of forwarding to Kafka. A blocked topic, a partition without a leader, or a cluster that does not answer makes the
/// state `Degraded` and not `Failed`, because the journal continues to store events.
fn kafka_health(status: forward::Status) -> ComponentHealth {
    if !status.running {
        let panicked = "the forwarder panicked; restart hookhold and report this bug";
        return ComponentHealth::or(HealthState::Failed, vec![panicked.to_owned()]);
    }
    let blocked = status.topics.iter().flat_map(|topic| {
        let line = move |Blocked { reason, detail, remedy, seconds }: &Blocked, scope: &str| {
            format!("{}: {reason} for {seconds} s: {detail}; {scope}{remedy}", topic.topic)
        };
        let scope = if topic.blocked.is_none() { "hookhold sends the topic's other events; " } else { "" };
        let leaderless = topic.leaderless.iter().map(move |block| line(block, scope));
        topic.blocked.iter().map(move |block| line(block, "")).chain(leaderless)
    });
    let problems = connection_problem(&status.connection).into_iter().chain(blocked);
    ComponentHealth::or(HealthState::Degraded, problems.chain(status.dead_letters.as_ref().map(dead_letter_problem)).collect())
}

fn dead_letter_problem(problem: &forward::DeadLetterProblem) -> String {
    let forward::DeadLetterProblem { topic, reason, detail, remedy, seconds } = problem;
    format!("dead-letter topic {topic}: {reason} for {seconds} s: {detail}; {remedy}")
}

/// Returns the problem of the connection to the Kafka cluster; `None` if the cluster answers.
fn connection_problem(connection: &forward::ConnectionSnapshot) -> Option<String> {
    let seconds = connection.seconds;
    match &connection.failure {
        Some(ConnectionFailure { reason, detail, remedy }) => Some(format!("{reason} for {seconds} s: {detail}; {remedy}")),
        None if connection.connected => None,
        None => Some(format!("connecting to the Kafka cluster for {seconds} s")),
    }
}

/// Maximum time for which the page with the rejections waits until the newest ones are on disk.
const LAST_REJECTIONS: Duration = Duration::from_secs(5);
