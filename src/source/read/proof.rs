//! Reads the proofs of a recipe. A recipe with one proof names its parameters at the top level. A recipe with several proofs
//! lists them as `[[proof]]`, and each inherits the parameters that it does not set from the top level.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fetch::key_fetch;
use super::locator::{LocatorParser, header};
use super::{Invalid, content, need};
use crate::source::recipe::{
    Algorithm, BodyHash, Coverage, DigestProof, Encoding, EventLocators, HashClaim, JwtAlgorithm, JwtKeyKind, JwtProof,
    KeyFormat, Locator, MacProof, Proof, PublicKeyAlgorithm, PublicKeyFormat, PublicKeyProof, SignatureFormat, SignatureLocator,
    SignedContent, Term, TimeUnit, Timestamp, TokenProof,
};
use crate::source::validate;
use crate::toml_value::{Item, TomlTable};

/// The kind of a proof, as the parameter `auth` names it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mac,
    Digest,
    PublicKey,
    Jwt,
    Token,
    Basic,
    None,
}

/// Takes the proofs out of the recipe's table. Returns `None` if a proof is missing or invalid.
pub(super) fn all(table: &mut TomlTable, event: &EventLocators, locators: &mut LocatorParser) -> Option<Vec<Proof>> {
    let Some(items) = table.take_list("proof") else {
        return one(table, event, locators).map(|proof| vec![proof]);
    };
    if items.is_empty() {
        table.expected("proof", "at least one [[proof]]", "an empty array");
        return None;
    }
    if items.len() > MAX_PROOFS {
        table.expected("proof", format_args!("at most {MAX_PROOFS} proofs"), format_args!("{}; remove some", items.len()));
        return None;
    }
    let shared = table.split_off(KEYS);
    let proofs: Vec<Option<Proof>> = items
        .into_iter()
        .map(|item| {
            let item = item.table()?;
            let inherited = shared.keys().into_iter().filter(|key| !item.keys().contains(key)).collect::<Vec<_>>();
            let mut table = shared.clone().overlaid(item);
            let proof = one(&mut table, event, locators);
            // Another kind of proof may use a parameter that this proof inherits but does not know.
            inherited.iter().for_each(|key| drop(table.take(key)));
            table.finish();
            proof
        })
        .collect();
    let proofs: Vec<Proof> = proofs.into_iter().collect::<Option<_>>()?;
    if proofs.len() > 1 && proofs.iter().any(|proof| matches!(proof, Proof::None)) {
        table.expected(
            "proof",
            "proofs of which none is auth = \"none\"",
            "one that accepts every delivery; remove it or the others",
        );
        return None;
    }
    Some(proofs)
}

fn one(table: &mut TomlTable, event: &EventLocators, locators: &mut LocatorParser) -> Option<Proof> {
    let kind = need(table, "auth", AUTH, |table| table.take_one_of("auth", KINDS));
    // Reads a recipe without a valid kind as a MAC, to report the other mistakes in the same pass.
    let proof = match kind.unwrap_or(Kind::Mac) {
        Kind::Mac => mac(table, event, locators).map(Proof::Mac),
        Kind::Digest => digest(table, event, locators).map(Proof::Digest),
        Kind::PublicKey => public_key(table, event, locators).map(Proof::PublicKey),
        Kind::Jwt => jwt(table, event, locators).map(Proof::Jwt),
        Kind::Token => {
            let (token, key_format) = (token(table, locators), key_format(table));
            token.map(|(from, prefix)| Proof::Token(TokenProof { from, prefix, key_format }))
        }
        Kind::Basic => Some(Proof::Basic),
        Kind::None => Some(Proof::None),
    };
    proof.filter(|_| kind.is_some())
}

fn mac(table: &mut TomlTable, event: &EventLocators, locators: &mut LocatorParser) -> Option<MacProof> {
    let algorithm = need(table, "algorithm", HASHES, |table| table.take_one_of("algorithm", Algorithm::WORDS));
    let key_format = key_format(table);
    let signed = signed(table, algorithm.map(Algorithm::size), event, locators);
    Some(MacProof { algorithm: algorithm?, key_format, signed: signed? })
}

fn digest(table: &mut TomlTable, event: &EventLocators, locators: &mut LocatorParser) -> Option<DigestProof> {
    let MacProof { algorithm, key_format, signed } = mac(table, event, locators)?;
    validate::digest_contains_secret(table, &signed)?;
    Some(DigestProof { algorithm, key_format, signed })
}

