//! Compiles sources from the configuration. A source is one configured endpoint. It consists of a provider's recipe, the
//! operator's overrides and the secrets. This module does not read deliveries. Its only I/O is reading the secrets that the
//! configuration refers to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::diagnostic::nearest;
use crate::header_field::is_credential;
use crate::outcome::Outcome;
use crate::secret;
use crate::source::recipe::Recipe;
use crate::source::url::PublicUrl;
use crate::toml_value::{Diagnostics, Item, Location, TomlTable};
use crate::units::Rate;

pub mod key;
pub(crate) mod pointers;
pub mod providers;
mod read;
pub mod recipe;
mod type_filter;
pub mod url;
mod validate;

pub use key::Key;
pub use providers::{PROVIDERS, provider};
pub use type_filter::TypeFilter;

/// One configured endpoint: its path, the recipe and secrets that verify its deliveries, and the topic of its events.
#[derive(Clone, Debug)]
pub struct Source {
    /// The source's name in the configuration.
    pub name: Arc<str>,
    /// The request path, `/hooks/NAME` by default.
    pub path: String,
    /// The URL that the provider calls. The source's own `public_url` overrides `[server] public_url`. The value is always
    /// present if the signature covers the URL.
    pub public_url: Option<PublicUrl>,
    /// The Kafka topic of the source's events.
    pub topic: Arc<str>,
    /// The name of the built-in recipe, or `None` for an inline recipe.
    pub provider: Option<Arc<str>>,
    /// The recipe, with the operator's overrides.
    pub recipe: Arc<Recipe>,
    /// The keys of the source's configured secrets: at least one key, with distinct names.
    pub secrets: Vec<Key>,
    /// The maximum size of a request body, in bytes. The source's own limit overrides the recipe's limit, and the recipe's
    /// limit overrides the server's limit.
    pub max_body: usize,
    /// The maximum time from the first byte of a delivery to its response.
    pub deadline: Duration,
    /// The deduplication settings of the source.
    pub dedupe: SourceDedupe,
    /// The event types that the source stores. If the type of a verified delivery does not match, hookhold sends the reply for
    /// accepted deliveries and drops the delivery.
    pub types: TypeFilter,
    /// True if hookhold replies to rejected deliveries as if they were accepted (`danger_shadow`). Intended for a trial run in
    /// parallel with another endpoint that still processes the deliveries.
    pub shadow: bool,
    /// The names of the request headers that hookhold forwards to Kafka as `http-<name>`.
    pub header_allow_list: Vec<HeaderName>,
    /// The networks from which hookhold accepts deliveries. An empty list accepts every address.
    pub allow_from: Vec<IpNet>,
    /// The rate limit for genuine deliveries, including duplicates, or `None` if the source has no rate limit.
    pub max_rate: Option<Rate>,
}

/// The deduplication settings of a source.
#[derive(Clone, Debug)]
pub struct SourceDedupe {
    /// The dedupe window. The default is the longer of `[dedupe] window` and the time over which the provider retries.
    pub window: Duration,
    /// The window within which hookhold treats identical bodies as duplicates, or `None` if the operator sets no such window.
    /// Only a source whose recipe has no event id may have such a window.
    pub body: Option<Duration>,
}

/// The defaults for options that a source does not set. Other sections of the configuration define these defaults.
#[derive(Clone, Debug)]
pub struct SourceDefaults {
    /// The topic name for sources that set no topic. hookhold replaces `{source}` in this name with the source's name.
    pub topic: String,
    /// The value of `[server] public_url`, for sources that set no URL of their own.
    pub public_url: Option<String>,
    /// The maximum size of a request body in bytes, for sources whose entry and recipe set no limit.
    pub max_body: usize,
    /// The value of `[server] request_deadline`, the server's own time limit for a response.
    pub request_deadline: Duration,
    /// The value of `[dedupe] window`.
    pub window: Duration,
}

