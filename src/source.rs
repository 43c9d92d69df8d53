//! A source is one configured endpoint: a provider's recipe, overridden by the operator's entry, and the secrets. It is compiled
//! once from the configuration. This module reads no deliveries. Its only I/O is to read the secrets that the entry refers to.

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
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The request path; `/hooks/NAME` by default.
    pub path: String,
    /// The URL that providers call: the entry's, else the server's. Always present if the recipe signs the URL.
    pub public_url: Option<PublicUrl>,
    /// The Kafka topic of its events.
    pub topic: Arc<str>,
    /// The name of the recipe; `None` for an inline recipe.
    pub provider: Option<Arc<str>>,
    /// The recipe, overridden by the operator's entry.
    pub recipe: Arc<Recipe>,
    /// The keys that may sign a delivery. At least one, all with distinct names.
    pub secrets: Vec<Key>,
    /// The largest body, in bytes: the entry's, else the recipe's, else the server's.
    pub max_body: usize,
    /// The time from a delivery's first byte to its answer.
    pub deadline: Duration,
    /// The deduplication settings.
    pub dedupe: SourceDedupe,
    /// The event types that are stored. A verified delivery of another type gets the accepted reply and is dropped.
    pub types: TypeFilter,
    /// True if every delivery gets the accepted reply, even a rejected one (`danger_shadow`). Used for a trial run next to an
    /// endpoint that still processes the deliveries.
    pub shadow: bool,
    /// Request headers forwarded to Kafka as `http-<name>`.
    pub header_allow_list: Vec<HeaderName>,
    /// The networks from which deliveries are accepted; empty to accept every address.
    pub allow_from: Vec<IpNet>,
    /// The rate limit for genuine deliveries, duplicates included; `None` for no limit.
    pub max_rate: Option<Rate>,
}

/// The deduplication settings of a source.
#[derive(Clone, Debug)]
pub struct SourceDedupe {
    /// The dedupe window: the entry's, else the longer of the default and the time over which the provider retries.
    pub window: Duration,
    /// The window in which byte-equal bodies are duplicates. Only for recipes without an id, and only if the operator sets it.
    pub body: Option<Duration>,
}

/// The settings that a source takes from the rest of the configuration.
#[derive(Clone, Debug)]
pub struct SourceDefaults {
    /// The topic of a source without its own topic; `{source}` stands for the source's name.
    pub topic: String,
    /// `[server] public_url`, for sources without their own URL.
    pub public_url: Option<String>,
    /// The largest body, in bytes, if neither entry nor recipe sets a limit.
    pub max_body: usize,
    /// The server's own deadline for an answer.
    pub request_deadline: Duration,
    /// The default dedupe window.
    pub window: Duration,
}

impl Source {
    /// Compiles `[sources.NAME]`. Reports mistakes to `diagnostics`, the list that `entry` was parsed with. Returns `None` if the
    /// entry does not make a usable source.
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
            table.expected("types", "a recipe with event.type", "none; add event.type or remove types");
        }
        table.finish();
        let recipe = recipe.filter(|_| is_known)?;
        if dedupe_body.is_some() && !recipe.event.id.0.is_empty() {
            body_location.expected("a recipe without event.id", "one with it; remove dedupe.body or add event.id = []");
        }
        if public_url.is_none() && recipe.signs_url() {
            let found = "nothing; the provider signs this URL: add it here or to [server]";
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

    /// True if deliveries from this address are accepted. An IPv4 address matches in its IPv6-mapped form as well.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow_from.is_empty() || self.allow_from.iter().any(|network| network.contains(&address))
    }

    /// Returns the answer to send. Shadow mode replaces a rejection with the accepted reply, except for a sender that has
    /// disconnected. It does not change the reply to an endpoint challenge.
    pub fn apply_shadow(&self, answer: Answer) -> Answer {
        let is_rejection = !answer.status.is_success() && answer.outcome != Outcome::Disconnected;
        if self.shadow && is_rejection { self.recipe.replies.accepted.clone().over(answer) } else { answer }
    }

    /// Returns the first key that is valid at `now`, else the first key.
    pub fn key_at(&self, now: UnixMillis) -> &Key {
        self.secrets.iter().find(|key| key.is_valid_at(now)).unwrap_or(&self.secrets[0])
    }
}

/// Returns the recipe that the entry overrides, and true unless the provider is unknown. An inline recipe overrides no recipe.
/// For an unknown provider, returns the recipe with the most similar name, else a stand-in, so that the same pass finds the
/// other mistakes in the entry.
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
        None => "run `hookhold providers` for the names, or remove it and write the recipe inline".to_owned(),
    };
    item.location.expected(PROVIDER, format_args!("an unknown name; {remedy}"));
    (providers::table(near.unwrap_or(STAND_IN), diagnostics), false)
}

/// Returns a recipe as the base of `entry`. Removes `content` and `content_variants` from the recipe if the entry has one of
/// them, because the two keys exclude each other.
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
        table.expected("allow_from", "at least one network", "an empty array; remove it to accept every address");
        return None;
    }
    items.into_iter().map(network).collect::<Vec<_>>().into_iter().collect()
}

/// Parses a network or a single address.
pub(crate) fn network(item: Item) -> Option<IpNet> {
    let text = item.clone().string_as(NETWORK)?;
    let single = text.parse::<IpAddr>().map(IpNet::from);
    match single.or_else(|_| text.parse::<IpNet>()).map(canonical) {
        Ok(network) if network.trunc() == network => Some(network),
        Ok(network) => {
            item.expected("a network without bits after its prefix", format_args!("{item}; write \"{}\"", network.trunc()))
        }
        Err(_) => item.unexpected(NETWORK),
    }
}

/// Converts a network of IPv4-mapped IPv6 addresses to a network of IPv4 addresses, because addresses are compared as IPv4.
fn canonical(network: IpNet) -> IpNet {
    let address = network.addr().to_canonical();
    let prefix = network.prefix_len().checked_sub(IPV4_IN_IPV6).filter(|_| network.addr().is_ipv6() && address.is_ipv4());
    prefix.and_then(|prefix| IpNet::new(address, prefix).ok()).unwrap_or(network)
}

fn header_name(item: Item) -> Option<HeaderName> {
    let text = item.clone().string()?;
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if !is_credential(&name) => Some(name),
        _ => item.unexpected("the name of a header that holds no credentials"),
    }
}

/// Returns each secret with the item that names it.
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
            let found = format_args!("{} twice; name one: {{ name = \"…\", from = \"…\" }}", secret.name);
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

/// The recipe that replaces an unknown provider. It accepts any text as a secret and has every part, so it adds no
/// mistakes of its own to the report.
const STAND_IN: &str = "stripe";
/// The required keys of an inline recipe.
const PROOF: [&str; 4] = ["auth", "algorithm", "signature", "content"];
const PROVIDER: &str = "a provider such as \"stripe\"";
const PATH: &str = "a path such as \"/hooks/stripe\" without query, fragment or escapes";
const TOPIC: &str = "a topic name of 1 to 249 letters, digits, \".\", \"_\" and \"-\"";
const NETWORK: &str = "an address or network such as \"3.18.12.63\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
/// Length of the prefix `::ffff:` in front of an IPv4 address, in bits.
const IPV4_IN_IPV6: u8 = 96;
/// The longest dedupe window.
const MAX_WINDOW: Duration = Duration::from_secs(90 * 86_400);
