//! A source is an endpoint that an operator trusts for a reason: a provider's recipe, the operator's own entry laid over
//! it, and secrets. Compiled once from configuration; nothing in here looks at a delivery or does I/O beyond reading the
//! secrets that the entry refers to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use ipnet::IpNet;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::event::is_secret;
use crate::outcome::Outcome;
use crate::secret;
use crate::source::recipe::{Recipe, Reply};
use crate::source::url::PublicUrl;
use crate::toml_value::{Diagnostics, Item, Location, TomlTable};
use crate::units::Rate;

pub mod key;
pub mod pointers;
pub mod providers;
mod read;
pub mod recipe;
mod types;
pub mod url;
mod validate;

pub use key::Key;
pub use providers::{PROVIDERS, provider};
pub use types::Types;

/// One configured endpoint: where it listens, what it believes, where its events go.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The request path; `/hooks/NAME` unless the entry says otherwise.
    pub path: String,
    /// Where providers call it: the entry's, else the server's. Always there when the recipe signs the URL.
    pub public_url: Option<PublicUrl>,
    /// The Kafka topic of its events.
    pub topic: Arc<str>,
    /// The name of the recipe; `None` for an inline one.
    pub provider: Option<Arc<str>>,
    /// How its deliveries are proved and described.
    pub recipe: Arc<Recipe>,
    /// Any of them may have signed a delivery; at least one, names distinct.
    pub secrets: Vec<Key>,
    /// The largest body, in bytes: the entry's, else the recipe's, else the server's.
    pub max_body: usize,
    /// A delivery is answered within this time from its first byte.
    pub deadline: Duration,
    /// How long a repeat is recognised: the entry's, else the longer of the default and the recipe's retries.
    pub window: Duration,
    /// For recipes without an id, and only for them: byte-equal bodies within this time are repeats. The operator's opt-in.
    pub dedupe_body: Option<Duration>,
    /// The event types that are kept; a verified delivery of another type is answered `ok` and forgotten.
    pub types: Types,
    /// Everybody is answered `ok`, whatever becomes of the delivery: `danger_shadow`, for a first day beside an endpoint that
    /// still does the work.
    pub shadow: bool,
    /// The answer to an accepted delivery.
    pub ok: Reply,
    /// The status of a refused one.
    pub bad_status: StatusCode,
    /// Request headers passed on to Kafka as `http-<name>`.
    pub header_allow_list: Vec<HeaderName>,
    /// The networks that deliveries may come from; empty: from anywhere.
    pub allow_from: Vec<IpNet>,
    /// Genuine deliveries, repeats included; beyond it the sender is told to come again. `None`: as many as come.
    pub max_rate: Option<Rate>,
}

/// What a source takes from the rest of the configuration.
#[derive(Clone, Debug)]
pub struct SourceDefaults {
    /// The topic of a source that names none; `{source}` stands for its name.
    pub topic: String,
    /// `[server] public_url`, for sources without one of their own.
    pub public_url: Option<String>,
    /// The largest body, in bytes, where neither entry nor recipe says one.
    pub max_body: usize,
    /// The server's own deadline for an answer.
    pub request_deadline: Duration,
    /// How long repeats are recognised.
    pub window: Duration,
}

