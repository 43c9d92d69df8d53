//! Reads the endpoint challenges of a recipe from TOML: the conditions that identify each challenge, the reply, and the action
//! that the challenge asks for.

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::content::value_of;
use super::locator::LocatorParser;
use super::{ACCEPTED, header_value, need, status};
use crate::answer::EffectKind;
use crate::source::recipe::{
    Algorithm, Challenge, EffectRule, Encoding, Locator, Proof, ReplyPart, ReplyTemplate, RequestText, TextMatch,
};
use crate::toml_value::{Item, TomlTable};

/// Takes the endpoint challenges out of the recipe `table`. `proofs` are the proofs of the same recipe. Returns `None` if any
/// challenge is invalid. If hookhold ignored an invalid challenge, it would store the provider's challenge requests as events.
pub(super) fn all(table: &mut TomlTable, proofs: Option<&[Proof]>, locators: &mut LocatorParser) -> Option<Vec<Challenge>> {
    let items = table.take_list("challenge").unwrap_or_default();
    let all: Vec<Option<Challenge>> = items.into_iter().map(|item| one(item, proofs, locators)).collect();
    all.into_iter().collect()
}

fn one(item: Item, proofs: Option<&[Proof]>, locators: &mut LocatorParser) -> Option<Challenge> {
    let mut table = item.table()?;
    let methods = methods(&mut table);
    let when = conditions(&mut table, methods.as_deref(), locators);
    // A recipe without keys cannot verify a challenge.
    let has_keys = proofs.is_none_or(|proofs| proofs.iter().any(Proof::needs_key));
    let authenticated = table.take_bool("authenticated").unwrap_or(true) && has_keys;
    let effect = table.take("effect").map(|item| effect(&item, locators));
    let reply = ReplyParser { proofs, authenticated, locators }.reply(table.take_section("reply"));
    table.finish();
    let effect = match effect {
        Some(effect) => Some(effect?),
        None => None,
    };
    Some(Challenge { methods: methods?, when: when?, authenticated, reply: reply?, effect })
}

/// Takes the methods of a challenge. A challenge has the method POST if it names none.
fn methods(table: &mut TomlTable) -> Option<Vec<Method>> {
    let Some(items) = table.take_list("methods") else { return Some(vec![Method::POST]) };
    if items.is_empty() {
        table.expected("methods", "at least one method", "an empty array");
        return None;
    }
    items.into_iter().map(|item| item.one_of(METHODS)?.parse().ok()).collect()
}

/// Takes the conditions of a challenge. A challenge with the method POST must have at least one condition, because every other
/// request with this method is an event.
fn conditions(
    table: &mut TomlTable,
    methods: Option<&[Method]>,
    locators: &mut LocatorParser,
) -> Option<Vec<(Locator, TextMatch)>> {
    let is_needed = methods.is_some_and(|methods| methods.contains(&Method::POST));
    let is_absent = !table.keys().iter().any(|key| key == "when");
    if is_absent && !is_needed {
        table.take("when");
        return Some(Vec::new());
    }
    need(table, "when", WHEN, |table| table.take_table("when")).and_then(|when| predicate(when, locators))
}

/// Parses the conditions that identify a challenge, such as `{ "json:/type" = "url_verification" }`. The keys of the table are
/// locators. The value `true` matches any non-empty text, and `config:NAME` is a text in the source's `values`.
fn predicate(mut table: TomlTable, locators: &mut LocatorParser) -> Option<Vec<(Locator, TextMatch)>> {
    let mut all = Vec::new();
    for key in table.keys() {
        let item = table.take(&key)?;
        let locator = untagged(&key, &item, locators);
        let wanted = match item.as_str() {
            Some("") => item.expected(WHEN, "an empty string, which never matches"),
            Some(text) if text.starts_with("config:") => literal(text, &item, locators).map(TextMatch::Configured),
            Some(text) => Some(TextMatch::Exactly(text.to_owned())),
            None => match item.as_bool() {
                Some(true) => Some(TextMatch::Any),
                Some(false) => item.expected(WHEN, "false, which never matches"),
                None => item.unexpected(WHEN),
            },
        };
        all.push(locator.zip(wanted));
    }
    if all.is_empty() {
        table.location.expected(WHEN, "an empty table, which matches every delivery");
        return None;
    }
    all.into_iter().collect()
}

