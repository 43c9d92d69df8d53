//! The connections of `send`: each sends one delivery after the other and counts the responses.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hookhold::clock::{Clock, SystemClock};
use hookhold::outcome::Outcome;
use hookhold::verify::sign::{Sample, SampleOptions, Tamper, sign};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout_at};

use super::hints::{no_connection, without_credentials};
use super::report::{DeliveryKind, SendReport, SendResponse};
use super::{SendPlan, tamper_word};

/// Sends all deliveries of `plan`, and returns the report of all connections.
pub(super) async fn send_all(plan: Arc<SendPlan>) -> Result<SendReport, Box<dyn Error>> {
    let interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(stop_on_interrupt(plan.clone(), interrupt));
    let connections = (0..plan.args.connections).map(|_| tokio::spawn(connection(plan.clone())));
    let connections: Vec<_> = connections.collect();
    let mut report = SendReport::default();
    for connection in connections {
        report.add(connection.await?);
    }
    Ok(report)
}

/// The reason to stop sending before all deliveries are sent.
#[derive(Clone, Debug)]
pub(super) enum StopReason {
    /// Ctrl-C. `hookhold send` still prints the report.
    Interrupt,
    /// No connection was possible, and no response has arrived before. The string is the error to report.
    NoConnection(String),
}

async fn stop_on_interrupt(plan: Arc<SendPlan>, mut interrupt: Signal) {
    if interrupt.recv().await.is_some() {
        plan.stop_because(StopReason::Interrupt);
    }
}

async fn connection(plan: Arc<SendPlan>) -> SendReport {
    let mut report = SendReport::default();
    let mut earlier: Vec<Sample> = Vec::new();
    let mut stop = plan.stop.subscribe();
    while let Some(number) = plan.next() {
        if let Some(rate) = plan.args.rate {
            let due = plan.started + Duration::from_secs_f64(number as f64 / rate);
            // Waits until the delivery is due, or until sending must stop.
            let _ = timeout_at(due, stop.wait_for(Option::is_some)).await;
        }
        if stop.borrow().is_some() {
            break;
        }
        let (kind, sample) = plan.delivery(number, &mut earlier);
        let started = Instant::now();
        let response = plan.send(&sample).await;
        report.record(kind, response, plan.expects(kind, response), started.elapsed());
        plan.progress.inc(1);
    }
    report
}

impl SendPlan {
    fn next(&self) -> Option<u64> {
        let number = self.next_number.fetch_add(1, Relaxed);
        (number < self.args.count).then_some(number)
    }

    /// Returns the next delivery of a connection: a new delivery, or a delivery from `earlier` to send again.
    fn delivery(&self, number: u64, earlier: &mut Vec<Sample>) -> (DeliveryKind, Sample) {
        if !earlier.is_empty() && fastrand::u8(0..100) < self.args.repeat_percent {
            return (DeliveryKind::Duplicate, earlier[fastrand::usize(..earlier.len())].clone());
        }
        let sample = self.sample(number);
        match self.args.tamper {
            Some(tamper) => (DeliveryKind::Tampered(tamper_word(tamper)), sample),
            None => {
                if earlier.len() == MAX_EARLIER {
                    earlier.swap_remove(fastrand::usize(..MAX_EARLIER));
                }
                earlier.push(sample.clone());
                (DeliveryKind::Genuine, sample)
            }
        }
    }

    /// Stops all connections, unless another reason has stopped them before.
    fn stop_because(&self, reason: StopReason) {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert(reason);
            is_first
        });
    }

    fn sample(&self, number: u64) -> Sample {
        let options = SampleOptions {
            id: self.series.id(number),
            event_type: self.args.event_type.clone(),
            key: self.series.key(number),
            now: SystemClock.now(),
            tamper: self.args.tamper,
        };
        sign(&self.source, self.body.clone(), &options).expect("the source has a secret, as checked at the start")
    }

    async fn send(&self, sample: &Sample) -> SendResponse {
        let query = sample.target.find('?').map_or("", |at| &sample.target[at..]);
        let url = format!("{}{query}", self.url);
        let request = self.client.request(sample.method.clone(), url).headers(sample.headers.clone());
        let mut response = match request.body(sample.body.clone()).send().await {
            Ok(response) => response,
            Err(error) => return self.missing(&error),
        };
        self.signs.is_answered.store(true, Relaxed);
        let status = response.status();
        loop {
            match response.chunk().await {
                Ok(Some(_)) => self.signs.note_body(status),
                Ok(None) => return SendResponse::Status(status.as_u16()),
                Err(error) => return SendResponse::Missing(reason(&error)),
            }
        }
    }

    /// Notes the reason for a missing response. Stops all connections if no connection is possible and no response has arrived
    /// before, because all further deliveries would fail in the same way.
    fn missing(&self, error: &reqwest::Error) -> SendResponse {
        if !self.signs.is_answered.load(Relaxed) {
            if error.is_connect() {
                self.stop_because(StopReason::NoConnection(no_connection(&self.url, error)));
            } else {
                self.signs.note_lost(&self.url, error);
            }
        }
        SendResponse::Missing(reason(error))
    }

    /// Returns the event type of the samples; `None` for a body of the operator.
    pub(super) fn event_type(&self) -> Option<&str> {
        let default = &self.source.recipe.setup.sample_type;
        self.body.is_none().then(|| self.args.event_type.as_ref().unwrap_or(default).as_str())
    }

    /// Returns true if the source does not store the type of the samples.
    pub(super) fn is_filtered(&self) -> bool {
        !self.source.types.accepts(self.event_type())
    }

    /// Returns the URL for messages, without a password.
    pub(super) fn shown_url(&self) -> String {
        without_credentials(&self.url)
    }

    /// Returns true if `response` is as expected for a delivery of kind `kind`.
    fn expects(&self, kind: DeliveryKind, response: SendResponse) -> bool {
        let expected = match (kind, self.args.tamper.map(Tamper::expected)) {
            (DeliveryKind::Tampered(_), Some(Outcome::UnknownSource)) => Outcome::UnknownSource.status(),
            (DeliveryKind::Tampered(_), _) if !self.source.shadow => self.source.recipe.replies.rejected,
            _ => self.source.recipe.replies.accepted.status,
        };
        response == SendResponse::Status(expected.as_u16())
    }
}

fn reason(error: &reqwest::Error) -> &'static str {
    if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "timed out"
    } else {
        "connection lost"
    }
}

/// Maximum number of earlier deliveries that a connection remembers for `--repeat-percent`.
const MAX_EARLIER: usize = 16;