impl Source {
    /// Compiles the configuration entry `[sources.NAME]` into a source. Reports mistakes to `diagnostics`, which must be the
    /// list that `entry` also reports to. Returns `None` if the entry does not define a usable source.
    pub fn compile(name: &str, mut entry: TomlTable, defaults: &SourceDefaults, diagnostics: &Diagnostics) -> Option<Source> {
        let provider = entry.take("provider");
        let (base, is_known) = base(&entry, provider.as_ref(), diagnostics);
        let mut table = match base {
            Some(base) => without_content(base, &entry).overlaid(entry),
            None => entry,
        };
        let path = table.take("path").map_or(Some(format!("/hooks/{name}")), path);
        let public_url_location = table.location_of("public_url");
        let public_url = table.take("public_url").map(url::read).or_else(|| defaults.public_url.clone());
        let topic = table.take("topic").map_or(Some(defaults.topic.replace("{source}", name)), topic);
        let headers = table.take_list("headers").unwrap_or_default();
        let header_allow_list = headers.into_iter().filter_map(header_name).collect();
        let allow_from = allow_from(&mut table);
        let max_rate = table.take_rate("max_rate");
        let secrets = secrets(&mut table);
        let (dedupe_window, dedupe_body, body_location) = dedupe(&mut table);
        let types = TypeFilter::take(&mut table);
        let shadow = table.take_bool("danger_shadow").unwrap_or(false);
        let recipe = read::recipe(&mut table);
        let has_no_type = recipe.as_ref().is_some_and(|recipe| recipe.event.kind.0.is_empty());
        if !types.accepts_all() && has_no_type && is_known && table.accepts(&["event"]) {
            table.expected("types", "a recipe with event.type", "a recipe without it; add event.type or remove types");
        }
        table.finish();
        let recipe = recipe.filter(|_| is_known)?;
        if dedupe_body.is_some() && !recipe.event.id.0.is_empty() {
            body_location
                .expected("a recipe without event.id", "a recipe with event.id; remove dedupe.body or add event.id = []");
        }
        if public_url.is_none() && recipe.signs_url() {
            let found = "nothing; set public_url here or in [server], because the provider signs the URL";
            public_url_location.expected(url::EXPECTED, found);
        }
        let secrets = keys(secrets?, &recipe);
        Some(Source {
            name: name.into(),
            path: path?,
            public_url: public_url.as_deref().map(PublicUrl::new),
            topic: topic?.into(),
            provider: provider.and_then(Item::string).map(Into::into),
            secrets: secrets?,
            max_body: recipe.limits.max_body.map_or(defaults.max_body, |size| size as usize),
            deadline: deadline(defaults.request_deadline, recipe.limits.respond_within),
            dedupe: SourceDedupe {
                window: dedupe_window.unwrap_or(defaults.window.max(recipe.limits.gives_up_after.unwrap_or_default())),
                body: dedupe_body,
            },
            types,
            shadow,
            header_allow_list,
            allow_from: allow_from?,
            max_rate,
            recipe: Arc::new(recipe),
        })
    }

    /// Returns true if the source accepts deliveries from `address`. An IPv4 address and its IPv6-mapped form are equivalent.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow_from.is_empty() || self.allow_from.iter().any(|network| network.contains(&address))
    }

    /// Applies shadow mode to `answer`. If the source is in shadow mode, replaces a rejection with the reply for accepted
    /// deliveries, unless the sender has disconnected. Does not change the reply to an endpoint challenge.
    pub fn apply_shadow(&self, answer: Answer) -> Answer {
        let is_rejection = !answer.status.is_success() && answer.outcome != Outcome::Disconnected;
        if self.shadow && is_rejection { self.recipe.replies.accepted.clone().over(answer) } else { answer }
    }

    /// Returns the first key that is valid at `now`, or the first key of the source if no key is valid.
    pub fn key_at(&self, now: UnixMillis) -> &Key {
        self.secrets.iter().find(|key| key.is_valid_at(now)).unwrap_or(&self.secrets[0])
    }
}

/// Returns the built-in recipe that the entry overrides (`None` for an inline recipe), and a flag. The flag is true if the
/// entry names a known provider or defines an inline recipe. If the provider is unknown, returns the recipe with the most
/// similar name. If no name is similar or the provider is missing, returns the placeholder recipe. With the returned
/// recipe, hookhold can report all other mistakes in the entry in the same pass.
fn base(entry: &TomlTable, provider: Option<&Item>, diagnostics: &Diagnostics) -> (Option<TomlTable>, bool) {
    let Some(item) = provider else {
        if entry.keys().iter().any(|key| PROOF.contains(&key.as_str())) {
            return (None, true);
        }
        let expected = format!("{PROVIDER} or an inline recipe ({})", PROOF.join(", "));
        entry.expected("provider", expected, "neither");
        return (providers::table(STAND_IN, diagnostics), false);
    };
    let Some(name) = item.clone().string_as(PROVIDER) else { return (providers::table(STAND_IN, diagnostics), false) };
    if let Some(table) = providers::table(&name, diagnostics) {
        return (Some(table), true);
    }
    let near = nearest(&name, PROVIDERS.iter().map(|(name, _)| *name));
    let remedy = match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "run `hookhold providers` for the names, or remove provider and write the recipe inline".to_owned(),
    };
    item.location.expected(PROVIDER, format_args!("an unknown name; {remedy}"));
    (providers::table(near.unwrap_or(STAND_IN), diagnostics), false)
}

/// Returns the recipe `base`, without its signed content if `entry` defines signed content. In that case, removes both
/// `content` and `content_variants`, because a recipe with one of these keys from `base` and the other from `entry` is invalid.
fn without_content(mut base: TomlTable, entry: &TomlTable) -> TomlTable {
    const ALTERNATIVES: [&str; 2] = ["content", "content_variants"];
    if entry.keys().iter().any(|key| ALTERNATIVES.contains(&key.as_str())) {
        ALTERNATIVES.iter().for_each(|key| drop(base.take(key)));
    }
    base
}

fn path(item: Item) -> Option<String> {
    let text = item.clone().string_as(PATH)?;
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"?#%\"<>\\^`{|}".contains(&byte);
    if text.starts_with('/') && text.bytes().all(legal) {
        return Some(text);
    }
    item.unexpected(PATH)
}

