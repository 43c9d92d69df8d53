//! Compiles sources from the configuration. A source is one configured endpoint. It consists of a provider's recipe, the
//! operator's overrides and the secrets. This module does not read deliveries. Its only I/O is reading the secrets that the
//! configuration refers to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::credentials::Credentials;
use crate::outcome::Outcome;
use crate::secret;
use crate::source::recipe::{Proof, Recipe};
use crate::source::url::PublicUrl;
use crate::source::work_limits::{MAX_KEYS, WorkLimits};
use crate::toml_value::{Diagnostics, Item, Location, TomlTable};
use crate::units::Rate;

mod clients;
pub mod key;
pub mod key_kind;
mod placeholder_ids;
pub(crate) mod pointers;
pub mod providers;
pub(crate) mod public_key;
mod read;
pub mod recipe;
mod secret_form;
mod topics;
mod type_filter;
pub mod url;
mod validate;
pub(crate) mod work_limits;

pub use clients::ClientConditions;
pub(crate) use clients::network;
pub use key::Key;
pub use placeholder_ids::PlaceholderIds;
use providers::STAND_IN;
pub use providers::{PROVIDERS, Providers, RecipeFile, provider};
pub use secret_form::SecretForm;
pub use topics::SourceTopics;
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
    /// The Kafka topics of the source's events.
    pub topics: SourceTopics,
    /// The name of the recipe, or `None` for an inline recipe.
    pub provider: Option<Arc<str>>,
    /// The recipe, with the operator's overrides.
    pub recipe: Arc<Recipe>,
    /// The source's configured secrets, then its configured public keys, with distinct names. At least one key, unless the
    /// recipe requires no proof.
    pub keys: Vec<Key>,
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
    /// The conditions on the clients that may deliver to the source.
    pub clients: ClientConditions,
    /// The rate limit for genuine deliveries, including duplicates, or `None` if the source has no rate limit.
    pub max_rate: Option<Rate>,
}

/// The deduplication settings of a source.
#[derive(Clone, Debug)]
pub struct SourceDedupe {
    /// The dedupe window. The default is the longer of `[dedupe] window` and the time over which the provider retries.
    pub window: Duration,
    /// The window within which hookhold treats identical bodies as duplicates, or `None` if the operator sets no such window.
    /// Applies only to deliveries without an event id.
    pub body: Option<Duration>,
}

/// The defaults for options that a source does not set. Other sections of the configuration define these defaults.
#[derive(Clone, Debug)]
pub struct SourceDefaults {
    /// The topic name for sources that set no topic. hookhold replaces `{source}` in this name with the source's name.
    pub topic: String,
    /// The value of `[server] public_url`, for sources that set no URL of their own.
    pub public_url: Option<PublicUrl>,
    /// The maximum size of a request body in bytes, for sources whose entry and recipe set no limit.
    pub max_body: usize,
    /// The value of `[server] request_deadline`, the server's own time limit for a response.
    pub request_deadline: Duration,
    /// The value of `[dedupe] window`.
    pub window: Duration,
    /// The recipes that a source can name.
    pub providers: Providers,
}

