//! Reads a recipe from TOML. The recipe is either inline in the operator's entry, or a built-in recipe with the entry's
//! overrides. Reports every mistake with its location and the expected value. The module `validate` then checks the parameters
//! for contradictions.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::source::pointers::Pointers;
use crate::source::recipe::{
    Algorithm, BodyHash, Choice, Encoding, EventLocators, KeyFormat, Locator, MacProof, ProviderLimits, Recipe, Replies, Reply,
    Setup, SignatureFormat, SwitchOff, Term, TimeUnit, Timestamp,
};
use crate::source::validate;
use crate::toml_value::{Item, TomlTable};

mod challenge;

/// Takes every recipe parameter out of `table` and returns the recipe. Returns `None` if a required parameter is missing or any
/// parameter is invalid. If the source sets locators for the ordering key (`key`), these replace the recipe's `event.key`.
pub(super) fn recipe(table: &mut TomlTable) -> Option<Recipe> {
    let auth = need(table, "auth", "\"mac\"", |table| table.take_one_of("auth", &[("mac", ())]));
    let timestamp = timestamp(table);
    let mut pointers = Pointers::default();
    let own_key = table.take("key");
    let event = facts(table, own_key, &mut pointers);
    let proof = proof(table, timestamp.as_ref().ok().and_then(Option::as_ref), &event);
    let challenges = challenge::all(table, &mut pointers);
    let title = table.take_str("title").unwrap_or_default();
    let (replies, limits, setup) = (replies(table), limits(table), setup(table));
    let (proof, timestamp) = (proof?, timestamp.ok()?);
    if table.accepts(&["signature", "content", "content_variants", "body_sha256", "timestamp", "event", "key"]) {
        validate::parts_agree(table, &proof, timestamp.as_ref(), &event)?;
    }
    let coverage = validate::coverage(&proof.contents, timestamp.as_ref(), &event);
    auth?;
    Some(Recipe { title, proof, timestamp, coverage, event, pointers, challenges: challenges?, replies, limits, setup })
}

/// The error for a TOML value that is present but invalid. The function that returns this error has already reported the
/// mistake.
struct Invalid;

fn proof(table: &mut TomlTable, timestamp: Option<&Timestamp>, event: &EventLocators) -> Option<MacProof> {
    let algorithm = need(table, "algorithm", ALGORITHM, |table| table.take_one_of("algorithm", Algorithm::WORDS));
    let signature = need(table, "signature", SIGNATURE, signature);
    let contents = contents(table);
    let body_sha256 = body_sha256(table);
    let encoding = table.take_one_of("encoding", Encoding::WORDS);
    let key_format = key_format(table);
    let ((signature, inline_encoding), contents, body_sha256) = (signature?, contents?, body_sha256.ok()?);
    Some(MacProof {
        algorithm: algorithm?,
        encoding: inline_encoding.or(encoding).unwrap_or(Encoding::Hex),
        signature,
        key_format,
        signs_form: contents.iter().any(|content| content.contains(&Term::FormSorted)),
        reads_tags: validate::uses_tags(&contents, timestamp, event),
        contents,
        body_sha256,
    })
}

/// Parses a list of alternative locators: a string, an array of strings, or an array that contains arrays of strings. An inner
/// array combines several fields into one value.
fn choice(item: Item, pointers: &mut Pointers) -> Choice {
    let fields = |item: Item| -> Vec<Locator> { item.list().into_iter().filter_map(|one| locator(one, pointers)).collect() };
    Choice(item.list().into_iter().map(fields).filter(|fields| !fields.is_empty()).collect())
}

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

