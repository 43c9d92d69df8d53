//! Reads each section of the configuration, then checks the options against each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Config, JournalConfig, KafkaCheck, ServerConfig, admin, kafka, recipe_files};
use crate::certificate::{CertificateError, CertificateFiles};
use crate::limits::{DedupeLimits, JournalLimits, ServerLimits};
use crate::source::{self, Source, SourceDefaults, url};
use crate::toml_value::{Diagnostics, Item, Location, TomlTable};
use crate::units::bytes_text;

/// Reads and checks all sections of a configuration file.
pub(super) fn root(file: &str, mut root: TomlTable, kafka: KafkaCheck, diagnostics: &Diagnostics) -> Config {
    let stated = root.clone().flatten().into_iter().map(|(key, item): (_, Item)| (key, item.to_string())).collect();
    let mut section = |name| root.take_section(name);
    let [mut server, mut admin, mut journal, mut dedupe] = ["server", "admin", "journal", "dedupe"].map(&mut section);
    let mut providers = section("providers");
    let (recipes, in_files) = recipe_files::take(&mut providers);
    in_files.into_iter().for_each(|diagnostic| diagnostics.add(diagnostic));
    let config = Config {
        path: file.into(),
        server: self::server(&mut server),
        admin: admin::read(&mut admin),
        journal: self::journal(&mut journal),
        dedupe: DedupeLimits::take(&mut dedupe),
        kafka: None,
        providers: recipes,
        sources: Vec::new(),
        stated,
        references: BTreeMap::new(),
    };
    let (port, public) = (config.admin.listen.port(), config.server.listen.port());
    if port == public && port != 0 && server.accepts(&["listen"]) && admin.accepts(&["listen"]) {
        admin.expected("listen", "a port other than that of [server] listen", format_args!("{port}; use a private port"));
    }
    let bounds = BodyBounds {
        max_in_flight: server.accepts(&["max_in_flight"]).then_some(config.server.limits.max_in_flight as u64),
        storable: journal.accepts(&["max_size", "max_backlog", "segment_size"]).then(|| config.journal.body_bound()),
    };
    if server.accepts(&["max_body", "max_in_flight"]) {
        bounds.check(config.server.limits.max_body as u64, &server.location_of("max_body"));
    }
    let lacks_tls = config.server.tls.is_none() && server.accepts(&["tls_cert", "tls_key"]);
    [server, admin, journal, dedupe, providers].into_iter().for_each(TomlTable::finish);
    let kafka = root.take_table("kafka").map(|table| kafka::read(table, kafka));
    let topic = kafka.as_ref().map_or_else(|| kafka::TOPIC.to_owned(), |kafka| kafka.topic.clone());
    let sources = read_sources(&mut root, &defaults(&config, topic), &bounds, lacks_tls, diagnostics);
    root.finish();
    kafka.iter().for_each(|kafka| kafka.check_dead_letter(&sources));
    let references = diagnostics.references();
    Config { references, kafka: kafka.map(|kafka| kafka.config), sources, ..config }
}

/// Upper bounds for the size of a body, in bytes, that follow from other options. A bound is `None` if one of these options has
/// a mistake.
struct BodyBounds {
    /// Inclusive bound: `max_in_flight`.
    max_in_flight: Option<u64>,
    /// Exclusive bound: see [`JournalConfig::body_bound`].
    storable: Option<u64>,
}

impl BodyBounds {
    fn check(&self, max_body: u64, location: &Location) {
        let found = bytes_text(max_body);
        if let Some(most) = self.max_in_flight.filter(|most| max_body > *most) {
            let found = format_args!("\"{found}\"; lower max_body or raise max_in_flight");
            location.expected(format_args!("at most [server] max_in_flight, \"{}\"", bytes_text(most)), found);
        } else if let Some(room) = self.storable.filter(|room| max_body >= *room) {
            let origin = "the limit from [journal] max_backlog and max_size";
            let found = format_args!("\"{found}\"; lower max_body, or raise max_backlog and max_size");
            location.expected(format_args!("less than \"{}\", {origin}", bytes_text(room)), found);
        }
    }
}

fn defaults(config: &Config, topic: String) -> SourceDefaults {
    SourceDefaults {
        max_body: config.server.limits.max_body,
        request_deadline: config.server.limits.request_deadline,
        window: config.dedupe.window,
        public_url: config.server.public_url.clone(),
        providers: config.providers.clone(),
        topic,
    }
}

fn server(t: &mut TomlTable) -> ServerConfig {
    let default = ServerConfig::default();
    let config = ServerConfig {
        listen: admin::address(t, default.listen),
        public_url: t.take("public_url").map(url::read),
        limits: ServerLimits::take(t),
        tls: tls(t),
        trusted_proxies: networks(t),
        proxy_protocol: t.take_bool("proxy_protocol").unwrap_or(default.proxy_protocol),
    };
    if config.proxy_protocol && config.trusted_proxies.is_empty() && t.accepts(&["trusted_proxies"]) {
        t.expected("proxy_protocol", "networks in trusted_proxies", "none; add the networks of the proxies that send the header");
    }
    let ServerLimits { max_body, max_in_flight, .. } = config.limits;
    if max_body > max_in_flight && t.accepts(&["max_body", "max_in_flight"]) {
        let [least, found] = [max_body, max_in_flight].map(|size| bytes_text(size as u64));
        let found = format_args!("\"{found}\"; raise max_in_flight or lower max_body");
        t.expected("max_in_flight", format_args!("at least max_body, \"{least}\""), found);
    }
    config
}

