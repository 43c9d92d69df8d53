//! Reads a recipe from TOML. The recipe is either inline in the operator's entry, or a built-in recipe with the entry's
//! overrides. Reports every mistake with its location and the expected value. The module `validate` then checks the parameters
//! for contradictions.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::AUTHORIZATION;

use crate::credentials::Credentials;
use crate::source::PlaceholderIds;
use crate::source::SecretForm;
use crate::source::recipe::{
    Challenge, EventLocators, Locator, Proof, ProviderLimits, Recipe, RecipeSample, Replies, Reply, Setup, SwitchOff, TimeUnit,
};
use crate::source::validate;
use crate::toml_value::{Item, TomlTable};

mod batch;
mod challenge;
mod content;
mod fetch;
mod locator;
mod proof;
mod samples;

use locator::{LOCATORS, LocatorParser};

/// Takes every recipe parameter out of `table` and returns the recipe. Returns `None` if a required parameter is missing or any
/// parameter is invalid. If the source sets locators for the ordering key (`key`), these replace the recipe's `event.key`.
/// `checks_samples` is false if `table` is a recipe with the overrides of a source, which its samples need not fit.
pub(super) fn recipe(table: &mut TomlTable, checks_samples: bool) -> Option<Recipe> {
    let mut locators = LocatorParser::take(table);
    let own_key = table.take("key");
    let event = facts(table, own_key, &mut locators);
    let proofs = proof::all(table, &event, &mut locators);
    let challenges = challenge::all(table, proofs.as_deref(), &mut locators);
    let title = table.take("title").and_then(line).unwrap_or_default();
    let (replies, limits, setup) = (replies(table), limits(table), setup(table));
    let setup = Setup { values: std::mem::take(&mut locators.missing), ..setup };
    let samples = table.take_list("samples").unwrap_or_default();
    let pointers = locators.finish(event.batch);
    let samples = samples::all(samples, &event, &pointers, checks_samples);
    let setup = with_sample_type(setup, &samples);
    let (proofs, challenges) = (proofs?, challenges?);
    let credentials = credentials(&proofs, &challenges);
    if table.accepts(&["event", "key"]) {
        validate::facts_are_no_credentials(table, &proofs, &credentials, &event);
    }
    Some(Recipe { title, proofs, event, pointers, challenges, credentials, replies, limits, setup, samples })
}

/// Takes the parameters of a recipe file out of `table`, and checks them without the entry of a source. The recipe may read
/// values that only a source sets. A recipe file may also set the defaults of the source options `headers`, `allow_from` and
/// `public_keys`.
pub(super) fn template(table: &mut TomlTable) -> Option<Recipe> {
    let misplaced = table.split_off(OPTIONS_OF_A_SOURCE);
    for option in misplaced.keys() {
        let found = "an option of a source; move it to the section [sources.NAME]";
        misplaced.expected(&option, "a parameter of a recipe", found);
    }
    let headers = table.take_list("headers").unwrap_or_default();
    let networks = super::clients::allow_from(table);
    let keys = super::ConfiguredKeys::take_public(table);
    let recipe = recipe(table, true);
    super::header_names(headers, recipe.as_ref().map(|recipe| &recipe.credentials));
    let (mut recipe, keys) = (recipe?, keys?);
    recipe.setup.has_public_keys = !keys.is_empty();
    (keys.is_empty() || keys.decode(&recipe).is_some()).then_some(()).and(networks)?;
    Some(recipe)
}

/// Returns the headers and query parameters that contain the tokens of the proofs, user and password, or a secret text of a
/// challenge. Also notes whether the body contains one of them.
fn credentials(proofs: &[Proof], challenges: &[Challenge]) -> Credentials {
    let (mut headers, mut parameters, mut are_in_body) = (Vec::new(), Vec::new(), false);
    headers.extend(proofs.iter().any(|proof| matches!(proof, Proof::Basic)).then_some(AUTHORIZATION));
    for locator in proofs.iter().flat_map(Proof::tokens).chain(challenges.iter().flat_map(Challenge::secrets)) {
        match locator {
            Locator::Header(name) => headers.push(name.clone()),
            Locator::Query(name) => parameters.push(name.as_str()),
            other => are_in_body = are_in_body || other.is_in_body(),
        }
    }
    let credentials = Credentials::new(headers, &parameters);
    if are_in_body { credentials.with_body() } else { credentials }
}

/// The error for a TOML value that is present but invalid. The reader has already reported the mistake.
struct Invalid;

/// Takes a required key out of `table` by calling `take`. If the key is missing, reports that the key is required and returns
/// `None`.
fn need<T>(table: &mut TomlTable, key: &str, expected: &str, take: impl FnOnce(&mut TomlTable) -> Option<T>) -> Option<T> {
    let present = table.keys().iter().any(|have| have == key);
    let taken = take(table);
    if !present {
        table.missing(key, expected);
    }
    taken
}

fn facts(table: &mut TomlTable, own_key: Option<Item>, locators: &mut LocatorParser) -> EventLocators {
    let mut event = table.take_section("event");
    let recipe_key = event.take("key");
    let batch = batch::take(table, &mut event, locators);
    let mut read = |item: Option<Item>| item.map(|item| locators.choice(item)).unwrap_or_default();
    let (id, kind, key) = (read(event.take("id")), read(event.take("type")), read(own_key.or(recipe_key)));
    let placeholder_ids = PlaceholderIds::take(&mut event, !id.0.is_empty());
    let type_prefix = event.take_str("type_prefix").unwrap_or_default().into();
    let times = event.take_list("time").unwrap_or_default();
    let time = times.into_iter().filter_map(|item| time(item, locators)).collect();
    locators.in_item = false;
    batch::check_id(&event, batch, &id);
    event.finish();
    EventLocators { id, placeholder_ids, kind, type_prefix, key, time, batch }
}