fn signature(table: &mut TomlTable) -> Option<(SignatureFormat, Option<Encoding>)> {
    let mut table = table.take_table("signature")?;
    let from = need(&mut table, "from", SIGNED_FROM, |table| table.take_list("from"));
    if from.as_ref().is_some_and(Vec::is_empty) {
        table.expected("from", SIGNED_FROM, "an empty array");
    }
    let from: Vec<HeaderName> = from.unwrap_or_default().into_iter().filter_map(|item| named_header(item, SIGNED_FROM)).collect();
    let mut separator = |key| table.take_str(key).filter(|text| !text.is_empty());
    let (groups, items, pair) = (separator("groups"), separator("items"), separator("pair"));
    let take = table.take_strings("take").unwrap_or_default();
    let prefix = table.take_str("prefix").unwrap_or_default();
    let trim = table.take_bool("trim").unwrap_or(true);
    let encoding = table.take_one_of("encoding", Encoding::WORDS);
    let is_paired = pair.is_some() != take.is_empty();
    if !is_paired && table.accepts(&["pair", "take"]) {
        let found = if pair.is_some() { "pair without take" } else { "take without pair" };
        table.expected("take", "pair and take together, such as pair = \"=\" with take = [\"v1\"], or neither", found);
    }
    table.finish();
    let signature = SignatureFormat { from, groups, items, pair, take, prefix, trim };
    (is_paired && !signature.from.is_empty()).then_some((signature, encoding))
}

/// Takes the signed content from `content` or `content_variants`. Returns `None` if the content is missing or invalid.
fn contents(table: &mut TomlTable) -> Option<Vec<Vec<Term>>> {
    let Some(variants) = table.take("content_variants") else {
        return need(table, "content", TERMS, |table| terms(table.take("content")?)).map(|content| vec![content]);
    };
    if table.take("content").is_some() {
        return variants.expected("content or content_variants", "both; remove one of them");
    }
    let contents: Option<Vec<_>> = variants.clone().list().into_iter().map(terms).collect();
    if contents.as_ref().is_some_and(Vec::is_empty) { variants.expected("arrays of terms", "an empty array") } else { contents }
}

fn terms(list: Item) -> Option<Vec<Term>> {
    let items = list.clone().list();
    let count = items.len();
    let terms: Vec<Term> = items.into_iter().filter_map(term).collect();
    if terms.len() < count {
        return None;
    }
    let signs_body = terms.contains(&Term::Body) || terms.contains(&Term::FormSorted);
    if signs_body {
        Some(terms)
    } else {
        list.expected(
            "an array with \"body\" or \"form-sorted\"",
            "neither; add one of them, because the signature must cover the body",
        )
    }
}

fn body_sha256(table: &mut TomlTable) -> Result<Option<BodyHash>, Invalid> {
    table.take("body_sha256").map(|item| body_hash(item).ok_or(Invalid)).transpose()
}

fn body_hash(item: Item) -> Option<BodyHash> {
    let mut table = item.table()?;
    let from = need(&mut table, "from", HASHED_FROM, |table| table.take("from"));
    let encoding = table.take_one_of("encoding", Encoding::WORDS).unwrap_or(Encoding::Hex);
    table.finish();
    let from = from?;
    let query = |text: &str| text.strip_prefix("query:").filter(|name| !name.is_empty()).map(str::to_owned);
    Some(BodyHash { query: from.parse(HASHED_FROM, query)?, encoding })
}

fn term(item: Item) -> Option<Term> {
    let text = item.clone().string()?;
    let bare = |text: &str| !text.is_empty() && !text.chars().any(char::is_alphanumeric);
    match text.split_once(':') {
        _ if text == "body" => Some(Term::Body),
        _ if text == "timestamp" => Some(Term::Timestamp),
        _ if text == "id" => Some(Term::Id),
        _ if text == "url" => Some(Term::Url),
        _ if text == "url-other-port" => Some(Term::UrlOtherPort),
        _ if text == "form-sorted" => Some(Term::FormSorted),
        _ if bare(&text) => Some(Term::Literal(text)),
        Some(("const", literal)) if !literal.is_empty() => Some(Term::Literal(literal.to_owned())),
        Some(("header", _)) => named_header(item, TERMS).map(Term::Header),
        Some(("tag", tag)) if !tag.is_empty() => Some(Term::Tag(tag.to_owned())),
        _ => item.unexpected(TERMS),
    }
}

