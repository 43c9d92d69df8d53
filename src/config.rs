//! Converts the text of `hookhold.toml` to a [`Config`], or to a list of every mistake in the text. `config/hookhold.toml`
//! documents each option. A test compares that file with the defaults and limits in the code.
//!
//! This module opens no listener, no journal and no connection. It does not depend on librdkafka: the caller supplies the
//! function that checks a librdkafka property.

mod admin;
mod changes;
mod kafka;
mod read;
mod recipe_files;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::certificate;
use crate::diagnostic::SecretAccess;
use crate::limits::{AdminLimits, DedupeLimits, JournalLimits, ServerLimits};
use crate::secret::Secret;
use crate::source::url::PublicUrl;
use crate::source::{Providers, Source};
use crate::toml_value::{Diagnostic, Diagnostics, TomlTable};
use crate::units::bytes_text;

pub use changes::ConfigChange;
pub use kafka::{KafkaCheck, KafkaConfig};

/// A checked configuration, which is cheap to clone.
#[derive(Clone, Debug)]
pub struct Config {
    /// Path of the configuration file.
    pub path: PathBuf,
    /// `[server]`: the listener for deliveries.
    pub server: ServerConfig,
    /// `[admin]`: the listener for operators.
    pub admin: AdminConfig,
    /// `[journal]`: the write-ahead log.
    pub journal: JournalConfig,
    /// `[dedupe]`: the window and the limits of deduplication.
    pub dedupe: DedupeLimits,
    /// `[kafka]`: the settings of the Kafka client, or `None` if events stay in the journal.
    pub kafka: Option<KafkaConfig>,
    /// `[providers]`: the recipes that a source can name.
    pub providers: Providers,
    /// The configured sources, in the order of their sections `[sources.NAME]` in the file. Never empty.
    pub sources: Vec<Arc<Source>>,
    /// Options that the file sets, as dotted keys with their TOML values. A value may be a reference to a secret, but is never
    /// a secret.
    pub stated: BTreeMap<String, String>,
    /// Hash of each value that a reference in the file stands for, by dotted key, except secrets.
    pub references: BTreeMap<String, u64>,
}

/// `[server]`: the listener for deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address and port of the listener for deliveries.
    pub listen: SocketAddr,
    /// Base URL that providers call, without a final slash: scheme, credentials, host, port and path prefix. `None` if the file
    /// sets no base URL.
    pub public_url: Option<PublicUrl>,
    /// Limits on connections, requests and senders.
    pub limits: ServerLimits,
    /// Certificate and key for HTTPS, or `None` for plain HTTP.
    pub tls: Option<certificate::CertificateFiles>,
    /// Networks of trusted proxies. hookhold takes the sender's address from the headers that a trusted proxy sends.
    pub trusted_proxies: Vec<IpNet>,
    /// True if connections from trusted proxies must begin with a PROXY v2 header.
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

/// `[admin]`: the listener for metrics, probes and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address and port of the listener for operators.
    pub listen: SocketAddr,
    /// Names that the field `Host` of a request may contain, in lower case, in addition to `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// Token that clients must send. `None` only if `listen` is a loopback address.
    pub token: Option<Secret>,
    /// Limits on the stored rejected deliveries.
    pub limits: AdminLimits,
}

impl Default for AdminConfig {
    fn default() -> AdminConfig {
        AdminConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            hosts: Vec::new(),
            token: None,
            limits: AdminLimits::default(),
        }
    }
}

/// `[journal]`: the directory, the size and the retention of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Directory of the journal. A relative path in the file is relative to the directory of the file.
    pub dir: PathBuf,
    /// True if the directory may be on a network file system.
    pub danger_network_filesystem: bool,
    /// Limits on the size of the journal and on the retention of events.
    pub limits: JournalLimits,
}

impl Default for JournalConfig {
    fn default() -> JournalConfig {
        JournalConfig { dir: "/var/lib/hookhold".into(), danger_network_filesystem: false, limits: JournalLimits::default() }
    }
}

impl JournalConfig {
    /// Returns the exclusive upper bound for the size of a body, in bytes. A body must fit into the backlog of one topic.
    /// Together with the segment in use, the body must also fit into `max_size`.
    fn body_bound(&self) -> u64 {
        let JournalLimits { max_backlog, max_size, segment_size, .. } = self.limits;
        max_backlog.min(max_size.saturating_sub(segment_size))
    }

    /// Reads only the section `[journal]` of the file `path`, for verbs that read the journal and have no access to the
    /// sources' secrets.
    pub fn load(path: &Path) -> Result<JournalConfig, Diagnostics> {
        let read = |mut root: TomlTable, _: &Diagnostics| read::journal(&mut root.take_section("journal"));
        TomlTable::read(&path.display().to_string(), &contents(path)?, read)
    }
}

