//! One reader per section: each option with its limits, then what must hold between options.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::{AdminConfig, Config, JournalConfig, KafkaCheck, ServerConfig, kafka};
use crate::certificate::{CertificateError, CertificateFiles};
use crate::limits::{AdminLimits, DedupeLimits, JournalLimits, ServerLimits};
use crate::source::{self, Source, SourceDefaults, url};
use crate::toml_value::{Diagnostics, Item, TomlTable};
use crate::units::bytes_text;

/// Reads and checks the whole file.
pub(super) fn root(file: &str, mut root: TomlTable, kafka: KafkaCheck, mistakes: &Diagnostics) -> Config {
    let stated = root.clone().flatten().into_iter().map(|(key, item): (_, Item)| (key, item.to_string())).collect();
    let mut section = |name| root.take_section(name);
    let [mut server, mut admin, mut journal, mut dedupe] = ["server", "admin", "journal", "dedupe"].map(&mut section);
    let config = Config {
        path: file.into(),
        server: read_server(&mut server),
        admin: read_admin(&mut admin),
        journal: self::journal(&mut journal),
        dedupe: DedupeLimits::take(&mut dedupe),
        kafka: None,
        sources: Vec::new(),
        stated,
    };
    if config.server.listen.port() == config.admin.listen.port() && config.admin.listen.port() != 0 {
        admin.wrong("listen", "the same port as [server] listen", "another port: deliveries are public, this is not");
    }
    if config.server.limits.max_body as u64 >= config.journal.largest_body() {
        server.wrong("max_body", NOT_KEPT, format_args!("less than \"{}\"", bytes_text(config.journal.largest_body())));
    }
    [server, admin, journal, dedupe].into_iter().for_each(TomlTable::finish);
    let kafka = root.take_table("kafka").map(|table| kafka::read(table, kafka));
    let (topic, kafka) = kafka.map_or((kafka::TOPIC.to_owned(), None), |(topic, kafka)| (topic, Some(kafka)));
    let sources = read_sources(&mut root, &defaults(&config, topic), &config, mistakes);
    root.finish();
    Config { kafka, sources, ..config }
}

fn defaults(config: &Config, topic: String) -> SourceDefaults {
    SourceDefaults {
        max_body: config.server.limits.max_body,
        request_deadline: config.server.limits.request_deadline,
        window: config.dedupe.window,
        public_url: config.server.public_url.clone(),
        topic,
    }
}

fn read_server(t: &mut TomlTable) -> ServerConfig {
    let default = ServerConfig::default();
    let config = ServerConfig {
        listen: address(t, default.listen),
        public_url: t.take("public_url").map(url::read),
        limits: ServerLimits::take(t),
        tls: tls(t),
        trusted_proxies: networks(t),
        proxy_protocol: t.take_bool("proxy_protocol").unwrap_or(default.proxy_protocol),
    };
    if config.proxy_protocol && config.trusted_proxies.is_empty() {
        t.wrong("proxy_protocol", "nobody is trusted to use it", "with trusted_proxies, the networks of those who send it");
    }
    let ServerLimits { max_body, max_in_flight, .. } = config.limits;
    if max_body > max_in_flight {
        t.wrong("max_in_flight", "smaller than max_body", format_args!("\"{}\" or more", bytes_text(max_body as u64)));
    }
    config
}

pub(super) fn read_admin(t: &mut TomlTable) -> AdminConfig {
    AdminConfig { listen: address(t, AdminConfig::default().listen), limits: AdminLimits::take(t) }
}