fn public_key(table: &mut TomlTable, event: &EventLocators, locators: &mut LocatorParser) -> Option<PublicKeyProof> {
    let words = PublicKeyAlgorithm::WORDS;
    let algorithm = need(table, "algorithm", SIGNATURES, |table| table.take_one_of("algorithm", words));
    let key_format = table.take_one_of("key_format", PublicKeyFormat::WORDS).unwrap_or_default();
    let fetch = table.take("fetch").map(|item| key_fetch(item, false, locators).ok_or(Invalid)).transpose();
    let signed = signed(table, algorithm.and_then(PublicKeyAlgorithm::size), event, locators)?;
    validate::content_has_no_secret(table, &signed)?;
    Some(PublicKeyProof { algorithm: algorithm?, key_format, fetch: fetch.ok()?, signed })
}

/// Takes the parameters that MACs, digests and public-key signatures share.
fn signed(
    table: &mut TomlTable,
    code_size: Option<usize>,
    event: &EventLocators,
    locators: &mut LocatorParser,
) -> Option<SignedContent> {
    let (in_slots, mut by_item) = table.take_one_of("match", MATCHES).unwrap_or_default();
    if by_item && event.batch.is_none() {
        by_item = false;
        let found = "\"all-items\" without it; add event.batch or remove match";
        table.expected("match", "a recipe with event.batch", found);
    }
    locators.in_item = by_item;
    let timestamp = table.take("timestamp").map(|item| signing_time(item, locators).ok_or(Invalid)).transpose();
    let signature = need(table, "signature", SIGNATURE, |table| signature(table, locators));
    let contents = content::take(table, locators);
    locators.in_item = false;
    let body_hash = table.take("body_sha256").map(|item| body_hash(item).ok_or(Invalid)).transpose();
    let encoding = table.take_one_of("encoding", Encoding::WORDS);
    let (signature, inline_encoding) = signature?;
    let (timestamp, contents, body_hash) = (timestamp.ok()?, contents?, body_hash.ok()?);
    let mut signed = SignedContent {
        encoding: inline_encoding.or(encoding).unwrap_or(Encoding::Hex),
        code_size,
        signature,
        signs_form: contents.iter().flatten().any(|term| matches!(term, Term::FormSorted(_))),
        contents,
        timestamp,
        reads_tags: false,
        reads_body: false,
        in_slots,
        by_item,
        body_hash,
        coverage: Coverage::NOTHING,
    };
    signed.reads_tags = validate::uses_tags(&signed, event);
    signed.reads_body = validate::reads_body(&signed, event);
    if table.accepts(&["signature", "content", "content_variants", "body_sha256", "timestamp", "event", "key"]) {
        validate::parts_agree(table, &signed, event)?;
    }
    signed.coverage = validate::coverage(&signed, event);
    Some(signed)
}

fn signature(table: &mut TomlTable, locators: &mut LocatorParser) -> Option<(SignatureFormat, Option<Encoding>)> {
    let mut table = table.take_table("signature")?;
    let from = need(&mut table, "from", SIGNED_FROM, |table| table.take_list("from"));
    if from.as_ref().is_some_and(Vec::is_empty) {
        table.expected("from", SIGNED_FROM, "an empty array");
    }
    let from: Vec<Option<SignatureLocator>> =
        from.unwrap_or_default().into_iter().map(|item| signature_locator(item, locators)).collect();
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
    let from: Vec<SignatureLocator> = from.into_iter().collect::<Option<_>>()?;
    let signature = SignatureFormat { from, groups, items, pair, take, prefix, trim };
    (is_paired && !signature.from.is_empty()).then_some((signature, encoding))
}

fn signature_locator(item: Item, locators: &mut LocatorParser) -> Option<SignatureLocator> {
    let text = item.clone().string()?;
    if let Some(prefix) = text.strip_suffix("-*").and_then(header) {
        return Some(SignatureLocator::NumberedHeaders(format!("{prefix}-")));
    }
    match text.split_once(':') {
        Some(("header", _)) => item.parse(SIGNED_FROM, header).map(SignatureLocator::Header),
        Some(("query" | "json" | "form" | "form-json", _)) => locators.text(&text, &item).map(SignatureLocator::Other),
        _ => item.unexpected(SIGNED_FROM),
    }
}