impl Source {
    /// Compiles the configuration entry `[sources.NAME]` into a source. Reports mistakes to `diagnostics`, which must be the
    /// list that `entry` also reports to. Returns `None` if the entry does not define a usable source.
    pub fn compile(name: &str, mut entry: TomlTable, defaults: &SourceDefaults, diagnostics: &Diagnostics) -> Option<Source> {
        let provider = entry.take("provider");
        let (base, is_known) = base(&entry, provider.as_ref(), &defaults.providers, diagnostics);
        let mut table = match base {
            Some(base) => {
                let location = base.location.clone();
                let mut overlaid = without_content(base, &entry).overlaid(entry);
                // A parameter that an invalid recipe lacks is not missing in the entry.
                if !is_known {
                    overlaid.location = location;
                }
                overlaid
            }
            None => entry,
        };
        let path = table.take("path").map_or(Some(format!("/hooks/{name}")), path);
        let public_url_location = table.location_of("public_url");
        let public_url = table.take("public_url").map(url::read).or_else(|| defaults.public_url.clone());
        let topics = SourceTopics::take(&mut table, &defaults.topic, name);
        let headers = table.take_list("headers").unwrap_or_default();
        let clients = ClientConditions::take(&mut table);
        let max_rate = table.take_rate("max_rate");
        let configured = ConfiguredKeys::take(&mut table);
        let (dedupe_window, dedupe_body, body_location) = dedupe(&mut table);
        let types = TypeFilter::take(&mut table);
        let shadow = table.take_bool("danger_shadow").unwrap_or(false);
        let values_location = table.location_of("values");
        let recipe = read::recipe(&mut table, provider.is_none());
        let header_allow_list = header_names(headers, recipe.as_ref().map(|recipe| &recipe.credentials));
        if is_known {
            recipe.iter().for_each(|recipe| check_types(&table, &types, topics.as_ref(), recipe));
        }
        clients.iter().zip(&recipe).for_each(|(clients, recipe)| clients.check_proof(&table, recipe));
        table.finish();
        let recipe = recipe.filter(|_| is_known)?;
        if dedupe_body.is_some() && !recipe.event.id.0.is_empty() && recipe.always_signs_time() {
            let found = "a recipe with both, which never compares bodies; remove dedupe.body or add event.id = []";
            body_location.expected("a recipe without event.id or without a signed timestamp", found);
        }
        if public_url.is_none() && recipe.signs_url() {
            let found = "nothing; set public_url here or in [server], because the provider signs the URL";
            public_url_location.expected(url::EXPECTED, found);
        }
        for value in &recipe.setup.values {
            let found = format_args!("nothing; add {value} = \"…\" to values");
            values_location.below(value).expected(format_args!("the text that the recipe reads as config:{value}"), found);
        }
        let keys = configured?.decode(&recipe);
        Some(Source {
            name: name.into(),
            path: path?,
            public_url,
            topics: topics?,
            provider: provider.and_then(Item::string).map(Into::into),
            keys: keys?,
            max_body: recipe.limits.max_body.map_or(defaults.max_body, |size| size as usize),
            deadline: deadline(defaults.request_deadline, recipe.limits.respond_within),
            dedupe: SourceDedupe {
                window: dedupe_window.unwrap_or(defaults.window.max(recipe.limits.gives_up_after.unwrap_or_default())),
                body: dedupe_body,
            },
            types,
            shadow,
            header_allow_list,
            clients: clients?,
            max_rate,
            recipe: Arc::new(recipe),
        })
    }

    /// Returns true if the source accepts deliveries from `address`. An IPv4 address and its IPv6-mapped form are equivalent.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        self.clients.allow_address(address)
    }

    /// Returns the base of the URL that the provider signs, without user name, password and trailing slash; `None` if it signs no
    /// URL.
    pub fn signed_base_url(&self) -> Option<String> {
        self.public_url.as_ref().filter(|_| self.recipe.signs_url()).map(PublicUrl::without_credentials)
    }

    /// Applies shadow mode to `answer`. If the source is in shadow mode, replaces a rejection with the reply for accepted
    /// deliveries, unless the sender has disconnected. Does not change the reply to an endpoint challenge.
    pub fn apply_shadow(&self, answer: Answer) -> Answer {
        let is_rejection = !answer.status.is_success() && answer.outcome != Outcome::Disconnected;
        if self.shadow && is_rejection { self.recipe.replies.accepted.clone().over(answer) } else { answer }
    }

    /// Returns true if a secret of the source is missing, because the reader of the configuration may do without secrets.
    pub fn lacks_secrets(&self) -> bool {
        self.keys.iter().any(|key| key.configured().is_absent())
    }

    /// Returns true if the sender publishes the key, so that it signs the deliveries of all its accounts with the key.
    pub(crate) fn is_published(&self, key: &Key) -> bool {
        is_named_by_id(key, &self.recipe.proofs)
    }

    /// Returns the first key for the proof with the index `proof` that is valid at `now`. If no such key is valid, returns the
    /// first key for the proof, or `None` if there is none.
    pub fn key_at(&self, proof: usize, now: UnixMillis) -> Option<&Key> {
        let all = || self.keys.iter().filter(|key| key.for_proof(proof).is_some());
        all().find(|key| key.is_valid_at(now)).or_else(|| all().next())
    }
}