/// Reads the options of the section `[journal]`.
pub(super) fn journal(t: &mut TomlTable) -> JournalConfig {
    let dir = t.take_path("dir").unwrap_or(JournalConfig::default().dir);
    let danger_network_filesystem = t.take_bool("danger_network_filesystem").unwrap_or_default();
    let config = JournalConfig { dir, danger_network_filesystem, limits: JournalLimits::take(t) };
    let JournalLimits { max_size, segment_size, max_backlog, .. } = config.limits;
    if config.dir.as_os_str().is_empty() {
        t.expected("dir", "a directory on ext4 or XFS", "an empty string");
    }
    if segment_size > max_size / MIN_SEGMENTS && t.accepts(&["max_size", "segment_size"]) {
        let [most, found] = [max_size / MIN_SEGMENTS, segment_size].map(bytes_text);
        let found = format_args!("\"{found}\"; lower segment_size or raise max_size");
        t.expected("segment_size", format_args!("at most a quarter of max_size, \"{most}\""), found);
    }
    if max_backlog > max_size && t.accepts(&["max_size", "max_backlog"]) {
        let [most, found] = [max_size, max_backlog].map(bytes_text);
        let found = format_args!("\"{found}\"; lower max_backlog or raise max_size");
        t.expected("max_backlog", format_args!("at most max_size, \"{most}\""), found);
    }
    config
}

fn read_sources(
    root: &mut TomlTable,
    defaults: &SourceDefaults,
    bounds: &BodyBounds,
    lacks_tls: bool,
    diagnostics: &Diagnostics,
) -> Vec<Arc<Source>> {
    let mut table = root.take_section("sources");
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    let mut sources = Vec::new();
    let names = table.keys();
    if names.is_empty() {
        root.expected(
            "sources",
            "at least one section such as [sources.stripe]",
            "nothing; run `hookhold init` to write a section",
        );
    }
    for name in names {
        let Some(entry) = table.take_table(&name) else { continue };
        let start = entry.location.clone();
        let [at_path, at_body, at_ca] = ["path", "max_body", "client_ca"].map(|key| entry.location_of(key));
        if !is_name(&name) {
            start.expected(SOURCE_NAME, "an invalid name");
        }
        let Some(source) = Source::compile(&name, entry, defaults, diagnostics) else { continue };
        if let Some(other) = paths.insert(source.path.clone(), name) {
            let found = format_args!("{}, the path of sources.{other}; choose another path", source.path);
            at_path.expected("a path that no other source has", found);
        }
        if lacks_tls && source.clients.certificate.is_some() {
            let found = "neither; set both, because only the server of the TLS connection can check a client certificate";
            at_ca.expected("[server] tls_cert and tls_key", found);
        }
        // The default of this option is `[server] max_body`, which `root` has already checked.
        if source.max_body != defaults.max_body {
            bounds.check(source.max_body as u64, &at_body);
        }
        sources.push(Arc::new(source));
    }
    sources
}

fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    name.len() <= 64 && name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.chars().all(plain)
}

/// Reads `tls_cert` and `tls_key`, and checks that the server can use the certificate and the key. Returns `None` if either
/// option is missing. Reports a mistake if only one of them is missing.
fn tls(t: &mut TomlTable) -> Option<CertificateFiles> {
    let (cert, key) = (t.take_path("tls_cert"), t.take_path("tls_key"));
    let files = match (cert, key) {
        (Some(cert), Some(key)) => CertificateFiles { cert, key },
        (None, None) => return None,
        (given, _) => {
            let (missing, other) = if given.is_some() { ("tls_key", "tls_cert") } else { ("tls_cert", "tls_key") };
            if t.accepts(&[missing]) {
                t.expected(other, "tls_cert and tls_key, or neither for plain HTTP", format_args!("no {missing}; add {missing}"));
            }
            return None;
        }
    };
    if t.location.may_lack_secrets() {
        return Some(files);
    }
    match files.read() {
        Ok(_) => {}
        Err(error @ CertificateError::Certificate { .. }) => t.report("tls_cert", error),
        Err(error @ CertificateError::Key { .. }) => t.report("tls_key", error),
    }
    Some(files)
}

fn networks(t: &mut TomlTable) -> Vec<IpNet> {
    t.take_list("trusted_proxies").unwrap_or_default().into_iter().filter_map(source::network).collect()
}

const SOURCE_NAME: &str = "a name of 1 to 64 letters, digits, \"-\" and \"_\" that begins with a letter or digit";
/// Minimum number of segments in `max_size`: one to write, one in reserve for recovery, one to read, and one to delete.
const MIN_SEGMENTS: u64 = 4;
