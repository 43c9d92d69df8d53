//! Posts each stored event to a program on this machine (`--forward`), in order, with the headers and the bytes that the provider
//! sent. Reads the events from the journal, so no event is missed while the program is down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use hookhold::clock::{Clock, SystemClock};
use hookhold::journal::{Journal, StoredEvent};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode};
use reqwest::Url;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, watch};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use super::update::{DevUpdate, ProgramResult, ProgramUpdate};
use crate::cli::causes;

/// A program on this machine that receives every event.
pub(super) struct LocalProgram {
    url: Url,
    client: reqwest::Client,
    journal: Journal,
    /// Fires when the journal has stored events.
    stored: Arc<Notify>,
    /// Sequence below which the program has answered every event.
    next: watch::Sender<u64>,
    updates: Sender<DevUpdate>,
}

impl LocalProgram {
    /// Returns the URL of the program.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Creates a program that receives the events that the journal stores from now on.
    pub(super) fn new(url: Url, journal: Journal, updates: Sender<DevUpdate>) -> reqwest::Result<LocalProgram> {
        let client = reqwest::Client::builder().http1_only().no_proxy().redirect(reqwest::redirect::Policy::none());
        // A program on this machine may present any certificate.
        let client = client.danger_accept_invalid_certs(is_on_this_machine(&url)).timeout(RESPONSE_TIMEOUT).build()?;
        let stored = Arc::new(Notify::new());
        let weak = Arc::downgrade(&stored);
        journal.on_commit(Box::new(move || weak.upgrade().map(|stored| stored.notify_one()).is_some()));
        let next = watch::Sender::new(journal.durable_watermark());
        Ok(LocalProgram { url, client, journal, stored, next, updates })
    }

    /// Posts every event. Never returns.
    pub(super) async fn run(self: Arc<LocalProgram>) {
        let mut reader = self.journal.reader(*self.next.borrow());
        loop {
            let end = self.journal.durable_watermark();
            match block_in_place(|| reader.next()) {
                Ok(Some(stored)) => {
                    self.forward(&stored).await;
                    self.next.send_replace(stored.position.seq + 1);
                }
                Ok(None) => {
                    let next = end.max(*self.next.borrow());
                    self.next.send_replace(next);
                    self.stored.notified().await;
                }
                Err(error) => {
                    self.update(DevUpdate::Note(format!("--forward: {}; trying again", causes(&error)))).await;
                    sleep(LONGEST_PAUSE).await;
                }
            }
        }
    }

    /// Posts one event until the program answers. Also tries again after a status that stands for a program that is down behind a
    /// proxy.
    async fn forward(&self, stored: &StoredEvent) {
        let builder = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE).without_max_times();
        let mut pauses = builder.with_jitter().build();
        let mut attempts = 1;
        loop {
            let why = match self.post(stored).await {
                Ok(status) if !IS_DOWN.contains(&status) => {
                    return self.report(stored, ProgramResult::Answered(status.as_u16(), attempts), false).await;
                }
                Ok(status) => format!("it answers {}", status.as_u16()),
                Err(why) => why,
            };
            if attempts == 1 {
                self.report(stored, ProgramResult::Waiting(why), false).await;
            }
            sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            attempts += 1;
        }
    }

    /// Posts the newest event once more.
    pub(super) async fn replay(&self) {
        let last = self.journal.durable_watermark().checked_sub(1);
        let stored = last.map(|seq| block_in_place(|| self.journal.reader(seq).next()));
        match stored {
            Some(Ok(Some(stored))) => {
                let result = match self.post(&stored).await {
                    Ok(status) => ProgramResult::Answered(status.as_u16(), 1),
                    Err(why) => ProgramResult::Failed(why),
                };
                self.report(&stored, result, true).await;
            }
            Some(Err(error)) => self.update(DevUpdate::Note(format!("replay: {}", causes(&error)))).await,
            None | Some(Ok(None)) => self.update(DevUpdate::Note("replay: no event is stored yet".to_owned())).await,
        }
    }

    /// Waits a moment until the program has answered every stored event. Returns the number of events without an answer.
    pub(super) async fn finish(&self) -> u64 {
        let end = self.journal.durable_watermark();
        let mut next = self.next.subscribe();
        let _ = timeout(LAST_ANSWERS, next.wait_for(|next| *next >= end)).await;
        let answered = *self.next.borrow();
        end.saturating_sub(answered)
    }

    async fn post(&self, stored: &StoredEvent) -> Result<StatusCode, String> {
        let request = stored.event.request();
        let mut url = self.url.clone();
        if let (None, Some((_, query))) = (url.query(), request.target.split_once('?')) {
            url.set_query(Some(query));
        }
        let method = request.method.parse().unwrap_or(Method::POST);
        let of_event = request.headers.iter().filter(|(name, _)| !OF_THE_CONNECTION.contains(name));
        let headers: HeaderMap = of_event.cloned().collect();
        let response = self.client.request(method, url).headers(headers).body(stored.event.body().clone()).send().await;
        response.map(|response| response.status()).map_err(|error| reason(&error))
    }

    async fn report(&self, stored: &StoredEvent, result: ProgramResult, is_replay: bool) {
        let (at, seq) = (SystemClock.now(), stored.position.seq);
        self.update(DevUpdate::Program(ProgramUpdate { at, seq, result, is_replay })).await;
    }

    async fn update(&self, update: DevUpdate) {
        // The receiver exists until the command ends.
        let _ = self.updates.send(update).await;
    }
}

/// Returns true if the URL names a loopback address or `localhost`.
fn is_on_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Returns the reason for a missing answer, without the URL, which the line contains anyway.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if error.is_connect() {
        return "no connection".to_owned();
    }
    let causes: Vec<String> =
        std::iter::successors(std::error::Error::source(error), |cause| cause.source()).map(|cause| cause.to_string()).collect();
    causes.last().cloned().unwrap_or_else(|| "connection lost".to_owned())
}

/// Header fields that belong to the connection to hookhold, and not to the event.
const OF_THE_CONNECTION: &[HeaderName] = &[HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, EXPECT];
/// Statuses with which a proxy answers for a program that is down.
const IS_DOWN: &[StatusCode] = &[StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
/// Time that the program has for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// First and longest pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Time for the last answers at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_on_this_machine_may_present_any_certificate() {
        let is_local = |url: &str| is_on_this_machine(&url.parse().expect("a URL"));
        assert!(["https://localhost:3000/", "https://127.0.0.2/", "https://[::1]:3000/hook"].into_iter().all(is_local));
        assert!(!["https://example.com/", "https://10.0.0.1/", "https://localhost.example.com/"].into_iter().any(is_local));
    }
}
