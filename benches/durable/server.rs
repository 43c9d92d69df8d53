//! Starts and inspects the server processes of the comparison: bare hyper and `hookhold run`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use hookhold::certificate::CertificateFiles;
use serde_json::{Value, json};

use crate::bare_hyper::CERTIFICATE_OPTIONS;
use crate::gateway::{Result, Server, free_addresses};
use crate::load::BODY_BYTES;

/// Kind of a server that a round measures: bare hyper or a hookhold binary.
#[derive(Clone, Debug)]
pub enum ServerKind {
    /// A hyper server that reads the whole body, answers with 200 and stores nothing.
    BareHyper,
    /// The `hookhold run` command. The server verifies the signature, deduplicates, appends with fdatasync and answers with 200.
    Hookhold {
        binary: PathBuf,
        /// Directory whose key files the journal contains at its first opening.
        key_files: Option<PathBuf>,
    },
}

impl ServerKind {
    pub fn label(&self) -> String {
        match self {
            ServerKind::BareHyper => "bare hyper".to_owned(),
            ServerKind::Hookhold { binary, key_files: None } => binary.display().to_string(),
            ServerKind::Hookhold { binary, key_files: Some(_) } => format!("{} with remembered keys", binary.display()),
        }
    }
}

/// State of the journal at the start of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum JournalState {
    /// An empty journal. The file system allocates new blocks for every segment.
    New,
    /// A journal that has reached `max_size`. Every new segment recycles the file of a deleted segment.
    Recycled,
}

impl JournalState {
    pub fn label(self) -> &'static str {
        match self {
            JournalState::New => "new",
            JournalState::Recycled => "recycled",
        }
    }

    /// Returns the number of deliveries needed to bring an empty journal into this state. For a recycled journal, the bodies of
    /// these deliveries are together one and a half times as large as `max_size`.
    pub fn fill_deliveries(self) -> u64 {
        match self {
            JournalState::New => 0,
            JournalState::Recycled => RECYCLED_BYTES / BODY_BYTES as u64 * 3 / 2,
        }
    }

    fn max_size(self) -> u64 {
        match self {
            JournalState::New => NEW_BYTES,
            JournalState::Recycled => RECYCLED_BYTES,
        }
    }
}

/// A server process that accepts connections. Dropping the value kills the process.
pub struct RunningServer {
    pub address: SocketAddr,
    process: Server,
    admin: Option<SocketAddr>,
    dir: Option<tempfile::TempDir>,
}

impl RunningServer {
    /// Starts a server of kind `kind`. A hookhold server starts with an empty journal in a new directory inside `dir`. The server
    /// uses TLS if there is a `certificate`.
    pub fn start(
        kind: &ServerKind,
        journal: JournalState,
        dir: &Path,
        certificate: Option<&CertificateFiles>,
    ) -> Result<RunningServer> {
        match kind {
            ServerKind::BareHyper => RunningServer::bare_hyper(certificate),
            ServerKind::Hookhold { binary, key_files } => {
                RunningServer::hookhold(binary, key_files.as_deref(), journal, dir, certificate)
            }
        }
    }

    fn bare_hyper(certificate: Option<&CertificateFiles>) -> Result<RunningServer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve-bare-hyper");
        if let Some(CertificateFiles { cert, key }) = certificate {
            let [cert_option, key_option] = CERTIFICATE_OPTIONS;
            command.arg(cert_option).arg(cert).arg(key_option).arg(key);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(RunningServer { address: line.trim().parse()?, process: Server(child), admin: None, dir: None })
    }

