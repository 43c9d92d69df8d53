//! `hookhold dev`: receives the deliveries of the named providers on this machine, without a configuration file, and shows each
//! one while it happens. Runs the same [`Service`] as `run`, with a temporary journal and generated secrets. This file starts and
//! stops the parts in `dev/`.

mod delivery_line;
mod keys;
mod local_program;
mod program_cursor;
mod samples;
mod setup;
mod start_page;
mod stream;
mod terminal;
mod update;
mod view;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hookhold::clock::SystemClock;
use hookhold::journal::OpenError;
use hookhold::journal::disk::LocalDisk;
use hookhold::log;
use hookhold::server::{self, Shutdown};
use hookhold::service::{LAST_RESPONSES, Listeners, Service, StartError};
use reqwest::Url;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{Context, ExitStatus, UsageError, VerbResult, causes, volume};
use local_program::LocalProgram;
use samples::SampleSender;
use setup::DevSetup;
use stream::DevStream;
use update::{AnswerStream, DevUpdate};
use view::DevView;

/// Receive deliveries on this machine at once, and watch them arrive.
///
/// Needs no configuration file. Generates a secret for each PROVIDER, stores the events in a temporary journal, and prints one
/// line per delivery, with the cause of each rejection. On a terminal, keys send genuine, duplicate, tampered and stale samples
/// to the own listener; the key ? lists the keys. Without a terminal, dev prints plain lines until SIGTERM or SIGINT. Times are
/// in UTC.
///
/// With --forward, dev posts each stored event to a program on this machine, in order. If the program is down, dev tries again
/// until the program answers. With --journal, it continues after a restart with the first event that has no answer. With --kafka, dev also forwards each event to Kafka, as `hookhold run` does, and prints the topic, the
/// partition and the offset of its record. The topics webhooks.PROVIDER must exist.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DevArgs {
    /// Names of the providers to receive from, as listed by `hookhold providers`.
    #[arg(value_name = "PROVIDER", required = true)]
    providers: Vec<String>,
    /// Address of the listener [default: 127.0.0.1:8080, or the next free port].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Secret of a provider, as NAME=env:VARIABLE or NAME=file:PATH [default: a generated secret].
    #[arg(long = "secret", value_name = "NAME=REFERENCE")]
    secrets: Vec<String>,
    /// Directory of a journal that remains at the end [default: a temporary journal].
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// URL of a local program that receives each stored event with its original headers and body.
    #[arg(long, value_name = "URL")]
    forward: Option<String>,
    /// Kafka servers to which dev forwards each stored event, such as localhost:9092.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// URL that providers call, such as that of a tunnel. Providers that sign the URL need it [default: the listener's URL].
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Directory with recipe files [default: [providers] dir of the configuration].
    #[arg(long, value_name = "DIR")]
    providers_dir: Option<PathBuf>,
}

/// The gateway and the files that it uses. The files exist until the journal is closed.
struct DevGateway {
    setup: DevSetup,
    service: Service,
    shutdown: Shutdown,
    /// Sender of everything that the stream shows.
    updates: Sender<DevUpdate>,
}

/// Receives and prints deliveries until the operator ends the command.
pub(super) fn run(context: &Context, args: DevArgs) -> VerbResult {
    let forward = args.forward.as_deref().map(forward_url).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let entered = runtime.enter();
    let listener = setup::open_listener(args.listen)?;
    let admin = server::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let setup = DevSetup::new(context, &args, listener.local_addr()?, admin.local_addr()?)?;
    let (updates, received) = mpsc::channel(MAX_UPDATES);
    let log_lines = updates.clone();
    // If the channel is full, the operator has enough to read.
    log::start_without_deliveries(move |line| drop(log_lines.try_send(DevUpdate::Log(line.to_owned()))));
    let shutdown = Shutdown::new();
    let service = match open(&setup, shutdown.clone())? {
        Ok(service) => service,
        Err(StartError::Journal(error)) => return journal_error(&setup, &error),
        Err(error) => return Err(error.into()),
    };
    drop(entered);
    let gateway = DevGateway { setup, service, shutdown, updates };
    let listeners = Listeners { deliveries: listener, admin };
    let served = runtime.block_on(gateway.serve(context.json(), listeners, forward, received));
    let stopped = gateway.service.stop();
    runtime.shutdown_timeout(LAST_RESPONSES);
    if let Err(error) = stopped {
        super::report(&*Box::<dyn Error>::from(format!("{error}; check the disk")));
        return Ok(ExitStatus::JournalFailed);
    }
    served.map(|()| ExitStatus::Done)
}

