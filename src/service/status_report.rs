//! Builds the report of `/api/status` from the state of the running service.

use prometheus::core::Collector;

use super::{Service, forwarding, has_rejections};
use crate::admin::{StatusJournal, StatusLoss, StatusProblem, StatusReport, StatusSource, StatusTopic};
use crate::clock::UnixMillis;
use crate::forward::{self, Blocked, ConnectionFailure, ConnectionSnapshot, TopicSnapshot};
use crate::outcome::Outcome;

/// Builds the report.
pub(super) fn report(service: &Service) -> StatusReport {
    service.journal().update_metrics();
    let metrics = &service.metrics().journal;
    let forwarding = service.forwarding();
    let count = |gauge: i64| gauge.unsigned_abs();
    StatusReport {
        process: Some(service.0.facts.process(service.0.clock.now(), service.0.shutdown.begun())),
        lost_events: service.journal().lost_events(),
        losses: losses(service),
        problems: problems(service, forwarding.as_ref()),
        journal: StatusJournal {
            dir: service.0.facts.journal_dir.clone(),
            events: count(metrics.events.get()),
            bytes: count(metrics.bytes.get()),
            max_bytes: count(metrics.limit_bytes.get()),
            next_seq: service.journal().durable_watermark(),
        },
        kafka: forwarding.as_ref().map_or("off", |status| connection_word(&status.connection)).to_owned(),
        topics: forwarding.iter().flat_map(|status| &status.topics).map(|topic| self::topic(service, topic)).collect(),
        sources: service.gateway().source_names().iter().map(|name| source(service, name)).collect(),
        parked_events: count(metrics.parked_events.get()),
        parked_bytes: count(metrics.parked_bytes.get()),
        has_stored_rejections: has_rejections(service.0.disk.clone()),
    }
}

fn losses(service: &Service) -> Vec<StatusLoss> {
    let families = service.metrics().journal.lost_events.collect();
    let causes = families.iter().flat_map(|family| family.get_metric()).map(|metric| StatusLoss {
        cause: metric.get_label().first().map(|label| label.value().to_owned()).unwrap_or_default(),
        events: metric.get_counter().get_value() as u64,
    });
    causes.filter(|loss| loss.events > 0).collect()
}

fn problems(service: &Service, forwarding: Option<&forward::Status>) -> Vec<StatusProblem> {
    let journal = service.journal();
    let mut problems = Vec::new();
    let unavailable = journal.unavailable_reason(service.0.facts.patience);
    problems.extend(unavailable.map(|reason| StatusProblem::from_message("journal", reason)));
    match forwarding {
        Some(status) => problems.extend(forwarding_problems(service, status)),
        None => problems.extend(service.0.forwarding.unforwarded().iter().map(|waiting| {
            let what = format!("topic {}", waiting.topic);
            StatusProblem::from_message(&what, &forwarding::unforwarded(waiting))
        })),
    }
    problems.extend(journal.degraded_reason().map(|reason| StatusProblem::from_message("dedupe keys", reason)));
    problems.extend(StatusProblem::of_parked(service.metrics().journal.parked_events.get().unsigned_abs()));
    problems.extend(service.gateway().source_names().iter().filter_map(|name| unverified(service, name)));
    if service.metrics().config.last_reload_successful.get() == 0 {
        let why = "the last reload has changed nothing, because the file is invalid or a change needs a restart";
        problems.push(problem("configuration", None, why, "run `hookhold check --diff`"));
    }
    problems
}