/// Parses a locator of an endpoint challenge. Rejects a locator that reads the proof, because a challenge may be unsigned, and
/// an unsigned request has no tags and no token.
fn untagged(text: &str, item: &Item, locators: &mut LocatorParser) -> Option<Locator> {
    match locators.text(text, item)? {
        Locator::Tag(_) | Locator::Claim(_) | Locator::BasicUser => {
            item.expected(UNTAGGED, "a part of the proof; use another locator, because a challenge may be unsigned")
        }
        locator => Some(locator),
    }
}

/// Parses `const:TEXT` or `config:NAME`.
fn literal(text: &str, item: &Item, locators: &mut LocatorParser) -> Option<String> {
    match locators.text(text, item)? {
        Locator::Const(text) => Some(text),
        _ => item.unexpected(PARTS),
    }
}

fn effect(item: &Item, locators: &mut LocatorParser) -> Option<EffectRule> {
    let text = item.clone().string_as(EFFECTS)?;
    let (word, locator) = call(&text).map_or((&*text, None), |(word, locator)| (word, Some(locator)));
    match (value_of(EffectKind::WORDS, word), locator) {
        (Some(kind), Some(locator)) => Some(EffectRule { kind, from: Some(untagged(locator, item, locators)?) }),
        (Some(EffectKind::Report), None) => Some(EffectRule { kind: EffectKind::Report, from: None }),
        _ => item.unexpected(EFFECTS),
    }
}

/// Splits the text `NAME(ARGUMENTS)`.
fn call(text: &str) -> Option<(&str, &str)> {
    text.strip_suffix(')')?.split_once('(')
}

/// Reads the reply to one challenge.
struct ReplyParser<'p> {
    /// The proofs of the recipe, or `None` if a proof is invalid.
    proofs: Option<&'p [Proof]>,
    /// True if the provider signs the challenge.
    authenticated: bool,
    locators: &'p mut LocatorParser,
}

impl ReplyParser<'_> {
    fn reply(&mut self, mut table: TomlTable) -> Option<ReplyTemplate> {
        let status = status(&mut table, "status", ACCEPTED).unwrap_or(StatusCode::OK);
        let media_type = table.take("content_type");
        let content_type = media_type.clone().and_then(header_value);
        let mut named = table.take_section("headers");
        let headers: Vec<Option<(HeaderName, Vec<ReplyPart>)>> = named
            .keys()
            .into_iter()
            .filter_map(|name| Some((named.take(&name)?, name)))
            .map(|(item, name)| header_name(&name, &item).zip(self.header_value(item)))
            .collect();
        let body = table.take("body").map_or(Some(Vec::new()), |item| self.list(item));
        table.finish();
        // A browser that follows a link to the source would run the text of the link as a page.
        let is_page = content_type.as_deref().is_some_and(is_page) && !self.authenticated;
        if let Some(item) = media_type.filter(|_| is_page && body.iter().flatten().any(copies_request)) {
            return item.expected(
                "a media type such as text/plain for a reply that copies a text of an unsigned request",
                "one that browsers run as a page; set another content_type",
            );
        }
        Some(ReplyTemplate { status, content_type, headers: headers.into_iter().collect::<Option<_>>()?, body: body? })
    }

    /// Parses the parts of a header field's value. Rejects a fixed text that no header field may contain, because the challenge
    /// could then never be answered.
    fn header_value(&mut self, item: Item) -> Option<Vec<ReplyPart>> {
        let is_fit = |part: &ReplyPart| match part {
            ReplyPart::Literal(text) => text.is_ascii() && HeaderValue::from_str(text).is_ok(),
            _ => true,
        };
        let parts = self.list(item.clone())?;
        match parts.iter().all(is_fit) {
            true => Some(parts),
            false => item.expected("visible ASCII characters", "another character; remove it"),
        }
    }

    fn list(&mut self, item: Item) -> Option<Vec<ReplyPart>> {
        let parts: Vec<Option<ReplyPart>> = item.list().into_iter().map(|item| self.part(&item)).collect();
        parts.into_iter().collect()
    }

    fn part(&mut self, item: &Item) -> Option<ReplyPart> {
        let text = item.clone().string()?;
        match call(&text) {
            Some(("json", inner)) => Some(ReplyPart::Json(Box::new(self.unquoted(inner, item)?))),
            _ => self.unquoted(&text, item),
        }
    }

    fn unquoted(&mut self, text: &str, item: &Item) -> Option<ReplyPart> {
        if text.starts_with("const:") || text.starts_with("config:") {
            return literal(text, item, self.locators).map(ReplyPart::Literal);
        }
        match call(text) {
            Some(("hmac", arguments)) => self.hmac(arguments, item),
            Some(("echo" | "percent-decode", _)) => self.request_text(text, item).map(ReplyPart::Echo),
            _ => item.unexpected(PARTS),
        }
    }

    /// Parses `echo(LOCATOR)`, `percent-decode(LOCATOR)` or `LOCATOR`.
    fn request_text(&mut self, text: &str, item: &Item) -> Option<RequestText> {
        let (is_percent_encoded, locator) = match call(text) {
            Some(("percent-decode", locator)) => (true, locator),
            Some(("echo", locator)) => (false, locator),
            _ => (false, text),
        };
        Some(RequestText { from: untagged(locator, item, self.locators)?, is_percent_encoded })
    }

    /// Parses the arguments `ALGORITHM, LOCATOR, ENCODING`. A comma may be part of the locator.
    fn hmac(&mut self, arguments: &str, item: &Item) -> Option<ReplyPart> {
        let split = arguments.split_once(',').and_then(|(algorithm, rest)| Some((algorithm, rest.rsplit_once(',')?)));
        let Some((algorithm, (text, encoding))) = split else { return item.unexpected(HMAC) };
        let algorithm = value_of(Algorithm::WORDS, algorithm.trim()).or_else(|| item.unexpected(HMAC))?;
        let encoding = value_of(Encoding::WORDS, encoding.trim()).or_else(|| item.unexpected(HMAC))?;
        let uses_secrets = |proof: &Proof| proof.needs_key() && !proof.uses_public_keys();
        let proofs = self.proofs.unwrap_or_default();
        if self.proofs.is_some() && !proofs.iter().any(uses_secrets) {
            return item.expected("hmac only in a recipe whose proof uses secrets", "a recipe without secrets; remove hmac");
        }
        if !self.authenticated && proofs.iter().any(|proof| matches!(proof, Proof::Jwt(_)) && uses_secrets(proof)) {
            let found = "an unsigned challenge, with which anyone could have a token signed; set authenticated to true";
            return item.expected("no hmac with the secrets of JSON Web Tokens", found);
        }
        Some(ReplyPart::Hmac { algorithm, text: self.request_text(text.trim(), item)?, encoding })
    }
}