impl Source {
    /// Compiles `[sources.NAME]`. Diagnostics are noted in `mistakes`, the list that `entry` was parsed with; `None` when
    /// they leave no usable source.
    pub fn compile(name: &str, mut entry: TomlTable, defaults: &SourceDefaults, mistakes: &Diagnostics) -> Option<Source> {
        let provider = entry.take("provider");
        let (base, is_known) = base(provider.as_ref(), mistakes);
        let mut table = match base {
            Some(base) => without_content(base, &entry).overlaid(entry),
            None => entry,
        };
        let path = table.take("path").map_or(Some(format!("/hooks/{name}")), path);
        let public_url_place = table.place_of("public_url");
        let public_url = table.take("public_url").map(url::read).or_else(|| defaults.public_url.clone());
        let topic = table.take("topic").map_or(Some(defaults.topic.replace("{source}", name)), topic);
        let headers = table.take_list("headers").unwrap_or_default();
        let header_allow_list = headers.into_iter().filter_map(header_name).collect();
        let allow_from = allow_from(&mut table);
        let max_rate = table.take_rate("max_rate");
        let secrets = secrets(&mut table);
        let (dedupe_window, dedupe_body, body_place) = dedupe(&mut table);
        let types = Types::take(&mut table);
        let shadow = table.take_bool("danger_shadow").unwrap_or(false);
        let recipe = read::recipe(&mut table);
        if !types.want_all() && recipe.as_ref().is_some_and(|recipe| recipe.event.kind.0.is_empty()) {
            table.wrong("types", "this recipe finds no type in a delivery", "event.type beside it, or leave it out");
        }
        table.finish();
        let recipe = recipe.filter(|_| is_known)?;
        if dedupe_body.is_some() && !recipe.event.id.0.is_empty() {
            let allowed = "event.id = [] beside it, or leave it out";
            body_place.wrong("this recipe names an id, and by that alone is a delivery a repeat", allowed);
        }
        if public_url.is_none() && recipe.signs_url() {
            let allowed = format_args!("{}, here or in [server]", url::ALLOWED);
            public_url_place.wrong("missing, but the provider signs the URL that it calls", allowed);
        }
        let secrets = keys(secrets?, &recipe);
        Some(Source {
            name: name.into(),
            path: path?,
            public_url: public_url.as_deref().map(PublicUrl::new),
            topic: topic?.into(),
            provider: provider.and_then(Item::text).map(Into::into),
            secrets: secrets?,
            max_body: recipe.max_body.map_or(defaults.max_body, |size| size as usize),
            deadline: deadline(defaults.request_deadline, recipe.respond_within),
            window: dedupe_window.unwrap_or(defaults.window.max(recipe.gives_up_after.unwrap_or_default())),
            dedupe_body,
            types,
            shadow,
            ok: recipe.ok.clone(),
            bad_status: recipe.bad,
            header_allow_list,
            allow_from: allow_from?,
            max_rate,
            recipe: Arc::new(recipe),
        })
    }

    /// True when deliveries from this address are looked at. An IPv4 address counts as itself in an IPv6 socket, too.
    pub fn takes_from(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow_from.is_empty() || self.allow_from.iter().any(|network| network.contains(&address))
    }

    /// What the sender is told: the answer as it is or, in shadow, the ok reply in place of any refusal. Who has left is told
    /// nothing, and the provider's check of the endpoint gets its own reply.
    pub fn told(&self, answer: Answer) -> Answer {
        let is_refusal = !answer.status.is_success() && answer.outcome != Outcome::Disconnected;
        if self.shadow && is_refusal { self.ok.clone().over(answer) } else { answer }
    }
}

impl Source {
    /// The first secret that is valid at a moment; the first of all when none is.
    pub fn secret_at(&self, now: UnixMillis) -> &Key {
        self.secrets.iter().find(|key| key.is_valid_at(now)).unwrap_or(&self.secrets[0])
    }
}

/// The named recipe. Below an unknown name the walk goes on over some other recipe, so that the entry's other mistakes are
/// found in the same pass; `false` then.
fn base(provider: Option<&Item>, mistakes: &Diagnostics) -> (Option<TomlTable>, bool) {
    let Some(item) = provider else { return (None, true) };
    let name = item.clone().text();
    if let Some(table) = name.as_deref().and_then(|name| providers::table(name, mistakes)) {
        return (Some(table), true);
    }
    if name.is_some() {
        let names: Vec<&str> = PROVIDERS.iter().map(|(name, _)| *name).collect();
        let allowed = format!("{}; or leave it out and write the recipe inline", names.join(", "));
        item.place.wrong("no such provider", allowed);
    }
    (providers::table(STAND_IN, mistakes), false)
}

/// A recipe as the base of `entry`: `content` and `content_variants` are two ways to say one thing, so either overrules both.
fn without_content(mut base: TomlTable, entry: &TomlTable) -> TomlTable {
    const WAYS: [&str; 2] = ["content", "content_variants"];
    if entry.keys().iter().any(|key| WAYS.contains(&key.as_str())) {
        WAYS.iter().for_each(|key| drop(base.take(key)));
    }
    base
}

fn path(item: Item) -> Option<String> {
    let text = item.clone().text()?;
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"?#%\"<>\\^`{|}".contains(&byte);
    if text.starts_with('/') && text.bytes().all(legal) {
        return Some(text);
    }
    item.refuse("not a path", "a text that begins with / and has no query, no fragment and no escapes")
}