/// Opens the journal and the gateway. A power cut may destroy a temporary journal, so `dev` does not warn about its file system.
fn open(setup: &DevSetup, shutdown: Shutdown) -> Result<Result<Service, StartError>, Box<dyn Error>> {
    let journal = &setup.config.journal;
    let in_journal = |error: std::io::Error| format!("{}: {}", journal.dir.display(), causes(&error));
    if let Some(error) = volume::error(journal, &volume::file_system(journal)?) {
        return Err(UsageError(error).into());
    }
    let disk = if setup.is_temporary { LocalDisk::create(&journal.dir) } else { volume::open(journal) };
    Ok(Service::open(setup.config.clone(), Arc::new(disk.map_err(in_journal)?), Arc::new(SystemClock), shutdown))
}

fn journal_error(setup: &DevSetup, error: &OpenError) -> VerbResult {
    let text: Box<dyn Error> = format!("{}: {}", setup.config.journal.dir.display(), causes(error)).into();
    if matches!(error, OpenError::Locked) {
        return Err(text);
    }
    super::report(&*text);
    Ok(ExitStatus::JournalFailed)
}

impl DevGateway {
    /// Serves deliveries, and shows them until the shutdown is complete.
    async fn serve(
        &self,
        json: bool,
        listeners: Listeners,
        forward: Option<Url>,
        received: Receiver<DevUpdate>,
    ) -> Result<(), Box<dyn Error>> {
        let hidden = Arc::new(AtomicU64::new(0));
        let answers = Arc::new(AnswerStream::new(self.updates.clone(), hidden.clone()));
        self.service.watch_answers(answers.clone());
        self.service.watch_acknowledgements(answers);
        let (samples, requests) = mpsc::channel(MAX_SAMPLES);
        let providers = self.setup.providers.clone();
        let sender = SampleSender::new(&self.setup.local_url, providers.len(), self.updates.clone())?;
        let signals = EndSignals::new()?;
        let named = (!self.setup.is_temporary).then_some(&*self.setup.config.journal.dir);
        let program = forward.map(|url| LocalProgram::new(url, self.service.journal().clone(), named, self.updates.clone()));
        let program = program.transpose()?.map(Arc::new);
        let mut stream = DevStream {
            view: DevView::start(json)?,
            journal: self.service.journal().clone(),
            shutdown: self.shutdown.clone(),
            names: providers.iter().map(|provider| provider.source.name.to_string()).collect(),
            chosen: 0,
            samples,
            program: program.clone(),
            hidden,
        };
        stream.start(&self.setup)?;
        if stream.view.has_keys() {
            keys::read_keys(self.updates.clone())?;
        }
        let serving = tokio::spawn(self.service.start(listeners)?);
        tokio::spawn(sender.run(providers, requests));
        let posting = program.map(|program| tokio::spawn(program.run()));
        let shown = stream.show_until_end(serving, received, signals).await;
        posting.iter().for_each(|posting| posting.abort());
        shown
    }
}

/// Signals that end the command: SIGTERM, SIGINT, and SIGHUP of a closed terminal.
struct EndSignals([Signal; 3]);

impl EndSignals {
    fn new() -> std::io::Result<EndSignals> {
        Ok(EndSignals([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn forward_url(text: &str) -> Result<Url, UsageError> {
    let url = text.parse::<Url>().ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.ok_or_else(|| UsageError(format!("--forward: expected a URL such as http://localhost:3000/hook, found {text:?}")))
}

/// Maximum number of updates that wait until they are shown.
const MAX_UPDATES: usize = 4096;
/// Maximum number of samples that wait until they are sent.
const MAX_SAMPLES: usize = 64;
const EXAMPLES: &str = "\
Examples:
  hookhold dev stripe
  hookhold dev stripe github --forward http://localhost:3000/hook
  STRIPE_WEBHOOK_SECRET=$(stripe listen --print-secret) hookhold dev stripe --secret stripe=env:STRIPE_WEBHOOK_SECRET
  hookhold dev stripe --kafka localhost:9092
  hookhold dev twilio --public-url https://my-tunnel.example --journal ./events
  hookhold dev github --format json | jq 'select(.kind == \"delivery\")'";