/// Returns the recipe that the entry overrides (`None` for an inline recipe), and a flag. The flag is true if the entry names a
/// valid recipe or defines an inline recipe. If the provider is unknown, returns the recipe with the most similar name. If no
/// name is similar or the provider is missing, returns the placeholder recipe. With the returned recipe, hookhold can report
/// all other mistakes in the entry in the same pass.
fn base(
    entry: &TomlTable,
    provider: Option<&Item>,
    providers: &Providers,
    diagnostics: &Diagnostics,
) -> (Option<TomlTable>, bool) {
    let stand_in = |name: &str| (providers.table(name, diagnostics).map(|(table, _)| table), false);
    let Some(item) = provider else {
        if entry.keys().iter().any(|key| PROOF.contains(&key.as_str())) {
            return (None, true);
        }
        let expected = format!("{PROVIDER} or an inline recipe ({})", PROOF.join(", "));
        entry.expected("provider", expected, "neither");
        return stand_in(STAND_IN);
    };
    let Some(name) = item.clone().string_as(PROVIDER) else { return stand_in(STAND_IN) };
    if let Some((table, is_valid)) = providers.table(&name, diagnostics) {
        return (Some(table), is_valid);
    }
    if providers.is_incomplete() {
        return stand_in(STAND_IN);
    }
    let near = providers.nearest(&name);
    let remedy = match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "run `hookhold providers` for the names, or remove provider and write the recipe inline".to_owned(),
    };
    item.location.expected(PROVIDER, format_args!("an unknown name; {remedy}"));
    stand_in(near.unwrap_or(STAND_IN))
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

/// Reports options about event types that the recipe does not allow. hookhold stores all items of a batch in one commit or none, so
/// they belong to one topic.
fn check_types(table: &TomlTable, types: &TypeFilter, topics: Option<&SourceTopics>, recipe: &Recipe) {
    let without_type = |option: &str| {
        if recipe.event.kind.0.is_empty() && table.accepts(&["event"]) {
            let found = format_args!("a recipe without it; add event.type or remove {option}");
            table.expected(option, "a recipe with event.type", found);
        }
    };
    if !types.accepts_all() {
        without_type("types");
    }
    if topics.is_some_and(SourceTopics::depend_on_type) {
        without_type("topics");
        if recipe.event.batch.is_some_and(|batch| batch.split) {
            let found = "both; the items of a batch have one topic; remove topics or split";
            table.expected("topics", "a source without split = true", found);
        }
    }
}

/// Reads the option `headers`. Reports a header that contains credentials, at every source or at a source with this recipe.
fn header_names(items: Vec<Item>, credentials: Option<&Credentials>) -> Vec<HeaderName> {
    let always = Credentials::default();
    let credentials = credentials.unwrap_or(&always);
    let name = |item: Item| {
        let text = item.clone().string()?;
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !credentials.include_header(&name) => Some(name),
            Ok(_) => item.expected(ALLOWED_HEADER, "a header with credentials, which hookhold never stores; remove it"),
            Err(_) => item.unexpected(ALLOWED_HEADER),
        }
    };
    items.into_iter().filter_map(name).collect()
}

/// The options `secrets` and `public_keys` of a source: each value with the secret or public key that it refers to.
struct ConfiguredKeys {
    secrets: Vec<(Item, secret::Secret)>,
    public_keys: Vec<(Item, secret::Secret)>,
    locations: [Location; 2],
}

impl ConfiguredKeys {
    /// Takes both options out of the table. Returns `None` if a reference is invalid. An absent option is an empty list.
    fn take(table: &mut TomlTable) -> Option<ConfiguredKeys> {
        let locations = [table.location_of("secrets"), table.location_of("public_keys")];
        let secrets = table.take_list("secrets").unwrap_or_default().into_iter();
        let secrets: Vec<Option<_>> = secrets.map(|item| Some((item.clone(), secret::read(item)?))).collect();
        let public_keys = (1..).zip(table.take_list("public_keys").unwrap_or_default());
        let read_public =
            |(number, item): (usize, Item)| Some((item.clone(), secret::read_public(item, &format!("public-key-{number}"))?));
        let public_keys: Vec<Option<_>> = public_keys.map(read_public).collect();
        let (secrets, public_keys): (Option<_>, Option<_>) = (secrets.into_iter().collect(), public_keys.into_iter().collect());
        Some(ConfiguredKeys { secrets: secrets?, public_keys: public_keys?, locations })
    }