fn topic(item: Item) -> Option<String> {
    let text = item.clone().text()?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=249).contains(&text.len()) && text.bytes().all(legal) && text != "." && text != ".." {
        return Some(text);
    }
    item.refuse("not a topic name of Kafka", "1 to 249 letters, digits, . _ -")
}

fn allow_from(table: &mut TomlTable) -> Option<Vec<IpNet>> {
    let Some(items) = table.take_list("allow_from") else { return Some(Vec::new()) };
    if items.is_empty() {
        table.wrong("allow_from", "an empty list lets nobody in", "at least one network; or leave it out");
        return None;
    }
    items.into_iter().map(network).collect::<Vec<_>>().into_iter().collect()
}

/// A network, or a single address.
pub(crate) fn network(item: Item) -> Option<IpNet> {
    let text = item.clone().text()?;
    let single = text.parse::<IpAddr>().map(IpNet::from);
    match single.or_else(|_| text.parse::<IpNet>()).map(canonical) {
        Ok(network) if network.trunc() == network => Some(network),
        Ok(network) => item.refuse("bits are set behind the prefix", format_args!("\"{}\"", network.trunc())),
        Err(_) => {
            item.refuse("not a network", "addresses and networks such as \"3.18.12.63\", \"10.0.0.0/8\", \"2001:db8::/32\"")
        }
    }
}

/// Addresses are compared in their canonical form, so a network of IPv4 addresses that is written as IPv6 must be, too.
fn canonical(network: IpNet) -> IpNet {
    let address = network.addr().to_canonical();
    let prefix = network.prefix_len().checked_sub(IPV4_IN_IPV6).filter(|_| network.addr().is_ipv6() && address.is_ipv4());
    prefix.and_then(|prefix| IpNet::new(address, prefix).ok()).unwrap_or(network)
}

fn header_name(item: Item) -> Option<HeaderName> {
    let text = item.clone().text()?;
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if !is_secret(&name) => Some(name),
        _ => item.refuse("not a header that can be passed on", "header names, but none of a header with credentials"),
    }
}

/// Each secret with the place it was named at.
fn secrets(table: &mut TomlTable) -> Option<Vec<(Item, secret::Secret)>> {
    let Some(items) = table.take_list("secrets").filter(|items| !items.is_empty()) else {
        table.wrong("secrets", "missing", "a list of \"env:NAME\" or \"file:PATH\"");
        return None;
    };
    items.into_iter().map(|item| Some((item.clone(), secret::read(item)?))).collect::<Vec<_>>().into_iter().collect()
}

fn keys(secrets: Vec<(Item, secret::Secret)>, recipe: &Recipe) -> Option<Vec<Key>> {
    let scheme = recipe.scheme();
    let mut keys: Vec<Key> = Vec::new();
    for (item, secret) in &secrets {
        if keys.iter().any(|key| key.name == secret.name) {
            item.place.wrong(
                format_args!("two secrets are called {}", secret.name),
                "{ name = \"…\", from = \"…\" } with distinct names",
            );
        }
        match Key::decode(secret, &recipe.key_format, &scheme) {
            Ok(key) => keys.push(key),
            Err(what) => item.place.wrong(what, "a secret in the form that key_format describes"),
        }
    }
    (keys.len() == secrets.len()).then_some(keys)
}

fn dedupe(table: &mut TomlTable) -> (Option<Duration>, Option<Duration>, Location) {
    let mut dedupe = table.take_section("dedupe");
    let window = dedupe.take_duration("window", Duration::from_secs(1)..=MAX_WINDOW);
    let body = dedupe.take_duration("body", Duration::from_secs(1)..=MAX_WINDOW);
    let place = dedupe.place_of("body");
    dedupe.finish();
    (window, body, place)
}

fn deadline(server: Duration, respond_within: Option<Duration>) -> Duration {
    respond_within.map_or(server, |limit| server.min(limit * 4 / 5))
}

/// Takes any text as a secret and has every part of a recipe, so an entry over it makes no mistake of its own.
const STAND_IN: &str = "stripe";
/// The bits of `::ffff:` in front of an IPv4 address.
const IPV4_IN_IPV6: u8 = 96;
/// The longest time that a repeat can be recognised.
const MAX_WINDOW: Duration = Duration::from_secs(90 * 86_400);
