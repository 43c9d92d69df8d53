//! Shows everything that happens while `hookhold dev` runs, and does what the operator's keys ask for.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossterm::event::KeyEvent;
use hookhold::journal::{Journal, StoredEvent};
use hookhold::server::Shutdown;
use hookhold::service::ServeError;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::JoinHandle;

use super::EndSignals;
use super::delivery_line::{DeliveryLine, kafka_json, kafka_text, program_json, program_text};
use super::keys::{self, HELP, KeyCommand};
use super::local_program::LocalProgram;
use super::samples::SampleRequest;
use super::setup::DevSetup;
use super::start_page;
use super::update::DevUpdate;
use super::view::DevView;

/// The stream of deliveries, and the state of the keys.
pub(super) struct DevStream {
    /// Output of the stream.
    pub(super) view: DevView,
    /// Journal of the gateway, which contains the types and the ids of the events.
    pub(super) journal: Journal,
    /// Handle that ends the command.
    pub(super) shutdown: Shutdown,
    /// Names of the providers.
    pub(super) names: Vec<String>,
    /// Index of the provider for which keys send samples.
    pub(super) chosen: usize,
    /// Sender of requests for samples.
    pub(super) samples: Sender<SampleRequest>,
    /// Local program that receives every event; `None` without `--forward`.
    pub(super) program: Option<Arc<LocalProgram>>,
    /// Number of answers that the stream does not show, because they arrive too fast.
    pub(super) hidden: Arc<AtomicU64>,
}

impl DevStream {
    /// Prints the start page.
    pub(super) fn start(&mut self, setup: &DevSetup) -> io::Result<()> {
        let program = self.program.clone();
        let forward = program.as_ref().map(|program| program.url());
        self.view.print(|has_colour| start_page::text(setup, forward, has_colour), || start_page::json(setup, forward))?;
        self.view.set_footer(self.footer())
    }

    /// Shows every update until the gateway has stopped. If the output fails, stops the gateway.
    pub(super) async fn show_until_end(
        &mut self,
        mut serving: JoinHandle<Result<(), ServeError>>,
        mut received: Receiver<DevUpdate>,
        mut signals: EndSignals,
    ) -> Result<(), Box<dyn Error>> {
        let mut shown = Ok(());
        let served = loop {
            tokio::select! {
                served = &mut serving => break served,
                () = signals.next() => self.shutdown.signal(),
                Some(update) = received.recv() => shown = shown.and(self.show(update)),
            }
            if shown.is_err() && !self.shutdown.begun() {
                self.shutdown.signal();
            }
        };
        let unanswered = match &self.program {
            Some(program) => program.finish().await,
            None => 0,
        };
        while let (Ok(()), Ok(update)) = (&shown, received.try_recv()) {
            shown = self.show(update);
        }
        if unanswered > 0 && shown.is_ok() {
            shown = self.view.note(&format!("{unanswered} stored events have reached no program; see --forward"));
        }
        match served? {
            // `Service::stop` returns the error of the journal again.
            Ok(()) | Err(ServeError::Journal(_)) => Ok(shown?),
            Err(error) => Err(error.into()),
        }
    }

    fn show(&mut self, update: DevUpdate) -> io::Result<()> {
        match update {
            DevUpdate::Answered(answered) => {
                let stored = answered.seq.and_then(|seq| self.stored(seq));
                self.show_delivery(DeliveryLine::new(answered, stored))
            }
            DevUpdate::Acknowledged(event) => {
                self.view.print(|has_colour| kafka_text(&event, has_colour), || vec![kafka_json(&event)])
            }
            DevUpdate::Program(result) => {
                let program = self.program.clone();
                let url = program.as_ref().map_or("", |program| program.url());
                self.view.print(|has_colour| program_text(&result, url, has_colour), || vec![program_json(&result, url)])
            }
            DevUpdate::Note(text) | DevUpdate::Log(text) => self.view.note(&text),
            DevUpdate::Key(key) => self.act_on(key),
            DevUpdate::Resized => self.view.redraw(),
        }
    }

    fn show_delivery(&mut self, line: DeliveryLine) -> io::Result<()> {
        self.view.print(|has_colour| line.text(has_colour), || vec![line.json()])?;
        match self.hidden.swap(0, Relaxed) {
            0 => Ok(()),
            count => self.view.note(&format!("{count} further deliveries arrived too fast to be shown")),
        }
    }

    /// Reads an event. If the journal no longer has it, the line shows no type and no id.
    fn stored(&self, seq: u64) -> Option<StoredEvent> {
        let stored = self.journal.reader(seq).next().ok().flatten();
        stored.filter(|stored| stored.position.seq == seq)
    }

    fn act_on(&mut self, key: KeyEvent) -> io::Result<()> {
        match keys::command(key) {
            Some(KeyCommand::Send(kind)) => match self.samples.try_send((self.chosen, kind)) {
                Ok(()) => Ok(()),
                Err(_) => self.view.note("the samples wait for the gateway, so this key is ignored"),
            },
            Some(KeyCommand::Choose(index)) if index < self.names.len() => self.choose(index),
            Some(KeyCommand::Choose(_)) | None => Ok(()),
            Some(KeyCommand::ChooseNext) => self.choose((self.chosen + 1) % self.names.len().max(1)),
            Some(KeyCommand::Replay) => match self.program.clone() {
                Some(program) => {
                    tokio::spawn(async move { program.replay().await });
                    Ok(())
                }
                None => self.view.note("replay: expected --forward URL, found none; start dev with this option"),
            },
            Some(KeyCommand::Help) => self.view.note(HELP),
            Some(KeyCommand::Quit) => {
                self.shutdown.signal();
                Ok(())
            }
        }
    }

    fn choose(&mut self, index: usize) -> io::Result<()> {
        self.chosen = index;
        self.view.set_footer(self.footer())
    }

    fn footer(&self) -> String {
        let chosen = self.names.get(self.chosen).map_or("", String::as_str);
        keys::footer(chosen, self.names.len() > 1, self.program.is_some())
    }
}