    /// Takes only the option `public_keys` out of the table, for a recipe that contains the keys of its provider.
    fn take_public(table: &mut TomlTable) -> Option<ConfiguredKeys> {
        ConfiguredKeys::take(&mut table.split_off(&["public_keys"]))
    }

    fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.public_keys.is_empty()
    }

    /// Decodes the keys for the recipe's proofs. Reports a missing option, a second key with the same name, and a key that no
    /// proof can use.
    fn decode(&self, recipe: &Recipe) -> Option<Vec<Key>> {
        let proofs = &recipe.proofs;
        let count = self.secrets.len() + self.public_keys.len();
        let location = &self.locations[usize::from(self.secrets.is_empty())];
        if count > MAX_KEYS {
            location.expected(format_args!("at most {MAX_KEYS} keys"), format_args!("{count}; remove keys"));
            return None;
        }
        let needs = |public: bool| proofs.iter().any(|proof| proof.needs_key() && proof.uses_public_keys() == public);
        let missing = self.locations.iter().zip([false, true]).find(|(_, public)| needs(*public));
        if let Some((location, _)) = missing.filter(|_| self.is_empty()) {
            let is_published = proofs.iter().any(|proof| proof.fetch().is_some());
            location.expected("an array of \"env:NAME\" or \"file:PATH\"", if is_published { NOT_FETCHED } else { "nothing" });
            return None;
        }
        let mut keys: Vec<Key> = Vec::new();
        let secrets = self.secrets.iter().map(|key| (key, false));
        for ((item, configured), is_public) in secrets.chain(self.public_keys.iter().map(|key| (key, true))) {
            let name = &configured.name;
            if keys.iter().any(|key| key.name == *name) {
                let found = format_args!("two secrets named {name}; rename one, as in {{ name = \"…\", from = \"…\" }}");
                item.location.expected("secrets with distinct names", found);
            }
            if !needs(is_public) {
                let instead = if is_public { "secrets" } else { "public_keys" };
                let found = format_args!("{name}, which no proof of the recipe uses; remove it or use {instead}");
                item.location.expected("the kind of key that the recipe's proof needs", found);
                continue;
            }
            match Key::decode(configured, is_public, proofs) {
                Ok(key) if key.id.is_none() && is_named_by_id(&key, proofs) => {
                    let found = format_args!("{name} without an id; write {{ id = \"…\", from = \"…\" }}");
                    item.location.expected("a public key with the id by which a delivery names it", found);
                }
                Ok(key) => keys.push(key),
                Err(found) => item.location.expected(if is_public { PUBLIC_KEY } else { SECRET }, found),
            }
        }
        let slots = proofs.iter().filter_map(Proof::signed).filter(|signed| signed.in_slots);
        if let Some(most) = slots.map(|signed| signed.signature.from.len()).min().filter(|most| keys.len() > *most) {
            let expected = format_args!("at most {most} keys, one for each locator of signature.from");
            location.expected(expected, format_args!("{}; remove a key or match = \"slots\"", keys.len()));
            return None;
        }
        if let Err((expected, found)) = WorkLimits::new(proofs, &keys).validate() {
            location.expected(expected, format_args!("{found}; remove keys"));
            return None;
        }
        (keys.len() == count).then_some(keys)
    }
}

/// Returns true if deliveries name this key by its id.
fn is_named_by_id(key: &Key, proofs: &[Proof]) -> bool {
    let mut users = proofs.iter().enumerate().filter(|(index, _)| key.for_proof(*index).is_some());
    users.any(|(_, proof)| proof.fetch().is_some())
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

const SECRET: &str = "a secret in the form that key_format describes";
const NOT_FETCHED: &str =
    "nothing; hookhold does not fetch the sender's keys, so download them from the place that fetch.url names and list them here";
const PUBLIC_KEY: &str = "a public key for the recipe's algorithm, in the form that key_format describes";
/// The required keys of an inline recipe.
const PROOF: [&str; 5] = ["auth", "algorithm", "signature", "content", "proof"];
const PROVIDER: &str = "a provider such as \"stripe\"";
const PATH: &str = "a path such as \"/hooks/stripe\" without query, fragment or percent-encoding";
const ALLOWED_HEADER: &str = "the name of a header that contains no credentials";
/// Maximum length of the dedupe window.
const MAX_WINDOW: Duration = Duration::from_secs(90 * 86_400);