fn signing_time(item: Item, locators: &mut LocatorParser) -> Option<Timestamp> {
    let mut table = item.table()?;
    let from = need(&mut table, "from", TIMED_FROM, |table| table.take("from")).map(|item| locators.choice(item));
    let unit = table.take_one_of("unit", TimeUnit::WORDS).unwrap_or(TimeUnit::Seconds);
    let past = table.take_duration("past", TOLERANCE).unwrap_or(DEFAULT_TOLERANCE);
    let future = table.take_duration("future", TOLERANCE).unwrap_or(DEFAULT_TOLERANCE);
    let is_single = from.as_ref().is_none_or(validate::is_single);
    if !is_single && table.accepts(&["from"]) {
        table.expected("from", TIMED_FROM, "a fixed text or several fields");
    }
    table.finish();
    Some(Timestamp { from: from.filter(|_| is_single)?, unit, past, future })
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

fn jwt(table: &mut TomlTable, event: &EventLocators, locators: &mut LocatorParser) -> Option<JwtProof> {
    let token = token(table, locators);
    let names = need(table, "algorithm", JWT_ALGORITHMS, |table| table.take_list("algorithm"));
    if names.as_ref().is_some_and(Vec::is_empty) {
        table.expected("algorithm", JWT_ALGORITHMS, "an empty array");
    }
    let algorithms: Option<Vec<JwtAlgorithm>> =
        names.unwrap_or_default().into_iter().map(|item| item.one_of(JwtAlgorithm::WORDS)).collect();
    let algorithms = algorithms.filter(|all| !all.is_empty())?;
    let kind = algorithms[0].key_kind();
    if algorithms.iter().any(|algorithm| algorithm.key_kind() != kind) {
        table.expected("algorithm", "algorithms with the same kind of key", "different kinds; write one [[proof]] for each kind");
        return None;
    }
    let is_secret = kind == JwtKeyKind::Secret;
    let key_format = if is_secret { key_format(table) } else { KeyFormat::default() };
    let public = if is_secret { None } else { table.take_one_of("key_format", PublicKeyFormat::WORDS) };
    let fetch = if is_secret { None } else { table.take("fetch") };
    let fetch = fetch.map(|item| key_fetch(item, true, locators).ok_or(Invalid)).transpose().ok()?;
    let claims = claims(table, locators)?;
    let body_claim = table.take("body_claim").map(|item| hash_claim(item).ok_or(Invalid)).transpose().ok()?;
    let url_claim = table.take("url_claim").map(|item| hash_claim(item).ok_or(Invalid)).transpose().ok()?;
    let max_age = table.take_duration("max_age", TOLERANCE);
    let (from, prefix) = token?;
    let coverage = validate::token_coverage(body_claim.is_some(), url_claim.is_some(), event);
    let public_key_format = public.unwrap_or_default();
    Some(JwtProof {
        from,
        prefix,
        algorithms,
        public_key_format,
        fetch,
        key_format,
        claims,
        body_claim,
        url_claim,
        max_age,
        coverage,
    })
}

/// Takes the claims that a token must contain, such as `claims = { iss = "netlify", aud = "config:audience" }`.
fn claims(table: &mut TomlTable, locators: &mut LocatorParser) -> Option<Vec<(String, String)>> {
    let mut claims = table.take_section("claims");
    let mut all = Vec::new();
    for name in claims.keys() {
        let item = claims.take(&name)?;
        let text = item.clone().string()?;
        let value = match text.split_once(':') {
            Some(("config", _)) => match locators.text(&text, &item)? {
                Locator::Const(value) => value,
                _ => text,
            },
            _ => text,
        };
        all.push((name, value));
    }
    Some(all)
}

fn hash_claim(item: Item) -> Option<HashClaim> {
    let mut table = item.table()?;
    let name = need(&mut table, "name", "the name of a claim", |table| table.take_str("name"));
    let algorithm = table.take_one_of("algorithm", Algorithm::WORDS).unwrap_or(Algorithm::Sha256);
    let encoding = table.take_one_of("encoding", Encoding::WORDS).unwrap_or(Encoding::Hex);
    table.finish();
    Some(HashClaim { name: name?, algorithm, encoding })
}

/// Takes `token = { from = …, prefix = … }`.
fn token(table: &mut TomlTable, locators: &mut LocatorParser) -> Option<(Vec<Locator>, String)> {
    let mut table = need(table, "token", TOKEN, |table| table.take_table("token"))?;
    let from = need(&mut table, "from", TOKEN_FROM, |table| table.take_list("from"));
    if from.as_ref().is_some_and(Vec::is_empty) {
        table.expected("from", TOKEN_FROM, "an empty array");
    }
    let from: Option<Vec<Locator>> = from
        .unwrap_or_default()
        .into_iter()
        .map(|item| match locators.item(item.clone())? {
            locator @ (Locator::Header(_) | Locator::Query(_) | Locator::Body(_)) => Some(locator),
            _ => item.unexpected(TOKEN_FROM),
        })
        .collect();
    let prefix = table.take_str("prefix").unwrap_or_default();
    table.finish();
    Some((from.filter(|from| !from.is_empty())?, prefix))
}

/// Takes the steps that decode a secret. A recipe lists them in the order in which they apply: prefixes, one encoding, one hash.
fn key_format(table: &mut TomlTable) -> KeyFormat {
    let mut format = KeyFormat::default();
    let mut last = KeyStep::Prefix;
    for item in table.take_list("key_format").unwrap_or_default() {
        let step = item.as_str().unwrap_or_default().to_owned();
        let kind = match (step.strip_prefix("strip-prefix:"), step.as_str(), content::value_of(Encoding::WORDS, &step)) {
            (Some(prefix), _, _) if !prefix.is_empty() => {
                format.strip.push(prefix.to_owned());
                KeyStep::Prefix
            }
            (_, "utf8", _) => KeyStep::Encoding,
            (_, "sha1" | "sha256", _) => {
                format.hash = Some(if step == "sha1" { Algorithm::Sha1 } else { Algorithm::Sha256 });
                KeyStep::Hash
            }
            (_, _, Some(encoding)) => {
                format.encoding = Some(encoding);
                KeyStep::Encoding
            }
            _ => {
                match item.as_str() {
                    Some(_) => item.location.expected(KEY_STEPS, "an unknown step"),
                    None => drop(item.unexpected::<()>(KEY_STEPS)),
                }
                continue;
            }
        };
        if kind < last || (kind == last && kind != KeyStep::Prefix) {
            let expected = "strip-prefix steps, then at most one encoding, then at most one hash";
            item.location.expected(expected, format_args!("{step} after another step; remove or move it"));
        }
        last = kind;
    }
    format
}

/// A kind of step of `key_format`, in the order in which the steps apply.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum KeyStep {
    Prefix,
    Encoding,
    Hash,
}