fn time(item: Item, locators: &mut LocatorParser) -> Option<(Locator, TimeUnit)> {
    let mut table = item.table()?;
    let from = need(&mut table, "from", LOCATORS, |table| table.take("from"));
    let unit = need(&mut table, "unit", UNIT, |table| table.take_one_of("unit", TimeUnit::WORDS));
    table.finish();
    Some((locators.item(from?)?, unit?))
}

fn replies(table: &mut TomlTable) -> Replies {
    let mut reply = table.take_section("reply");
    let mut ok = reply.take_section("ok");
    let accepted = Reply {
        status: status(&mut ok, "status", ACCEPTED).unwrap_or(StatusCode::OK),
        content_type: ok.take("content_type").and_then(header_value),
        headers: Box::default(),
        body: ok.take_str("body").unwrap_or_default().into(),
    };
    ok.finish();
    let rejected = status(&mut reply, "bad", 400..=499).unwrap_or(StatusCode::UNAUTHORIZED);
    reply.finish();
    Replies { accepted, rejected }
}

fn status(table: &mut TomlTable, key: &str, range: RangeInclusive<u64>) -> Option<StatusCode> {
    let code = table.take_u64(key, range).and_then(|code| u16::try_from(code).ok());
    code.and_then(|code| StatusCode::from_u16(code).ok())
}

fn header_value(item: Item) -> Option<Arc<str>> {
    let text = item.clone().string()?;
    match http::HeaderValue::from_str(&text) {
        Ok(_) => Some(text.into()),
        Err(_) => item.unexpected("a media type such as \"text/plain\""),
    }
}

fn limits(table: &mut TomlTable) -> ProviderLimits {
    let max_body = table.take_bytes("max_body", MAX_BODY);
    let mut limits = table.take_section("limits");
    let respond_within = limits.take_duration("respond_within", Duration::from_secs(1)..=Duration::from_secs(300));
    let gives_up_after = limits.take_duration("gives_up_after", Duration::ZERO..=DAYS_30);
    let switches_off_at = limits.take_table("switches_off_at").and_then(switch_off);
    limits.finish();
    ProviderLimits { respond_within, gives_up_after, switches_off_at, max_body }
}

fn switch_off(mut table: TomlTable) -> Option<SwitchOff> {
    let percent = need(&mut table, "percent", PERCENT, |table| table.take_u64("percent", 0..=99));
    let within = need(&mut table, "within", WITHIN, |table| table.take_duration("within", MINUTE..=DAYS_30));
    table.finish();
    Some(SwitchOff { percent: u8::try_from(percent?).ok()?, within: within? })
}

fn setup(table: &mut TomlTable) -> Setup {
    let mut table = table.take_section("setup");
    let mut text = |key| table.take(key).and_then(line);
    let (url, secret) = (text("url").unwrap_or_default(), text("secret").unwrap_or_default());
    let (cli, cli_secret) = (text("cli").unwrap_or_default(), text("cli_secret").unwrap_or_default());
    let sample_type = text("sample_type").unwrap_or_default();
    let secret_forms = table.take_list("secret_form").unwrap_or_default().into_iter().filter_map(SecretForm::read).collect();
    let facts = table.take_list("facts").unwrap_or_default().into_iter().filter_map(line).collect();
    table.finish();
    Setup { url, secret, secret_forms, cli, cli_secret, sample_type, facts, ..Setup::default() }
}

/// Sets the type of the first sample as the default type if the recipe names no other.
fn with_sample_type(setup: Setup, samples: &[RecipeSample]) -> Setup {
    if !setup.sample_type.is_empty() {
        return setup;
    }
    let sample_type = samples.first().map_or(SAMPLE_TYPE, |first| &first.event_type).to_owned();
    Setup { sample_type, ..setup }
}

/// Reads one line of text for operators. `hookhold init` writes such lines into comments, and commands print them on a
/// terminal, so a line contains no control characters.
fn line(item: Item) -> Option<String> {
    let text = item.clone().string()?;
    if text.chars().any(char::is_control) {
        return item.expected("one line of text", "a line break or another control character; remove it");
    }
    Some(text)
}

/// Options that only a source may set, not a recipe file.
const OPTIONS_OF_A_SOURCE: &[&str] = &[
    "provider",
    "path",
    "public_url",
    "topic",
    "topics",
    "secrets",
    "client_ca",
    "client_subject",
    "max_rate",
    "types",
    "danger_shadow",
    "dedupe",
];
/// Event type of the samples of a recipe without `[[samples]]` and `sample_type`.
const SAMPLE_TYPE: &str = "sample.created";
const UNIT: &str = "\"s\", \"ms\" or \"rfc3339\"";
const ACCEPTED: RangeInclusive<u64> = 200..=299;
const PERCENT: &str = "an integer from 0 to 99";
const WITHIN: &str = "a duration from \"1m\" to \"30d\"";
const MINUTE: Duration = Duration::from_secs(60);
const DAYS_30: Duration = Duration::from_secs(30 * 86_400);
/// The allowed range of the option `max_body`, in bytes.
const MAX_BODY: RangeInclusive<u64> = 1..=1 << 30;
