//! Turns the text of `hookhold.toml` into a [`Config`], or into every mistake in it. Each option is read in one line that
//! names its limits, and has its default in one place; `config/hookhold.toml` repeats both, and a test compares them.
//!
//! It opens no listener, no journal and no connection, and it does not know librdkafka: whoever loads hands in a check.

mod changes;
mod kafka;
mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::certificate;
use crate::limits::{AdminLimits, DedupeLimits, JournalLimits, ServerLimits};
use crate::source::Source;
use crate::toml_value::{Diagnostics, TomlTable};
use crate::units::bytes_text;

pub use changes::Change;
pub use kafka::{KafkaCheck, KafkaConfig};

/// A whole configuration, checked; cheap to clone.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// `[server]`: the listener for deliveries.
    pub server: ServerConfig,
    /// `[admin]`: the listener for operators.
    pub admin: AdminConfig,
    /// `[journal]`: where events are kept.
    pub journal: JournalConfig,
    /// `[dedupe]`: how long repeats are recognised.
    pub dedupe: DedupeLimits,
    /// `[kafka]`; without it, events stay in the journal.
    pub kafka: Option<KafkaConfig>,
    /// `[sources.NAME]`, in the order of the file; never empty.
    pub sources: Vec<Arc<Source>>,
    /// What the file states, as dotted keys and TOML; secrets stand in it by reference only.
    pub stated: BTreeMap<String, String>,
}

/// The listener for deliveries and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address and port for deliveries.
    pub listen: SocketAddr,
    /// Scheme, host, port and path prefix as providers see them, without a final slash.
    pub public_url: Option<String>,
    /// The limits of the listener.
    pub limits: ServerLimits,
    /// Certificate and key of HTTPS; without them deliveries come over plain HTTP.
    pub tls: Option<certificate::CertificateFiles>,
    /// Networks of proxies whose word about a sender's address is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Their connections begin with a PROXY v2 header.
    pub proxy_protocol: bool,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            public_url: None,
            limits: ServerLimits::default(),
            tls: None,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

/// The listener for metrics, probes and the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address and port for operators.
    pub listen: SocketAddr,
    /// The limits of what is kept for the operator.
    pub limits: AdminLimits,
}

impl Default for AdminConfig {
    fn default() -> AdminConfig {
        AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 9464)), limits: AdminLimits::default() }
    }
}

/// Where and how long events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The directory; a relative one begins at the working directory.
    pub dir: PathBuf,
    /// How much of them is kept, and for how long.
    pub limits: JournalLimits,
}

impl Default for JournalConfig {
    fn default() -> JournalConfig {
        JournalConfig { dir: "/var/lib/hookhold".into(), limits: JournalLimits::default() }
    }
}

impl JournalConfig {
    /// No body of so many bytes can ever be kept: it must fit into one topic's share, and beside the segment in use.
    fn largest_body(&self) -> u64 {
        let JournalLimits { max_backlog, max_size, segment_size, .. } = self.limits;
        max_backlog.min(max_size.saturating_sub(segment_size))
    }

    /// Reads `[journal]` of `path` alone: who only looks at the journal needs none of the sources' secrets.
    pub fn load(path: &Path) -> Result<JournalConfig, Diagnostics> {
        let read = |mut root: TomlTable, _: &Diagnostics| read::journal(&mut root.take_section("journal"));
        TomlTable::read(&path.display().to_string(), &contents(path)?, read)
    }
}

impl AdminConfig {
    /// Reads `[admin]` of `path` alone: whoever asks the running process needs nothing else of it.
    pub fn load(path: &Path) -> Result<AdminConfig, Diagnostics> {
        let read = |mut root: TomlTable, _: &Diagnostics| read::admin(&mut root.take_section("admin"));
        TomlTable::read(&path.display().to_string(), &contents(path)?, read)
    }
}

impl Config {
    /// The file to read: the one named, else `hookhold.toml` here, else in `/etc/hookhold`. `None` when there is none.
    pub fn find(named: Option<PathBuf>) -> Option<PathBuf> {
        named.or_else(|| PLACES.iter().map(PathBuf::from).find(|place| place.exists()))
    }

    /// Reads and checks `path`. `kafka` judges one librdkafka property.
    pub fn load(path: &Path, kafka: KafkaCheck) -> Result<Config, Diagnostics> {
        let text = contents(path)?;
        let config = Config::parse(&path.display().to_string(), &text, kafka)?;
        Ok(Config { path: path.to_owned(), ..config })
    }

    /// Checks `text`, which every mistake calls `file`.
    pub fn parse(file: &str, text: &str, kafka: KafkaCheck) -> Result<Config, Diagnostics> {
        TomlTable::read(file, text, |root, diagnostics| read::root(file, root, kafka, diagnostics))
    }
}

fn contents(path: &Path) -> Result<String, Diagnostics> {
    let read = File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(text) }
    });
    read.map_err(|error| {
        let limit = bytes_text(MAX_FILE);
        Diagnostics::one(path, 1, "", format!("cannot read the file: {error}; expected UTF-8 text of at most {limit}"))
    })
}

const PLACES: [&str; 2] = ["hookhold.toml", "/etc/hookhold/hookhold.toml"];
const MAX_FILE: u64 = 1 << 20;