/// The parameters that a `[[proof]]` inherits from the top level of its recipe.
const KEYS: &[&str] = &[
    "auth",
    "algorithm",
    "encoding",
    "signature",
    "key_format",
    "fetch",
    "content",
    "content_variants",
    "body_sha256",
    "timestamp",
    "match",
    "token",
    "claims",
    "body_claim",
    "url_claim",
    "max_age",
];
const KINDS: &[(&str, Kind)] = &[
    ("mac", Kind::Mac),
    ("digest", Kind::Digest),
    ("signature", Kind::PublicKey),
    ("jwt", Kind::Jwt),
    ("token", Kind::Token),
    ("basic", Kind::Basic),
    ("none", Kind::None),
];
/// The words of `match`, each with the values of [`SignedContent::in_slots`] and [`SignedContent::by_item`].
const MATCHES: &[(&str, (bool, bool))] = &[("any", (false, false)), ("slots", (true, false)), ("all-items", (false, true))];
const AUTH: &str = "\"mac\", \"digest\", \"signature\", \"jwt\", \"token\", \"basic\" or \"none\"";
const HASHES: &str = "\"sha1\", \"sha256\", \"sha384\" or \"sha512\"";
const SIGNATURES: &str = "a signature algorithm such as \"ed25519\" or \"rsa-pkcs1-sha256\"";
const JWT_ALGORITHMS: &str = "an array of algorithms such as [\"HS256\"]";
const SIGNATURE: &str = "a table such as { from = \"header:NAME\" }";
const SIGNED_FROM: &str = "header:NAME, header:NAME-*, query:NAME, json:/POINTER, form:NAME or form-json:NAME/POINTER";
const TIMED_FROM: &str = "a locator such as header:NAME, tag:NAME or json:/POINTER";
const HASHED_FROM: &str = "query:NAME";
const TOKEN: &str = "a table such as { from = \"header:NAME\" }";
const TOKEN_FROM: &str = "header:NAME, query:NAME, json:/POINTER, form:NAME or form-json:NAME/POINTER";
const KEY_STEPS: &str = "strip-prefix:TEXT, utf8, hex, base64, base64url, sha1 or sha256";
/// Maximum number of proofs of a recipe.
const MAX_PROOFS: usize = 8;
const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);
const TOLERANCE: RangeInclusive<Duration> = Duration::ZERO..=super::DAYS_30;