fn named_header(item: Item, expected: &str) -> Option<HeaderName> {
    item.parse(expected, header)
}

fn header(text: &str) -> Option<HeaderName> {
    text.strip_prefix("header:").and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok())
}

fn locator(item: Item, pointers: &mut Pointers) -> Option<Locator> {
    let text = item.clone().string()?;
    parse_locator(&text, &item, pointers)
}

/// Parses the locator `text`. If `text` is not a valid locator, reports the mistake at the location of `item` and returns
/// `None`.
fn parse_locator(text: &str, item: &Item, pointers: &mut Pointers) -> Option<Locator> {
    match text.split_once(':') {
        Some(("header", _)) => header(text).map(Locator::Header).or_else(|| item.unexpected(LOCATORS)),
        Some(("tag", tag)) if !tag.is_empty() => Some(Locator::Tag(tag.to_owned())),
        Some(("query", name)) if !name.is_empty() => Some(Locator::Query(name.to_owned())),
        Some(("const", text)) if !text.is_empty() => Some(Locator::Const(text.to_owned())),
        Some(("json", pointer)) => match pointers.slot(pointer) {
            Some(slot) => Some(Locator::Body(slot)),
            None => item.unexpected("a JSON pointer such as json:/data/id"),
        },
        Some(("form", name)) => match pointers.field_slot(name) {
            Some(slot) => Some(Locator::Body(slot)),
            None => item.unexpected("a form field such as form:id"),
        },
        Some(("form-json", location)) => match pointers.field_json_slot(location) {
            Some(slot) => Some(Locator::Body(slot)),
            None => item.unexpected("a form field and a JSON pointer such as form-json:payload/data/id"),
        },
        _ => item.unexpected(LOCATORS),
    }
}

fn timestamp(table: &mut TomlTable) -> Result<Option<Timestamp>, Invalid> {
    table.take("timestamp").map(|item| signing_time(item).ok_or(Invalid)).transpose()
}

fn signing_time(item: Item) -> Option<Timestamp> {
    let mut table = item.table()?;
    let mut pointers = Pointers::default();
    let from = need(&mut table, "from", TIMED_FROM, |table| table.take("from")).map(|item| choice(item, &mut pointers));
    let unit = table.take_one_of("unit", TimeUnit::WORDS).unwrap_or(TimeUnit::Seconds);
    let past = table.take_duration("past", TOLERANCE).unwrap_or(DEFAULT_TOLERANCE);
    let future = table.take_duration("future", TOLERANCE).unwrap_or(DEFAULT_TOLERANCE);
    let is_readable = from.as_ref().is_none_or(validate::is_early);
    if !is_readable && table.accepts(&["from"]) {
        let found = if pointers.is_empty() {
            "a locator of another kind"
        } else {
            "a locator in the body; hookhold must read the timestamp before it reads the body"
        };
        table.expected("from", TIMED_FROM, found);
    }
    table.finish();
    Some(Timestamp { from: from.filter(|_| is_readable)?, unit, past, future })
}

fn facts(table: &mut TomlTable, own_key: Option<Item>, pointers: &mut Pointers) -> EventLocators {
    let mut event = table.take_section("event");
    let recipe_key = event.take("key");
    let mut read = |item: Option<Item>| item.map(|item| choice(item, pointers)).unwrap_or_default();
    let (id, kind, key) = (read(event.take("id")), read(event.take("type")), read(own_key.or(recipe_key)));
    let type_prefix = event.take_str("type_prefix").unwrap_or_default().into();
    let times = event.take_list("time").unwrap_or_default();
    let time = times.into_iter().filter_map(|item| time(item, pointers)).collect();
    event.finish();
    EventLocators { id, kind, type_prefix, key, time }
}