fn topic(item: Item) -> Option<String> {
    let text = item.clone().string_as(TOPIC)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=249).contains(&text.len()) && text.bytes().all(legal) && text != "." && text != ".." {
        return Some(text);
    }
    item.unexpected(TOPIC)
}

fn allow_from(table: &mut TomlTable) -> Option<Vec<IpNet>> {
    let Some(items) = table.take_list("allow_from") else { return Some(Vec::new()) };
    if items.is_empty() {
        table.expected("allow_from", "at least one network", "an empty array; remove allow_from to accept every address");
        return None;
    }
    items.into_iter().map(network).collect::<Vec<_>>().into_iter().collect()
}

/// Parses an IP network or a single IP address. If the text is invalid, reports the mistake and returns `None`.
pub(crate) fn network(item: Item) -> Option<IpNet> {
    let text = item.clone().string_as(NETWORK)?;
    let single = text.parse::<IpAddr>().map(IpNet::from);
    match single.or_else(|_| text.parse::<IpNet>()).map(canonical) {
        Ok(network) if network.trunc() == network => Some(network),
        Ok(network) => {
            item.expected("a network whose bits after the prefix are zero", format_args!("{item}; write \"{}\"", network.trunc()))
        }
        Err(_) => item.unexpected(NETWORK),
    }
}

/// Converts a network of IPv4-mapped IPv6 addresses to the equivalent IPv4 network, because hookhold compares IPv4-mapped
/// addresses as IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    let address = network.addr().to_canonical();
    let prefix = network.prefix_len().checked_sub(IPV4_IN_IPV6).filter(|_| network.addr().is_ipv6() && address.is_ipv4());
    prefix.and_then(|prefix| IpNet::new(address, prefix).ok()).unwrap_or(network)
}

fn header_name(item: Item) -> Option<HeaderName> {
    let text = item.clone().string()?;
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if !is_credential(&name) => Some(name),
        _ => item.unexpected("the name of a header that contains no credentials"),
    }
}

/// Reads the configured secrets. Returns pairs of a configuration value and the secret that the value refers to. Returns `None`
/// if the list is missing or empty, or if a secret cannot be read.
fn secrets(table: &mut TomlTable) -> Option<Vec<(Item, secret::Secret)>> {
    let Some(items) = table.take_list("secrets").filter(|items| !items.is_empty()) else {
        table.missing("secrets", "an array of \"env:NAME\" or \"file:PATH\"");
        return None;
    };
    items.into_iter().map(|item| Some((item.clone(), secret::read(item)?))).collect::<Vec<_>>().into_iter().collect()
}

fn keys(secrets: Vec<(Item, secret::Secret)>, recipe: &Recipe) -> Option<Vec<Key>> {
    let scheme = recipe.proof.scheme();
    let mut keys: Vec<Key> = Vec::new();
    for (item, secret) in &secrets {
        if keys.iter().any(|key| key.name == secret.name) {
            let found = format_args!("two secrets named {}; rename one, as in {{ name = \"…\", from = \"…\" }}", secret.name);
            item.location.expected("secrets with distinct names", found);
        }
        match Key::decode(secret, &recipe.proof.key_format, &scheme) {
            Ok(key) => keys.push(key),
            Err(found) => item.location.expected("a secret in the form that key_format describes", found),
        }
    }
    (keys.len() == secrets.len()).then_some(keys)
}

fn dedupe(table: &mut TomlTable) -> (Option<Duration>, Option<Duration>, Location) {
    let mut dedupe = table.take_section("dedupe");
    let window = dedupe.take_duration("window", Duration::from_secs(1)..=MAX_WINDOW);
    let body = dedupe.take_duration("body", Duration::from_secs(1)..=MAX_WINDOW);
    let location = dedupe.location_of("body");
    dedupe.finish();
    (window, body, location)
}

fn deadline(server: Duration, respond_within: Option<Duration>) -> Duration {
    respond_within.map_or(server, |limit| server.min(limit * 4 / 5))
}

/// Name of the placeholder recipe, which hookhold uses if the provider is missing or unknown. This recipe has all required
/// parameters and accepts any text as a secret, so hookhold reports only the operator's own mistakes.
const STAND_IN: &str = "stripe";
/// The required keys of an inline recipe.
const PROOF: [&str; 4] = ["auth", "algorithm", "signature", "content"];
const PROVIDER: &str = "a provider such as \"stripe\"";
const PATH: &str = "a path such as \"/hooks/stripe\" without query, fragment or percent-encoding";
const TOPIC: &str = "a topic name of 1 to 249 letters, digits, \".\", \"_\" and \"-\"";
const NETWORK: &str = "an address or network such as \"3.18.12.63\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
/// Length of the IPv6 prefix `::ffff:0:0/96` of IPv4-mapped addresses, in bits.
const IPV4_IN_IPV6: u8 = 96;
/// Maximum length of the dedupe window.
const MAX_WINDOW: Duration = Duration::from_secs(90 * 86_400);