/// Reads `[journal]`.
pub(super) fn journal(t: &mut TomlTable) -> JournalConfig {
    let dir = t.take_str("dir").map_or(JournalConfig::default().dir, PathBuf::from);
    let config = JournalConfig { dir, limits: JournalLimits::take(t) };
    let JournalLimits { max_size, segment_size, max_backlog, .. } = config.limits;
    if config.dir.as_os_str().is_empty() {
        t.wrong("dir", "empty", "a directory on ext4 or XFS");
    }
    if segment_size > max_size / MIN_SEGMENTS {
        let most = bytes_text(max_size / MIN_SEGMENTS);
        t.wrong("segment_size", "too large for max_size", format_args!("at most a quarter of it, \"{most}\""));
    }
    if max_backlog > max_size {
        t.wrong("max_backlog", "larger than max_size", format_args!("at most \"{}\"", bytes_text(max_size)));
    }
    config
}

fn read_sources(root: &mut TomlTable, defaults: &SourceDefaults, config: &Config, mistakes: &Diagnostics) -> Vec<Arc<Source>> {
    let mut table = root.take_section("sources");
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    let mut sources = Vec::new();
    let names = table.keys();
    if names.is_empty() {
        root.wrong("sources", "no source is configured", "[sources.NAME] with provider = \"…\" or a recipe of your own");
    }
    for name in names {
        let Some(entry) = table.take_table(&name) else { continue };
        let (start, at_path, at_body) = (entry.place.clone(), entry.place_of("path"), entry.place_of("max_body"));
        if !is_name(&name) {
            start.wrong("not a name for a source", "1 to 64 letters, digits, - or _, the first a letter or digit");
        }
        let Some(source) = Source::compile(&name, entry, defaults, mistakes) else { continue };
        if let Some(other) = paths.insert(source.path.clone(), name) {
            at_path.wrong(format_args!("{} already belongs to sources.{other}", source.path), "a path of its own");
        }
        let (max_body, most, room) =
            (source.max_body as u64, config.server.limits.max_in_flight as u64, config.journal.largest_body());
        if source.max_body == defaults.max_body {
            // Checked in [server].
        } else if max_body > most {
            at_body.wrong("larger than [server] max_in_flight", format_args!("at most \"{}\"", bytes_text(most)));
        } else if max_body >= room {
            at_body.wrong(NOT_KEPT, format_args!("less than \"{}\"", bytes_text(room)));
        }
        sources.push(Arc::new(source));
    }
    sources
}

fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    name.len() <= 64 && name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.chars().all(plain)
}

fn address(t: &mut TomlTable, default: SocketAddr) -> SocketAddr {
    let Some(item) = t.take("listen") else { return default };
    let place = item.place.clone();
    let Some(text) = item.text() else { return default };
    text.parse().unwrap_or_else(|_| {
        place.wrong("not an address and port", "such as \"0.0.0.0:8080\" or \"[::]:8080\"");
        default
    })
}

/// Both files or neither, and what is in them can be served.
fn tls(t: &mut TomlTable) -> Option<CertificateFiles> {
    let (cert, key) = (t.take_str("tls_cert"), t.take_str("tls_key"));
    let files = match (cert, key) {
        (Some(cert), Some(key)) => CertificateFiles { cert: cert.into(), key: key.into() },
        (None, None) => return None,
        (given, _) => {
            let (missing, other) = if given.is_some() { ("tls_key", "tls_cert") } else { ("tls_cert", "tls_key") };
            t.wrong(other, format_args!("without {missing}"), "both, or neither for plain HTTP");
            return None;
        }
    };
    match files.read() {
        Ok(_) => {}
        Err(error @ CertificateError::Certificate { .. }) => t.wrong("tls_cert", error, "a file with a certificate chain in PEM"),
        Err(error @ CertificateError::Key { .. }) => t.wrong("tls_key", error, "a file with the private key of tls_cert in PEM"),
    }
    Some(files)
}

fn networks(t: &mut TomlTable) -> Vec<IpNet> {
    t.take_list("trusted_proxies").unwrap_or_default().into_iter().filter_map(source::network).collect()
}

/// One being written, one in reserve for recovery, one being read, one to delete.
const NOT_KEPT: &str = "larger than [journal] max_backlog and max_size have room for";
const MIN_SEGMENTS: u64 = 4;