fn time(item: Item, pointers: &mut Pointers) -> Option<(Locator, TimeUnit)> {
    let mut table = item.table()?;
    let from = need(&mut table, "from", LOCATORS, |table| table.take("from"));
    let unit = need(&mut table, "unit", UNIT, |table| table.take_one_of("unit", TimeUnit::WORDS));
    table.finish();
    Some((locator(from?, pointers)?, unit?))
}

/// Parses a locator of an endpoint challenge. Rejects a `tag:` locator, because a challenge may be unsigned, and an unsigned
/// request has no tags.
fn untagged(text: &str, item: &Item, pointers: &mut Pointers) -> Option<Locator> {
    match parse_locator(text, item, pointers)? {
        Locator::Tag(_) => item.expected(UNTAGGED, "a tag; use another locator, because a challenge may be unsigned"),
        locator => Some(locator),
    }
}

fn key_format(table: &mut TomlTable) -> KeyFormat {
    let mut format = KeyFormat::default();
    for item in table.take_list("key_format").unwrap_or_default() {
        let step = item.as_str().unwrap_or_default().to_owned();
        match (step.strip_prefix("strip-prefix:"), step.as_str()) {
            (Some(prefix), _) if !prefix.is_empty() => format.strip.push(prefix.to_owned()),
            (_, "utf8") => format.encoding = None,
            _ => match Encoding::WORDS.iter().find(|(word, _)| *word == step) {
                Some((_, encoding)) => format.encoding = Some(*encoding),
                None => item.location.expected(KEY_STEPS, "an unknown step"),
            },
        }
    }
    format
}

fn replies(table: &mut TomlTable) -> Replies {
    let mut reply = table.take_section("reply");
    let mut ok = reply.take_section("ok");
    let accepted = Reply {
        status: status(&mut ok, "status", ACCEPTED).unwrap_or(StatusCode::OK),
        content_type: ok.take("content_type").and_then(header_value),
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
    let url = table.take_str("url").unwrap_or_default();
    let secret = table.take_str("secret").unwrap_or_default();
    let sample_type = table.take_str("sample_type").unwrap_or_else(|| "sample.created".to_owned());
    let facts = table.take_strings("facts").unwrap_or_default();
    table.finish();
    Setup { url, secret, sample_type, facts }
}

const ALGORITHM: &str = "\"sha1\", \"sha256\", \"sha384\" or \"sha512\"";
const SIGNATURE: &str = "a table such as { from = \"header:NAME\" }";
const SIGNED_FROM: &str = "header:NAME";
const TIMED_FROM: &str = "header:NAME or tag:NAME";
const UNIT: &str = "\"s\", \"ms\" or \"rfc3339\"";
const LOCATORS: &str = "header:NAME, json:/POINTER, form:NAME, form-json:NAME/POINTER, tag:NAME, query:NAME or const:TEXT";
const ACCEPTED: RangeInclusive<u64> = 200..=299;
const UNTAGGED: &str = "header:NAME, json:/POINTER, form:NAME, form-json:NAME/POINTER or query:NAME";
const HASHED_FROM: &str = "query:NAME";
const TERMS: &str =
    "body, timestamp, id, header:NAME, tag:NAME, const:TEXT, url, url-other-port, form-sorted or punctuation such as \".\"";
const KEY_STEPS: &str = "strip-prefix:TEXT, utf8, hex, base64 or base64url";
const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);
const PERCENT: &str = "an integer from 0 to 99";
const WITHIN: &str = "a duration from \"1m\" to \"30d\"";
const MINUTE: Duration = Duration::from_secs(60);
const DAYS_30: Duration = Duration::from_secs(30 * 86_400);
const TOLERANCE: RangeInclusive<Duration> = Duration::ZERO..=DAYS_30;
/// The allowed range of the option `max_body`, in bytes.
const MAX_BODY: RangeInclusive<u64> = 1..=1 << 30;