/// Returns true for a media type that browsers run as a page.
fn is_page(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "text/html" || essence.ends_with("/xml") || essence.ends_with("+xml")
}

fn copies_request(part: &ReplyPart) -> bool {
    match part {
        ReplyPart::Echo(_) => true,
        ReplyPart::Json(part) => copies_request(part),
        ReplyPart::Literal(_) | ReplyPart::Hmac { .. } => false,
    }
}

/// Parses the name of a header field that a reply may set. Rejects fields that the server sets itself, and fields with which a
/// copied text could act in a browser on another site of the operator.
fn header_name(name: &str, item: &Item) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    parsed.filter(|name| !RESERVED.contains(&name.as_str())).or_else(|| {
        item.expected(
            "the name of a header field such as \"WebHook-Allowed-Origin\"",
            "a name that is invalid or reserved; set content_type for the media type, and remove any other reserved name",
        )
    })
}

const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "location",
    "proxy-connection",
    "refresh",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-content-type-options",
];
const METHODS: &[(&str, &str)] = &[("GET", "GET"), ("HEAD", "HEAD"), ("OPTIONS", "OPTIONS"), ("POST", "POST")];
const WHEN: &str =
    "a table that maps each locator to a string, or to true for any string, such as { \"json:/type\" = \"url_verification\" }";
const UNTAGGED: &str = "header:NAME, json:/POINTER, form:NAME, form-json:NAME/POINTER or query:NAME";
const PARTS: &str = "const:TEXT, config:NAME, echo(LOCATOR), percent-decode(LOCATOR), hmac(ALGORITHM, LOCATOR, ENCODING) or \
                     json(PART)";
const HMAC: &str = "hmac(ALGORITHM, LOCATOR, ENCODING) such as hmac(sha256, query:crc_token, base64)";
const EFFECTS: &str = "report, report(LOCATOR), visit-url(LOCATOR) or learn-secret(LOCATOR)";
