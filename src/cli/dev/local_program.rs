//! Posts each stored event to a program on this machine (`--forward`), in order, with the headers and the bytes that the provider
//! sent. Reads the events from the journal, so no event is missed while the program is down.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use hookhold::clock::{Clock, SystemClock};
use hookhold::journal::{Journal, StoredEvent};
use http::StatusCode;
use http::header::HeaderMap;
use reqwest::Url;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, watch};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use super::program_cursor::ProgramCursor;
use super::update::{DevUpdate, ProgramResult, ProgramUpdate};
use crate::cli::causes;
use crate::cli::event_post::EventPost;

/// A program on this machine that receives every event.
pub(super) struct LocalProgram {
    target: EventPost,
    journal: Journal,
    /// Fires when the journal has stored events.
    stored: Arc<Notify>,
    /// Sequence below which the program has answered every event.
    next: watch::Sender<u64>,
    /// File with `next`; `None` for a temporary journal.
    cursor: Option<ProgramCursor>,
    updates: Sender<DevUpdate>,
}

impl LocalProgram {
    /// Returns the URL of the program.
    pub(super) fn url(&self) -> &str {
        self.target.url().as_str()
    }

    /// Creates a program that receives every event from its cursor on. Without a cursor, it receives the events that the journal stores
    /// from now on. `named` is the directory of a journal that remains.
    pub(super) fn new(
        url: Url,
        journal: Journal,
        named: Option<&Path>,
        updates: Sender<DevUpdate>,
    ) -> reqwest::Result<LocalProgram> {
        let cursor = named.map(|directory| ProgramCursor::new(directory, url.as_str()));
        let target = EventPost::new(url)?;
        let stored = Arc::new(Notify::new());
        let weak = Arc::downgrade(&stored);
        journal.on_commit(Box::new(move || weak.upgrade().map(|stored| stored.notify_one()).is_some()));
        let end = journal.durable_watermark();
        let next = cursor.as_ref().and_then(ProgramCursor::read).map_or(end, |next| next.min(end));
        Ok(LocalProgram { target, journal, stored, next: watch::Sender::new(next), cursor, updates })
    }

    /// Posts every event. Never returns.
    pub(super) async fn run(self: Arc<LocalProgram>) {
        let mut reader = self.journal.reader(*self.next.borrow());
        loop {
            let end = self.journal.durable_watermark();
            match block_in_place(|| reader.next()) {
                Ok(Some(stored)) => {
                    self.forward(&stored).await;
                    self.advance(stored.position.seq + 1).await;
                }
                Ok(None) => {
                    let next = end.max(*self.next.borrow());
                    self.advance(next).await;
                    self.stored.notified().await;
                }
                Err(error) => {
                    self.update(DevUpdate::Note(format!("--forward: {}; trying again", causes(&error)))).await;
                    sleep(LONGEST_PAUSE).await;
                }
            }
        }
    }

    /// Notes that the program has answered every event below this sequence.
    async fn advance(&self, next: u64) {
        if self.next.send_replace(next) == next {
            return;
        }
        if let Some(Err(error)) = self.cursor.as_ref().map(|cursor| block_in_place(|| cursor.write(next))) {
            self.update(DevUpdate::Note(format!(
                "--forward: cannot store how far it is: {error}; check the journal's directory"
            )))
            .await;
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
        self.target.post(stored, HeaderMap::new()).await
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

/// Statuses with which a proxy answers for a program that is down.
const IS_DOWN: &[StatusCode] = &[StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
/// First and longest pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Time for the last answers at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
