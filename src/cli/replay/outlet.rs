//! The destination of a replay: a Kafka topic, the topics of the events, or a URL. A URL receives one event at a time.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use hookhold::clock::{Clock, SystemClock};
use hookhold::event::Position;
use hookhold::forward::{LOG, REPLAY, REPLAYED_AT, Replayer, SEQ, Settings};
use hookhold::journal::StoredEvent;
use hookhold::units::duration_text;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::super::event_post::EventPost;
use super::stop_signal::StopSignal;

/// Sends the events of a replay.
pub(super) enum ReplayOutlet {
    Kafka(Box<KafkaOutlet>),
    Url(UrlOutlet),
}

/// Sends events to Kafka.
pub(super) struct KafkaOutlet {
    pub(super) replayer: Replayer,
    pub(super) settings: Settings,
    /// Topic for all events; `None` for the topic of each event, or the topic that replaces it.
    pub(super) topic: Option<Arc<str>>,
}

/// Posts events to a URL.
pub(super) struct UrlOutlet {
    pub(super) target: EventPost,
    pub(super) replay: String,
    /// Time for which hookhold tries again to post an event.
    pub(super) timeout: Duration,
    pub(super) skips_failed: bool,
}

/// Events that a replay is done with.
#[derive(Default)]
pub(super) struct SettledEvents {
    /// Number of events that the destination has accepted.
    pub(super) sent: u64,
    /// Events that Kafka rejects because of the event itself, each with the reason.
    pub(super) rejected: Vec<(Position, String)>,
    /// Event that the URL has not accepted, with the reason.
    pub(super) skipped: Option<(Position, String)>,
    /// True if the event has not been sent, because the replay must stop.
    pub(super) is_unsent: bool,
}

impl ReplayOutlet {
    /// Returns true if another event may be sent now.
    pub(super) fn has_room(&self) -> bool {
        match self {
            ReplayOutlet::Kafka(kafka) => kafka.replayer.has_room(),
            ReplayOutlet::Url(_) => true,
        }
    }

    /// Returns the sequence of the first event that has been sent and is not settled; `None` if there is no such event.
    pub(super) fn first_unsettled(&self) -> Option<u64> {
        match self {
            ReplayOutlet::Kafka(kafka) => kafka.replayer.first_unacknowledged(),
            ReplayOutlet::Url(_) => None,
        }
    }

    /// Sends an event. A URL settles it at once. Fails if the replay cannot continue.
    pub(super) fn send(
        &mut self,
        stored: StoredEvent,
        runtime: &Runtime,
        stop: &mut StopSignal,
    ) -> Result<SettledEvents, Box<dyn Error>> {
        match self {
            ReplayOutlet::Kafka(kafka) => {
                let own = stored.event.topic();
                let topic = kafka.topic.clone().unwrap_or_else(|| kafka.settings.destination(own));
                kafka.replayer.send(stored, topic);
                Ok(SettledEvents::default())
            }
            ReplayOutlet::Url(url) => runtime.block_on(url.deliver(&stored, stop)),
        }
    }

    /// Waits until events are settled, but not beyond `until`. Fails if the replay cannot continue.
    pub(super) fn advance(
        &mut self,
        until: Instant,
        runtime: &Runtime,
        stop: &mut StopSignal,
    ) -> Result<SettledEvents, Box<dyn Error>> {
        match self {
            ReplayOutlet::Kafka(kafka) => {
                let progress = kafka.replayer.advance(until)?;
                Ok(SettledEvents { sent: progress.acknowledged, rejected: progress.rejected, ..SettledEvents::default() })
            }
            ReplayOutlet::Url(_) => {
                if until > Instant::now() {
                    runtime.block_on(stop.wait_until(until));
                }
                Ok(SettledEvents::default())
            }
        }
    }

    /// Ends the client.
    pub(super) fn stop(self) {
        if let ReplayOutlet::Kafka(kafka) = self {
            kafka.replayer.stop();
        }
    }
}

impl UrlOutlet {
    /// Posts an event until the URL accepts it. A status that may pass and a missing answer cause further attempts.
    async fn deliver(&self, stored: &StoredEvent, stop: &mut StopSignal) -> Result<SettledEvents, Box<dyn Error>> {
        let builder = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE).without_max_times();
        let (mut pauses, begun) = (builder.with_jitter().build(), Instant::now());
        let unsent = SettledEvents { is_unsent: true, ..SettledEvents::default() };
        loop {
            let Some(answer) = self.post(stored, stop).await else { return Ok(unsent) };
            let (found, may_pass) = match answer {
                Ok(status) if status.is_success() => return Ok(SettledEvents { sent: 1, ..SettledEvents::default() }),
                Ok(status) => (status.as_u16().to_string(), status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS),
                Err(why) => (why, true),
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if !may_pass || begun.elapsed() + pause > self.timeout {
                let within = if may_pass { format!(" within {}", duration_text(self.timeout)) } else { String::new() };
                let what =
                    format!("{}: expected a 2xx status from {}{within}, found {found}", stored.position, self.target.url());
                if !self.skips_failed {
                    return Err(format!("{what}; correct the program at this URL, or skip such events with --skip-failed").into());
                }
                return Ok(SettledEvents { skipped: Some((stored.position, what)), ..SettledEvents::default() });
            }
            stop.wait_until(Instant::now() + pause).await;
            if stop.requested().is_some() {
                return Ok(unsent);
            }
        }
    }

    /// Posts an event once. After the request to stop, waits only a short time for the answer, and returns `None` without one.
    async fn post(&self, stored: &StoredEvent, stop: &mut StopSignal) -> Option<Result<StatusCode, String>> {
        let post = self.target.post(stored, self.headers(stored));
        tokio::pin!(post);
        tokio::select! {
            answer = &mut post => Some(answer),
            () = stop.wait() => timeout(SETTLED_WITHIN, post).await.ok(),
        }
    }

    /// Returns the headers that mark a request as one of a replay.
    fn headers(&self, stored: &StoredEvent) -> HeaderMap {
        let (log, seq) = (stored.position.log.to_string(), stored.position.seq.to_string());
        let values = [(REPLAY, self.replay.clone()), (REPLAYED_AT, SystemClock.now().rfc3339()), (LOG, log), (SEQ, seq)];
        let field = |(name, value): (&'static str, String)| {
            HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value))
        };
        values.into_iter().filter_map(field).collect()
    }
}

/// Time for the last acknowledgements or answers after the request to stop.
pub(super) const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// First and longest pause between two attempts to post an event.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