fn forwarding_problems(service: &Service, status: &forward::Status) -> Vec<StatusProblem> {
    let mut problems = Vec::new();
    if !status.running {
        problems.push(problem("forwarder", None, "it has panicked and forwards nothing", "restart hookhold and report this bug"));
    }
    let ConnectionSnapshot { failure, seconds, .. } = &status.connection;
    problems.extend(failure.iter().map(|ConnectionFailure { reason, detail, remedy }| {
        problem("Kafka", Some(*seconds), &format!("{reason}: {detail}"), remedy)
    }));
    for topic in &status.topics {
        let what = format!("topic {}", topic.topic);
        let block = |Blocked { reason, detail, remedy, seconds }: &Blocked, scope: &str| {
            problem(&what, Some(*seconds), &format!("{reason}: {detail}{scope}"), remedy)
        };
        let is_unreachable = |blocked: &&Blocked| failure.as_ref().is_some_and(|failure| failure.reason == blocked.reason);
        problems.extend(topic.blocked.iter().map(|blocked| match Some(blocked).filter(is_unreachable) {
            Some(blocked) => problem(&what, Some(blocked.seconds), "its events wait for the Kafka cluster", ""),
            None => block(blocked, ""),
        }));
        problems.extend(topic.leaderless.iter().map(|blocked| block(blocked, "; hookhold sends the topic's other events")));
        let [bytes, limit] = backlog(service, &topic.topic);
        if limit > 0 && bytes > limit / 10 * 8 {
            let why =
                format!("its backlog takes {} % of its limit; at 100 %, hookhold answers 503", bytes.saturating_mul(100) / limit);
            let since = Some(topic.lag_seconds as u64);
            problems.push(problem(
                &what,
                since,
                &why,
                "remove the cause of the block, or raise journal.max_backlog and max_size",
            ));
        }
    }
    problems.extend(status.dead_letters.iter().map(|forward::DeadLetterProblem { topic, reason, detail, remedy, seconds }| {
        problem(&format!("dead-letter topic {topic}"), Some(*seconds), &format!("{reason}: {detail}"), remedy)
    }));
    problems
}

/// Returns the problem of a source that has rejected signatures, and has verified no delivery since the start.
fn unverified(service: &Service, name: &str) -> Option<StatusProblem> {
    let deliveries = &service.metrics().deliveries;
    let count = |outcome: Outcome| deliveries.total.with_label_values(&[name, outcome.word()]).get();
    let rejected = count(Outcome::SignatureMismatch) + count(Outcome::SignatureMissing) + count(Outcome::SignatureMalformed);
    let is_verified = deliveries.last_verified.with_label_values(&[name]).get() > 0.0;
    (rejected > 0 && !is_verified).then(|| {
        let why = format!("no delivery verified since the start, {rejected} rejected because of their signature");
        problem(&format!("source {name}"), None, &why, &format!("run `hookhold doctor {name}`"))
    })
}

fn problem(what: &str, seconds: Option<u64>, why: &str, remedy: &str) -> StatusProblem {
    StatusProblem { what: what.to_owned(), seconds, why: why.to_owned(), remedy: remedy.to_owned() }
}

fn topic(service: &Service, topic: &TopicSnapshot) -> StatusTopic {
    let [waiting_bytes, limit] = backlog(service, &topic.topic);
    let blocked = topic.blocked.as_ref().or(topic.leaderless.as_ref()).map(|blocked| blocked.reason);
    let state = if topic.lag_seconds >= BEHIND_SECONDS { "behind" } else { "ok" };
    StatusTopic {
        topic: topic.topic.clone(),
        waiting_events: topic.lag_events,
        waiting_bytes: if topic.lag_events == 0 { 0 } else { waiting_bytes },
        limit_bytes: Some(limit).filter(|limit| *limit > 0),
        oldest_seconds: (topic.lag_events > 0).then_some(topic.lag_seconds as u64),
        acknowledged_at: topic.last_ack.map(UnixMillis::rfc3339),
        state: blocked.unwrap_or(state).to_owned(),
    }
}

/// Returns the size of a topic's backlog and its limit, in bytes.
fn backlog(service: &Service, topic: &str) -> [u64; 2] {
    let metrics = &service.metrics().journal;
    [&metrics.pinned_bytes, &metrics.backlog_limit].map(|gauges| gauges.with_label_values(&[topic]).get().unsigned_abs())
}

fn source(service: &Service, name: &str) -> StatusSource {
    let deliveries = &service.metrics().deliveries;
    let count = |outcome: &Outcome| deliveries.total.with_label_values(&[name, outcome.word()]).get();
    let is_rejection = |outcome: &&Outcome| !outcome.is_accepted() && **outcome != Outcome::Challenge;
    let verified = deliveries.last_verified.with_label_values(&[name]).get();
    StatusSource {
        source: name.to_owned(),
        stored: count(&Outcome::Stored),
        duplicates: count(&Outcome::Duplicate),
        rejected: Outcome::ALL.iter().filter(is_rejection).map(count).sum(),
        verified_at: (verified > 0.0).then(|| UnixMillis((verified * 1000.0) as u64).rfc3339()),
    }
}

fn connection_word(connection: &ConnectionSnapshot) -> &'static str {
    match (&connection.failure, connection.connected) {
        (Some(_), _) => "failed",
        (None, true) => "connected",
        (None, false) => "connecting",
    }
}

/// Age of the oldest waiting event from which a topic is behind, in seconds.
const BEHIND_SECONDS: f64 = 60.0;