    fn hookhold(
        binary: &Path,
        key_files: Option<&Path>,
        journal: JournalState,
        dir: &Path,
        certificate: Option<&CertificateFiles>,
    ) -> Result<RunningServer> {
        let dir = tempfile::tempdir_in(dir)?;
        let addresses @ [address, admin] = free_addresses()?;
        if let Some(files) = key_files {
            link_all(files, &dir.path().join("journal"))?;
        }
        let file = write_configuration(dir.path(), addresses, journal, certificate)?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(file).stderr(std::fs::File::create(dir.path().join(LOG))?);
        let process = Server::start(&mut command, address).map_err(|error| with_log(error, dir.path()))?;
        Ok(RunningServer { address, process, admin: Some(admin), dir: Some(dir) })
    }

    /// Returns `error` unchanged for bare hyper, and with the log of the server in the error text for hookhold.
    pub fn explain(&self, error: Failure) -> Failure {
        match &self.dir {
            Some(dir) => with_log(error, dir.path()),
            None => error,
        }
    }

    /// Returns true if the server has a journal: true for hookhold, false for bare hyper.
    pub fn has_journal(&self) -> bool {
        self.admin.is_some()
    }

    /// Returns the processor time of the server process (user and system) in seconds. Reads fields 14 and 15 of
    /// `/proc/PID/stat`. The unit of both fields is 10 ms.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id()))?;
        let fields = stat.rsplit(") ").next().ok_or("no fields")?;
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum::<u64>();
        Ok(ticks as f64 / 100.0)
    }

    /// Reads `/metrics` and returns the mean number of events per journal commit and the mean sync time. Returns `None` for
    /// bare hyper.
    pub fn commits(&self) -> Result<Option<Commits>> {
        let Some(admin) = self.admin else { return Ok(None) };
        let mut stream = std::net::TcpStream::connect(admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(f64::NAN)
        };
        let mean = |name: &str| value(&format!("{name}_sum")) / value(&format!("{name}_count"));
        let (events, sync_us) = (mean("hookhold_journal_batch_events"), mean("hookhold_journal_sync_seconds") * 1e6);
        Ok(Some(Commits { events, sync_us }))
    }
}

/// Creates the directory `to`, and in it a hard link to each file in `from`. hookhold never changes an existing key file.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::hard_link(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn with_log(error: Failure, dir: &Path) -> Failure {
    let log = std::fs::read_to_string(dir.join(LOG)).unwrap_or_default();
    format!("{error}; the log of hookhold:\n{log}").into()
}

/// Mean number of events per journal commit and mean sync time in microseconds, for one server process.
pub struct Commits {
    pub events: f64,
    pub sync_us: f64,
}

impl Commits {
    pub fn json(&self) -> Value {
        json!({ "events": self.events, "sync_us": self.sync_us })
    }
}

/// Writes the configuration file of a hookhold server and returns its path. The keys have not been renamed since commit
/// d3a7dd8, so hookhold binaries of that commit and of later commits can read the file.
pub fn write_configuration(
    dir: &Path,
    [address, admin]: [SocketAddr; 2],
    journal: JournalState,
    certificate: Option<&CertificateFiles>,
) -> Result<PathBuf> {
    let (file, secret) = (dir.join("hookhold.toml"), dir.join("secret"));
    std::fs::write(&secret, "whsec_benchmark")?;
    let tls = certificate.map(|files| format!("tls_cert = {:?}\ntls_key = {:?}\n", files.cert, files.key)).unwrap_or_default();
    let text = format!(
        "[server]\nlisten = \"{address}\"\n{tls}[admin]\nlisten = \"{admin}\"\n[journal]\ndir = {:?}\nmax_size = \"{} MiB\"\n\
         [sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:{}\"]\n",
        dir.join("journal"),
        journal.max_size() >> 20,
        secret.display(),
    );
    std::fs::write(&file, text)?;
    Ok(file)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LOG: &str = "hookhold.log";
/// `max_size` of a new journal, in bytes: hookhold's default, which is more than a round can write.
const NEW_BYTES: u64 = 20 << 30;
/// `max_size` of a recycled journal, in bytes: room for three segments of the default size and one spare file.
const RECYCLED_BYTES: u64 = 256 << 20;
