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
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::certificate;
use crate::source::Source;
use crate::toml_value::{Diagnostics, TomlTable};
use crate::units::{Rate, bytes_text};

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
    pub dedupe: DedupeConfig,
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
    /// Largest body in bytes, unless recipe or source say otherwise.
    pub max_body: u64,
    /// From the first byte of a request to its answer, at most.
    pub request_deadline: Duration,
    /// Normal service after SIGTERM, so that balancers move away.
    pub drain_delay: Duration,
    /// From the end of `drain_delay` until open connections are cut.
    pub drain_deadline: Duration,
    /// Open connections, at most.
    pub max_connections: u64,
    /// Open connections of one address, at most.
    pub max_connections_per_address: u64,
    /// Bytes of bodies being received or kept at one moment, at most.
    pub max_in_flight: u64,
    /// The same for one address, unless one body makes up most of it.
    pub max_in_flight_per_address: u64,
    /// Refused deliveries of one address before it is answered `rate_limited`.
    pub max_rejected_per_address: Rate,
    /// Addresses without a connection that are remembered, at most.
    pub max_addresses: u64,
    /// Bytes per second that a request must bring, counted from the end of `min_rate_after`.
    pub min_rate: u64,
    /// From the first byte of a request until `min_rate` counts.
    pub min_rate_after: Duration,
    /// Bytes of one request head, at most.
    pub max_header_size: u64,
    /// Header fields of one request, at most.
    pub max_headers: u64,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Certificate and key of HTTPS; without them deliveries come over plain HTTP.
    pub tls: Option<certificate::Files>,
    /// How long PROXY header and TLS handshake may take together.
    pub handshake_timeout: Duration,
    /// HTTP/2 requests under way on one connection, at most.
    pub max_streams: u64,
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
            max_body: 5 * MIB,
            request_deadline: Duration::from_secs(8),
            drain_delay: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(20),
            max_connections: 10_000,
            max_connections_per_address: 2_500,
            max_in_flight: 256 * MIB,
            max_in_flight_per_address: 64 * MIB,
            max_rejected_per_address: Rate::per_minute(NonZeroU32::new(600).expect("not 0")),
            max_addresses: 65_536,
            min_rate: KIB,
            min_rate_after: Duration::from_secs(2),
            max_header_size: 32 * KIB,
            max_headers: 100,
            idle_timeout: Duration::from_secs(75),
            tls: None,
            handshake_timeout: Duration::from_secs(10),
            max_streams: 100,
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
    /// Bytes of refused deliveries that are kept in memory for `doctor`; 0: none are.
    pub keep_rejected: u64,
}

impl Default for AdminConfig {
    fn default() -> AdminConfig {
        AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 9464)), keep_rejected: 0 }
    }
}

/// Where and how long events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The directory; a relative one begins at the working directory.
    pub dir: PathBuf,
    /// Bytes of all segments, at most.
    pub max_size: u64,
    /// How long an event that was passed on is kept for replay.
    pub retain: Duration,
    /// Bytes of one segment.
    pub segment_size: u64,
    /// Bytes that one lane may hold back, at most.
    pub max_backlog: u64,
}

impl Default for JournalConfig {
    fn default() -> JournalConfig {
        JournalConfig {
            dir: "/var/lib/hookhold".into(),
            max_size: 20 * GIB,
            retain: Duration::from_secs(3 * DAY),
            segment_size: 64 * MIB,
            max_backlog: 10 * GIB,
        }
    }
}

/// How repeats are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupeConfig {
    /// How long after the first copy a repeat is recognised; a recipe with a longer retry horizon wins.
    pub window: Duration,
    /// Answers of key files that are kept in memory; keys of unsealed segments are in memory besides.
    pub hot_keys: u64,
    /// Bytes of key files, at most.
    pub max_disk: u64,
}

impl Default for DedupeConfig {
    fn default() -> DedupeConfig {
        DedupeConfig { window: Duration::from_secs(7 * DAY), hot_keys: 1_000_000, max_disk: 10 * GIB }
    }
}

impl JournalConfig {
    /// No body of so many bytes can ever be kept: it must fit into one topic's share, and beside the segment in use.
    fn largest_body(&self) -> u64 {
        self.max_backlog.min(self.max_size.saturating_sub(self.segment_size))
    }

    /// Reads `[journal]` of `path` alone: who only looks at the journal needs none of the sources' secrets.
    pub fn load(path: &Path) -> Result<JournalConfig, Diagnostics> {
        let mistakes = Diagnostics::default();
        let root = TomlTable::parse(&path.display().to_string(), &contents(path)?, &mistakes);
        let config = root.map(|mut root| read::journal(&mut root.take_section("journal")));
        config.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }
}

impl AdminConfig {
    /// Reads `[admin]` of `path` alone: whoever asks the running process needs nothing else of it.
    pub fn load(path: &Path) -> Result<AdminConfig, Diagnostics> {
        let mistakes = Diagnostics::default();
        let root = TomlTable::parse(&path.display().to_string(), &contents(path)?, &mistakes);
        let config = root.map(|mut root| read::read_admin(&mut root.take_section("admin")));
        config.filter(|_| mistakes.is_empty()).ok_or(mistakes)
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
        let mistakes = Diagnostics::default();
        let config = TomlTable::parse(file, text, &mistakes).map(|root| read::root(file, root, kafka, &mistakes));
        config.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }
}

fn contents(path: &Path) -> Result<String, Diagnostics> {
    let read = File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(text) }
    });
    read.map_err(|error| {
        let mistakes = Diagnostics::default();
        let place = TomlTable::empty(&path.display().to_string(), &mistakes).place;
        place.wrong(format_args!("cannot be read: {error}"), format_args!("a text of at most {}", bytes_text(MAX_FILE)));
        mistakes
    })
}

const PLACES: [&str; 2] = ["hookhold.toml", "/etc/hookhold/hookhold.toml"];
const MAX_FILE: u64 = MIB;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: u64 = 24 * 60 * 60;