impl KafkaConfig {
    /// Reads only the topics to which the sources of the file `path` forward, each with the name of its source, for verbs that
    /// have no access to the sources' secrets. Returns `None` without `[kafka]`.
    pub fn load_topics(path: &Path) -> Result<Option<BTreeMap<String, String>>, Diagnostics> {
        let read = |mut root: TomlTable, _: &Diagnostics| kafka::topics(&mut root);
        TomlTable::read(&path.display().to_string(), &contents(path)?, read)
    }
}

impl AdminConfig {
    /// Reads only the section `[admin]` of the file `path`, for verbs that query the running process.
    pub fn load(path: &Path) -> Result<AdminConfig, Diagnostics> {
        let read = |mut root: TomlTable, _: &Diagnostics| admin::read(&mut root.take_section("admin"));
        TomlTable::read(&path.display().to_string(), &contents(path)?, read)
    }

    /// Reads only the limits in the section `[admin]` of the file `path`, for verbs that have no access to the token.
    pub fn load_limits(path: &Path) -> Result<AdminLimits, Diagnostics> {
        let read = |mut root: TomlTable, _: &Diagnostics| AdminLimits::take(&mut root.take_section("admin"));
        TomlTable::read(&path.display().to_string(), &contents(path)?, read)
    }
}

/// Reads only the section `[providers]` of the file `path`, for verbs that show recipes and have no access to the sources'
/// secrets. Returns the recipes, and the mistakes in the recipe files.
pub fn load_providers(path: &Path) -> Result<(Providers, Vec<Diagnostic>), Diagnostics> {
    let read = |mut root: TomlTable, _: &Diagnostics| recipe_files::take(&mut root.take_section("providers"));
    TomlTable::read(&path.display().to_string(), &contents(path)?, read)
}

/// Reads the recipes in the directory `dir` as if it were configured in `[providers] dir`. Returns the recipes, and the mistakes
/// in the recipe files. The error is the reason why hookhold cannot list the directory.
pub fn read_providers(dir: &Path) -> Result<(Providers, Vec<Diagnostic>), String> {
    recipe_files::read(dir)
}

impl Config {
    /// Returns the path of the configuration file: `named` if the caller passes a path, otherwise the first default file that
    /// exists. The default files are `hookhold.toml` in the working directory and `/etc/hookhold/hookhold.toml`. Returns `None`
    /// if `named` is `None` and no default file exists.
    pub fn find(named: Option<PathBuf>) -> Option<PathBuf> {
        named.or_else(|| DEFAULT_FILES.iter().map(PathBuf::from).find(|file| file.exists()))
    }

    /// Reads and checks the configuration file `path`. `kafka` is the function that checks one librdkafka property.
    pub fn load(path: &Path, kafka: KafkaCheck) -> Result<Config, Diagnostics> {
        let text = contents(path)?;
        let config = Config::parse(&path.display().to_string(), &text, kafka)?;
        Ok(Config { path: path.to_owned(), ..config })
    }

    /// Reads and checks the configuration file `path` on a machine that may lack its secrets. Leaves out the files for TLS and,
    /// without any secrets, the properties of librdkafka whose values are references. A source without its secrets verifies nothing.
    pub fn load_with(path: &Path, secrets: SecretAccess, kafka: KafkaCheck) -> Result<Config, Diagnostics> {
        let (file, text) = (path.display().to_string(), contents(path)?);
        let read = |root, diagnostics: &Diagnostics| read::root(&file, root, kafka, diagnostics);
        let config = TomlTable::read_into(Diagnostics::with_secrets(secrets), &file, &text, read)?;
        Ok(Config { path: path.to_owned(), ..config })
    }

    /// Parses and checks the TOML text `text`. Diagnostics show `file` as the name of this text.
    pub fn parse(file: &str, text: &str, kafka: KafkaCheck) -> Result<Config, Diagnostics> {
        TomlTable::read(file, text, |root, diagnostics| read::root(file, root, kafka, diagnostics))
    }
}

fn contents(path: &Path) -> Result<String, Diagnostics> {
    let read = |file: &mut dyn Read| {
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(text) }
    };
    let text =
        if path == Path::new(STDIN) { read(&mut io::stdin()) } else { File::open(path).and_then(|mut file| read(&mut file)) };
    text.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "create the file with `hookhold init`, or name another file with --config".to_owned(),
            ErrorKind::InvalidData | ErrorKind::FileTooLarge => {
                format!("save the file as UTF-8 text of at most {}", bytes_text(MAX_FILE))
            }
            _ => "check the path and its permissions".to_owned(),
        };
        Diagnostics::one(path, 1, "", format!("cannot read the file: {error}; {remedy}"))
    })
}

const DEFAULT_FILES: [&str; 2] = ["hookhold.toml", "/etc/hookhold/hookhold.toml"];
/// Path that stands for standard input.
const STDIN: &str = "-";
const MAX_FILE: u64 = 1 << 20;
