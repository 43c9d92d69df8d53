//! One function for each fuzz target. Each function reads arbitrary bytes through the public API of the verifier or of the
//! configuration, and panics if a promise is broken: no unsigned delivery verifies, and no input makes the library panic. Where
//! another library reads the same format, the target compares the results.
//!
//! The bytes choose a recipe and contain the parts of a delivery. The targets know the secrets and the private keys of the
//! recipes. A target that tests code behind a signature signs the bytes itself.

use std::cell::Cell;
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hmac::{Hmac, KeyInit, Mac};
use hookhold::clock::UnixMillis;
use hookhold::event::{Delivery, Event};
use hookhold::source::recipe::Proof;
use hookhold::source::url::PublicUrl;
use hookhold::source::{Providers, RecipeFile, Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::sign::{SampleOptions, Tamper, sign};
use hookhold::verify::{Memory, Rejection, Verdict, Verifier, decompressed};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Value;
use sha2::Sha256;

/// Reads the headers that contain signatures. The text `SIG` in a header stands for the genuine signature of the time
/// 1700000000 and the body, so that the fuzzer reaches the code behind the check of the signature.
pub fn grammar(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((recipe, verifier, data)) = chosen(RECIPES.get_or_init(|| all(GRAMMARS)), data) else { return };
    let body = Bytes::from_static(b"{}");
    let code = hex(&mac(b"1700000000{}"));
    let mut delivery = delivery("/hooks/fuzz", body);
    for (index, line) in data.split(|byte| *byte == b'\n').enumerate() {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) if index > 0 => (HeaderName::from_bytes(&line[..at]).ok(), &line[at + 1..]),
            _ => (Some(SIGNATURE), line),
        };
        let value = replaced(value, b"SIG", code.as_bytes());
        if index == 0 && recipe == SIGNED_IN_QUERY {
            delivery.target = format!("/hooks/fuzz?sig={}", String::from_utf8_lossy(&value));
        }
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
            delivery.headers.append(name, value);
        }
    }
    let names_code = data.windows(3).any(|window| window == b"SIG");
    let result = verify(verifier, &delivery);
    assert!(names_code || result.is_err(), "a delivery without a genuine signature verifies");
}

/// Finds values in the request head and in a JSON body, splits batches, and replies to endpoint challenges. The first line is
/// the request target, with `GET ` in front of it for this method.
pub fn locators(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((recipe, verifier, data)) = chosen(RECIPES.get_or_init(|| all(LOCATORS)), data) else { return };
    let (head, body) = cut(data, 0).unwrap_or((b"", data));
    let mut lines = head.split(|byte| *byte == b'\n');
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (method, target) = target.strip_prefix("GET ").map_or((Method::POST, &*target), |target| (Method::GET, target));
    let mut delivery = Delivery { method, ..delivery(target, Bytes::copy_from_slice(body)) };
    for line in lines {
        let (name, value) = cut(line, b':').unwrap_or((b"x-id", line));
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            delivery.headers.append(name, value);
        }
    }
    if recipe == SIGNED_BATCH {
        delivery.headers.insert(SIGNATURE, HeaderValue::from_str(&hex(&mac(body))).expect("hexadecimal"));
    } else if !delivery.headers.contains_key(SIGNATURE) && !verifier.source().recipe.proof_headers().is_empty() {
        delivery.headers.insert(SIGNATURE, unsigned());
    }
    let is_accepted = recipe == SIGNED_BATCH || matches!(verifier.source().recipe.proofs[0], Proof::None);
    let first = found(&delivery, verify(verifier, &delivery));
    assert!(is_accepted || !matches!(first, Found::Event(_) | Found::Items(_)), "an unsigned delivery verifies");
    // The content type is not signed, so it must not change the values.
    let mut other = delivery.clone();
    other.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    assert_eq!(found(&other, verify(verifier, &other)), first);
    if delivery.method != Method::POST || delivery.headers.contains_key(http::header::CONTENT_ENCODING) {
        return;
    }
    match (&first, MODELS.iter().find(|(of, ..)| *of == recipe)) {
        (Found::Items(items), Some((_, batch, pointers))) => {
            let is_order = items.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start);
            assert!(is_order, "two items of a batch overlap");
            items.iter().for_each(|(range, facts)| item_alone(&delivery, range, facts));
            let batch = batch.expect("the recipe has a batch");
            if let Ok(tree) = serde_json::from_slice::<Value>(body) {
                let list = tree.pointer(batch).and_then(Value::as_array).expect("the body contains the array");
                assert_eq!(items.len(), list.len());
                for ((range, facts), item) in items.iter().zip(list) {
                    assert_eq!(serde_json::from_slice::<Value>(&body[range.clone()]).as_ref().ok(), Some(item));
                    agree(facts, item, pointers);
                }
            }
        }
        (Found::Event(facts), Some((_, batch, pointers))) => {
            if let Ok(tree) = serde_json::from_slice::<Value>(body) {
                let is_array = |pointer: &&str| tree.pointer(pointer).is_some_and(Value::is_array);
                assert!(batch.as_ref().is_none_or(|pointer| !is_array(pointer)), "a batch is not split");
                if batch.is_none() {
                    agree(facts, &tree, pointers);
                    in_utf16(verifier, &delivery, &first);
                }
            }
        }
        _ => {}
    }
}

/// Checks that an item of a batch, sent on its own, has the values that it has in the batch.
fn item_alone(whole: &Delivery, range: &Range<usize>, facts: &Facts) {
    static ALONE: OnceLock<Vec<Verifier>> = OnceLock::new();
    let body = whole.body.slice(range.clone());
    if is_text(&body) {
        let alone = delivery("/hooks/fuzz", body);
        let verifier = &ALONE.get_or_init(|| all(&[ITEM]))[0];
        assert_eq!(found(&alone, verify(verifier, &alone)), Found::Event(facts.clone()));
    }
}

/// Checks that a JSON body in UTF-16 has the values that it has in UTF-8.
fn in_utf16(verifier: &Verifier, delivery: &Delivery, expected: &Found) {
    let Ok(text) = std::str::from_utf8(&delivery.body) else { return };
    if text.trim_start().starts_with(['{', '[']) && text.len() < 2_000 {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let other = Delivery { body: [&[0xff, 0xfe][..], &units].concat().into(), ..delivery.clone() };
        assert_eq!(found(&other, verify(verifier, &other)), *expected);
    }
}

/// Checks that the values at the pointers are those that another JSON parser finds.
fn agree(facts: &Facts, tree: &Value, pointers: &[&str; 3]) {
    for (fact, pointer) in facts.iter().zip(pointers) {
        let text = match tree.pointer(pointer) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Bool(on)) => Some(on.to_string()),
            // The other parser rounds these numbers.
            Some(Value::Number(number)) if number.is_f64() => continue,
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        assert_eq!(*fact, text.filter(|text| (1..=MAX_FACT).contains(&text.len())), "{pointer}");
    }
}

/// Finds values in a form, and sorts a form for a signature. The target also signs the form, after another library has decoded
/// it.
pub fn form(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((recipe, verifier, data)) = chosen(RECIPES.get_or_init(|| all(FORMS)), data) else { return };
    let mut delivery = delivery("/hooks/fuzz", Bytes::copy_from_slice(data));
    // A readable signature of the right size, so that the verifier sorts the form before it rejects the signature.
    delivery.headers.insert(SIGNATURE, unsigned());
    let is_signed = verifier.source().recipe.proof_headers().contains(&SIGNATURE);
    assert!(verify(verifier, &delivery).is_err() || !is_signed, "an unsigned form verifies");
    if let Some(content) = sorted_form(recipe, data) {
        delivery.headers.insert(SIGNATURE, HeaderValue::from_str(&hex(&mac(&content))).expect("hexadecimal"));
        let result = verify(verifier, &delivery);
        assert!(result.is_ok(), "a genuine form is rejected: {result:?}");
    }
}

/// Returns the text that the sender of a form signs for the recipe, or `None` if the recipe signs no sorted form. Also returns
/// `None` for a form that is not UTF-8, because the library replaces invalid bytes, and for a form of too many fields.
fn sorted_form(recipe: usize, body: &[u8]) -> Option<Vec<u8>> {
    let mut fields: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
    let is_text = fields.iter().all(|(name, value)| !format!("{name}{value}").contains(char::REPLACEMENT_CHARACTER));
    if !is_text || fields.len() > MAX_FIELDS {
        return None;
    }
    let units = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    fields.sort_by_cached_key(|(name, value)| (units(name), units(value)));
    match recipe {
        1 => {
            fields.dedup();
            let fields: String = fields.into_iter().map(|(name, value)| name + &value).collect();
            Some(format!("https://hooks.example.com/hooks/fuzz{fields}").into())
        }
        2 => Some(fields.into_iter().map(|(name, value)| name + "=" + &value).collect::<Vec<_>>().join("&").into()),
        _ => None,
    }
}

/// Finds values in a multipart body. A first byte above 127 means that the rest contains the values of fields, and the target
/// writes the body.
pub fn multipart(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let is_written = data.first().is_some_and(|first| *first > 127);
    let Some((recipe, verifier, data)) = chosen(RECIPES.get_or_init(|| all(PARTS)), data) else { return };
    let facts_of = |body: Vec<u8>| {
        let delivery = delivery("/hooks/fuzz", body.into());
        found(&delivery, verify(verifier, &delivery))
    };
    if is_written && recipe == 0 {
        return written_parts(data, facts_of);
    }
    let first = facts_of(data.to_vec());
    let first_line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if !first_line.starts_with(b"--") {
        return;
    }
    // A line break before the first boundary does not change the values.
    assert_eq!(facts_of([b"\r\n", data].concat()), first);
    // The value of a field is a part of the body from one line break to another.
    if let (Found::Event([_, kind, key]), 0, true) = (first, recipe, is_text(data)) {
        for value in [kind, key].into_iter().flatten() {
            let ends = ["\n--", "\r\n--"].map(|end| format!("\n{value}{end}"));
            let is_inside = |text: &String| data.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(ends.iter().any(is_inside) || first_line.len() > 72, "a value is no part of the body");
        }
    }
}

/// Writes a multipart body with the values between the zero bytes of `data`, and checks that the verifier finds each of them.
fn written_parts(data: &[u8], facts_of: impl Fn(Vec<u8>) -> Found) {
    const BOUNDARY: &str = "--boundary-of-the-fuzz-target";
    if data.windows(BOUNDARY.len()).any(|window| window == BOUNDARY.as_bytes()) {
        return;
    }
    let names = ["key", "type", "a b", "other"];
    let mut body = format!("{BOUNDARY}\r\n").into_bytes();
    let mut first: [Option<&[u8]>; 4] = [None; 4];
    for part in data.split(|byte| *byte == 0).take(100) {
        let Some((name, value)) = part.split_first() else { continue };
        let at = usize::from(*name) % names.len();
        first[at] = first[at].or(Some(value));
        let name = names[at];
        body.extend(format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes());
        body.extend([value, format!("\r\n{BOUNDARY}\r\n").as_bytes()].concat());
    }
    body.truncate(body.len() - 2);
    body.extend(b"--\r\n");
    let text = |value: Option<&[u8]>| {
        let text = std::str::from_utf8(value?).ok()?;
        Some(text.to_owned()).filter(|text| !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER))
    };
    let short = |text: Option<String>| text.filter(|text| text.len() <= MAX_FACT);
    let Found::Event([_, kind, key]) = facts_of(body) else { panic!("a multipart body is rejected") };
    assert_eq!(key, short(text(first[0])));
    assert_eq!(kind, short(text(first[1]).or_else(|| text(first[2]))));
}

/// Decompresses a body after the proof. The first byte chooses the declared format. A byte above 127 means that the target
/// compresses the body. Decompression must stay within the memory that the caller grants.
pub fn decompression(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((_, verifier, data)) = chosen(RECIPES.get_or_init(|| all(COMPRESSED)), data) else { return };
    let Some((first, body)) = data.split_first() else { return };
    if *first > 127 {
        return compressed(verifier, *first, body);
    }
    let mut delivery = delivery("/hooks/fuzz", Bytes::copy_from_slice(body));
    let declared = ["", "gzip", "br", "zstd", "identity", "gzip, br", "x-gzip", "deflate"][usize::from(*first) % 8];
    if !declared.is_empty() {
        delivery.headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static(declared));
    }
    let memory = GrantedMemory::default();
    let verdict = verifier.verify_within(&delivery, &memory);
    assert!(verdict.is_ok(), "a compressed body is rejected: {verdict:?}");
    let _ = found(&delivery, verdict);
    let _ = verifier.is_long(&delivery);
    if let Some(bytes) = decompressed(&delivery, GrantedMemory::MOST) {
        assert!(bytes.len() <= GrantedMemory::MOST, "a decompressed body is longer than the limit");
    }
}

/// Compresses a plain body, and checks that the verifier finds the same values in both.
fn compressed(verifier: &Verifier, format: u8, body: &[u8]) {
    if !is_text(body) {
        return;
    }
    let plain = delivery("/hooks/fuzz", Bytes::copy_from_slice(body));
    let bytes = match format % 2 {
        0 => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).and_then(|()| encoder.finish()).expect("memory accepts every byte")
        }
        _ => zstd::bulk::compress(body, 1).expect("memory accepts every byte"),
    };
    let packed = delivery("/hooks/fuzz", bytes.into());
    let expected = found(&plain, verify(verifier, &plain));
    assert_eq!(found(&packed, verifier.verify_within(&packed, &GrantedMemory::default())), expected);
    assert_eq!(decompressed(&packed, GrantedMemory::MOST).as_deref(), Some(body));
}

/// Memory that grants at most [`GrantedMemory::MOST`] bytes.
#[derive(Default)]
struct GrantedMemory(Cell<usize>);

impl GrantedMemory {
    const MOST: usize = 1 << 20;
}

impl Memory for GrantedMemory {
    fn charge(&self, bytes: usize) -> bool {
        let sum = self.0.get().saturating_add(bytes);
        if sum <= GrantedMemory::MOST {
            self.0.set(sum);
        }
        sum <= GrantedMemory::MOST
    }
}

/// Reads JSON Web Tokens and other tokens. An even first byte means that the rest is the text of the token, in which `SECRET`
/// stands for the secret. After an odd one, the rest is the header and the claims, and the target signs them. The upper bits of
/// the byte choose the key.
pub fn jwt(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((recipe, verifier, data)) = chosen(RECIPES.get_or_init(|| all(TOKENS)), data) else { return };
    let Some((first, rest)) = data.split_first() else { return };
    // Half of the values choose the usual key.
    let signer = token_keys().get(usize::from(first >> 2) % 16).unwrap_or(&token_keys()[0]);
    let mut delivery = delivery("/hooks/fuzz", Bytes::from_static(b"{}"));
    let (url, rest) = if recipe == FETCHED { cut(rest, b'\n').unwrap_or_default() } else { (&b""[..], rest) };
    let is_signed = first % 2 == 1;
    let token = if is_signed {
        let header = format!(r#"{{"alg":"{:?}"}}"#, signer.algorithm);
        let (header, claims) = cut(rest, b'\n').unwrap_or((header.as_bytes(), rest));
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &signer.key, signer.algorithm);
        let prefix = if first % 4 == 1 { "" } else { "Bearer " };
        format!("{prefix}{signed}.{}", signature.expect("the key fits the algorithm")).into_bytes()
    } else {
        replaced(rest, b"SECRET", secret().as_bytes())
    };
    if recipe == IN_QUERY || recipe == PLAIN_TOKEN {
        delivery.target = format!("/hooks/fuzz?token={}", String::from_utf8_lossy(&token));
    }
    let credentials = match recipe {
        USER if is_signed => rest.to_vec(),
        USER => format!("Basic {}", STANDARD.encode(&token)).into_bytes(),
        _ => Vec::new(),
    };
    for (name, value) in [(SIGNATURE, &token[..]), (KEY_URL, url), (AUTHORIZATION, &credentials)] {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        delivery.headers.insert(name, value);
    }
    let result = verify(verifier, &delivery);
    if let Some(key) = result.as_ref().err().and_then(|rejection| rejection.needs_key.as_ref()) {
        assert!(recipe == FETCHED && is_allowed(&key.url), "a delivery names a key at {:?}", key.url);
    }
    let is_genuine = match recipe {
        PLAIN_TOKEN | USER => !is_signed && rest.windows(6).any(|window| window == b"SECRET"),
        _ => is_signed && signer.recipes.contains(&recipe),
    };
    assert!(is_genuine || result.is_err(), "a token verifies that is signed with {}: {is_signed}", signer.name);
}

/// Returns true if the recipe [`FETCHED`] allows the URL of a key.
fn is_allowed(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let host = rest.split(['/', '?']).next().unwrap_or_default().to_ascii_lowercase();
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    scheme.eq_ignore_ascii_case("https") && is_name && (host.ends_with(".example.com") || host == "keys.example.org")
}

/// A key that signs tokens.
struct TokenSigner {
    name: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    /// Indices of the recipes whose tokens this key may sign.
    recipes: &'static [usize],
}

fn token_keys() -> &'static [TokenSigner] {
    static KEYS: OnceLock<Vec<TokenSigner>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let secret = EncodingKey::from_secret(secret().as_bytes()).expect("a secret of any length");
        let public = EncodingKey::from_secret(RSA_PUBLIC_KEY.as_bytes()).expect("a secret of any length");
        let rsa = EncodingKey::from_rsa_der(include_bytes!("../keys/rsa.der"));
        let ec = EncodingKey::from_ec_der(include_bytes!("../keys/es256.der"));
        let ed = EncodingKey::from_ed_der(include_bytes!("../keys/eddsa.der"));
        let signer = |name, algorithm, key: &EncodingKey, recipes| TokenSigner { name, algorithm, key: key.clone(), recipes };
        vec![
            signer("the secret", Algorithm::HS256, &secret, &[0, 1, 2, IN_QUERY][..]),
            signer("the secret and SHA-384", Algorithm::HS384, &secret, &[]),
            signer("the secret and SHA-512", Algorithm::HS512, &secret, &[1]),
            signer("the key for ES256", Algorithm::ES256, &ec, &[4, FETCHED]),
            signer("the key for EdDSA", Algorithm::EdDSA, &ed, &[5]),
            signer("the RSA key and PKCS #1", Algorithm::RS256, &rsa, &[3]),
            signer("the RSA key and PSS", Algorithm::PS256, &rsa, &[3]),
            signer("the public key as a secret", Algorithm::HS256, &public, &[]),
        ]
    })
}

/// Reads the configuration of a source and a recipe file, and verifies and signs deliveries with the recipe that results.
pub fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The target must not read files.
    if text.contains("file:") {
        return;
    }
    let (file, diagnostics) = RecipeFile::check("fuzz".into(), "fuzz.toml".into(), text.to_owned());
    if diagnostics.is_empty() {
        let providers = Providers::with_directory("recipes".into(), vec![file]);
        assert!(providers.recipe("fuzz").is_some(), "a recipe without a mistake is not usable");
        let entry = "provider = \"fuzz\"\nsecrets = [\"env:PATH\"]\n";
        compile_with(entry, providers).into_iter().for_each(use_source);
    }
    match compile(text) {
        Ok(source) => use_source(source),
        Err(diagnostics) => assert!(!diagnostics.is_empty(), "a source is rejected without a reason"),
    }
}

/// Verifies an unsigned delivery, and samples that the recipe signs with the right secret and with another one.
fn use_source(source: Arc<Source>) {
    let verifier = Verifier::new(source.clone());
    let options =
        SampleOptions { id: "id-1".into(), event_type: None, key: None, now: UnixMillis(1_700_000_000_000), tamper: None };
    let _ = verify(&verifier, &delivery(&source.path, Bytes::from_static(b"{\"id\":1}")));
    let types = source.recipe.sample_types().into_iter().take(4).map(|kind| Some(kind.to_owned()));
    for (event_type, tamper) in types.flat_map(|kind| [None, Some(Tamper::Secret)].map(|tamper| (kind.clone(), tamper))) {
        let Some(sample) = sign(&source, None, &SampleOptions { event_type, tamper, ..options.clone() }) else { return };
        let signed = Delivery { headers: sample.headers, ..delivery(&sample.target, sample.body) };
        let result = verify(&verifier, &signed);
        let is_proved = matches!(result, Ok(Verdict::Event(_) | Verdict::Batch(_) | Verdict::Challenge(_)));
        let needs_proof = source.recipe.proofs.iter().all(Proof::needs_key);
        assert!(!(is_proved && needs_proof && tamper.is_some()), "a sample signed with another secret verifies");
    }
}

/// Checks a delivery as the server does: the request head first, then the whole request.
fn verify(verifier: &Verifier, delivery: &Delivery) -> Result<Verdict, Rejection> {
    let precheck = verifier.precheck(&delivery.method, &delivery.target, &delivery.headers);
    let verdict = verifier.verify(delivery);
    if let Err(early) = precheck {
        let late = verdict.as_ref().err().map(|rejection| rejection.outcome);
        assert_eq!(late, Some(early.outcome), "the check of the head rejects what the whole check accepts");
    }
    verdict
}

/// The id, type and ordering key of an event.
type Facts = [Option<String>; 3];

/// The parts of a verdict that the targets compare.
#[derive(Debug, PartialEq)]
enum Found {
    Event(Facts),
    /// The events of a batch, each with the range of its body in the body of the delivery.
    Items(Vec<(Range<usize>, Facts)>),
    Challenge(String),
    Rejected(String),
}

fn found(delivery: &Delivery, verdict: Result<Verdict, Rejection>) -> Found {
    match verdict {
        Ok(Verdict::Event(verified)) => {
            assert_eq!(verified.event.body(), &delivery.body, "the event has another body");
            Found::Event(facts(&verified.event))
        }
        Ok(Verdict::Batch(batch)) => {
            let events = batch.items.iter().map(|item| (range_in(&delivery.body, item.event.body()), facts(&item.event)));
            Found::Items(events.collect())
        }
        Ok(Verdict::UnsignedChallenge(reply) | Verdict::Challenge(reply)) => {
            if reply.reply.content_type.as_deref() == Some("application/json") {
                let value = serde_json::from_slice::<Value>(&reply.reply.body).expect("a reply that is JSON");
                assert_eq!(value.as_object().map(serde_json::Map::len), Some(1), "a text has left its quotation marks");
            }
            Found::Challenge(format!("{reply:?}"))
        }
        Err(rejection) => Found::Rejected(rejection.to_string()),
    }
}

fn facts(event: &Event) -> Facts {
    let all = [event.id(), event.event_type(), event.ordering_key()].map(|fact| fact.map(str::to_owned));
    assert!(all.iter().flatten().all(|fact| fact.len() <= MAX_FACT), "a value is too long");
    all
}

/// Returns the range of the body of an item, which must be a part of the same memory as the body of the delivery.
fn range_in(whole: &Bytes, part: &Bytes) -> Range<usize> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize).expect("an item inside the body");
    assert!(start + part.len() <= whole.len(), "an item ends after the body");
    start..start + part.len()
}

/// Returns true if the verifier cannot take the body for a compressed one.
fn is_text(body: &[u8]) -> bool {
    let is_control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    std::str::from_utf8(body).is_ok() && !body.iter().any(is_control)
}

/// Returns a readable signature that is not genuine.
fn unsigned() -> HeaderValue {
    HeaderValue::from_str(&"0".repeat(64)).expect("ASCII")
}

fn all(recipes: &[&str]) -> Vec<Verifier> {
    recipes.iter().map(|recipe| Verifier::new(compile(recipe).unwrap_or_else(|error| panic!("{recipe}: {error}")))).collect()
}

fn compile(entry: &str) -> Result<Arc<Source>, Diagnostics> {
    compile_with(entry, Providers::default())
}

fn compile_with(entry: &str, providers: Providers) -> Result<Arc<Source>, Diagnostics> {
    compile_named("fuzz", entry, providers)
}

/// Compiles the source `name` with these options.
pub fn compile_as(name: &str, entry: &str) -> Arc<Source> {
    compile_named(name, entry, Providers::default()).unwrap_or_else(|error| panic!("{entry}: {error}"))
}

fn compile_named(name: &str, entry: &str, providers: Providers) -> Result<Arc<Source>, Diagnostics> {
    let defaults = SourceDefaults {
        public_url: Some(PublicUrl::new("https://hooks.example.com")),
        topic: "{source}".into(),
        max_body: 5 << 20,
        request_deadline: Duration::from_secs(8),
        window: Duration::from_secs(7 * 86_400),
        providers,
    };
    let compile = |table, diagnostics: &Diagnostics| Source::compile(name, table, &defaults, diagnostics);
    TomlTable::read("fuzz.toml", entry, compile).map(|source| Arc::new(source.expect("a source without diagnostics is usable")))
}

/// Returns the recipe that the first byte chooses, its verifier, and the other bytes.
fn chosen<'v, 'd>(verifiers: &'v [Verifier], data: &'d [u8]) -> Option<(usize, &'v Verifier, &'d [u8])> {
    let (first, rest) = data.split_first()?;
    let recipe = usize::from(*first) % verifiers.len();
    Some((recipe, &verifiers[recipe], rest))
}

fn delivery(target: &str, body: Bytes) -> Delivery {
    Delivery {
        method: Method::POST,
        target: target.to_owned(),
        headers: HeaderMap::new(),
        body,
        remote: ([192, 0, 2, 1], 443).into(),
        received_at: UnixMillis(1_700_000_000_000),
    }
}

fn mac(content: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret().as_bytes()).expect("HMAC accepts keys of any length");
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}

/// Returns the secret of the recipes. A recipe refers to its secret, and every environment has this variable.
fn secret() -> &'static str {
    static SECRET: OnceLock<String> = OnceLock::new();
    SECRET.get_or_init(|| std::env::var("PATH").expect("the environment has a PATH"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cut(data: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|byte| *byte == separator)?;
    Some((&data[..at], &data[at + 1..]))
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        all.extend([&rest[..at], to].concat());
        rest = &rest[at + from.len()..];
    }
    [all, rest.to_vec()].concat()
}

/// Recipes for each form of a signature header.
const GRAMMARS: &[&str] = &[
    // t=…,v1=…
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig", items = ",", pair = "=", take = ["v1"] }
        content = ["timestamp", "body"]
        timestamp = { from = "tag:t", unit = "s" }
        event = { id = "tag:i" }
        secrets = ["env:PATH"]
    "#,
    // sha256=…
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = ["header:X-Sig", "header:X-Other"], prefix = "sha256=" }
        content = ["const:1700000000", "body"]
        secrets = ["env:PATH"]
    "#,
    // t=…,v1=… t=…,v1=…
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig", groups = " ", items = ",", pair = "=", take = ["v1", "v2"] }
        content_variants = [["tag:t", "body"], ["tag:t", "optional(tag:x)", "body"]]
        secrets = ["env:PATH"]
    "#,
    // Separators of several characters, and white space that counts.
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig", items = " and ", pair = " is ", take = ["v1"], prefix = "=", trim = false }
        content = ["const:1700000000", "body"]
        secrets = ["env:PATH"]
    "#,
    // Numbered headers.
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig-*" }
        content = ["const:1700000000", "body"]
        secrets = ["env:PATH"]
    "#,
    // Slots.
    r#"
        auth = "mac"
        algorithm = "sha256"
        match = "slots"
        signature = { from = ["header:X-Sig", "header:X-Other"], items = "," }
        content = ["const:1700000000", "body"]
        secrets = ["env:PATH", { name = "second", from = "env:PATH" }]
    "#,
    // Listed headers.
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig", items = ",", pair = "=", take = ["v1"] }
        content = ["tag:t", "listed-headers(h, '', '')", "body"]
        secrets = ["env:PATH"]
    "#,
    // Base64 of any length.
    r#"
        auth = "signature"
        algorithm = "ecdsa-p256-sha256-der"
        key_format = "jwk"
        signature = { from = "header:X-Sig", items = "," }
        encoding = "base64"
        content = ["header:X-Time", "body"]
        timestamp = { from = "header:X-Time", unit = "rfc3339" }
        public_keys = ['{"kty":"EC","x":"DV6nBuVF1NfqM-nP104WiWayfhWGgaUpKnJE0L0Ek8k","y":"5C8hCt7sqDJGbAVulad4LoTfoH5-SBamuQmFyu5DbSg","crv":"P-256"}']
    "#,
    // Several proofs.
    r#"
        secrets = ["env:PATH"]
        algorithm = "sha256"
        content = ["const:1700000000", "body"]
        [[proof]]
        auth = "mac"
        signature = { from = "header:X-Sig", encoding = "base64url", items = "," }
        [[proof]]
        auth = "digest"
        signature = { from = "header:X-Other", items = "|", pair = "&", take = ["a"] }
        content = ["secret", "timestamp"]
        timestamp = { from = "header:X-Time", unit = "ms" }
        [[proof]]
        auth = "token"
        token = { from = ["header:X-Token", "query:token"], prefix = "Bearer " }
        [[proof]]
        auth = "basic"
    "#,
    // The query.
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = ["header:X-Other", "query:sig"], items = ";" }
        encoding = "base64url"
        content = ["const:1700000000", "body"]
        secrets = ["env:PATH"]
    "#,
];
/// Index of the recipe of [`GRAMMARS`] whose signature is in the query.
const SIGNED_IN_QUERY: usize = 9;
/// Recipes for values in the head and in a JSON body.
const LOCATORS: &[&str] = &[
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        [event]
        id = ["json:/id", "header:X-Id", "query:id", ["json:/a", "const:x", "json:/b/0"]]
        type = ["json:/event/type", "json:/type", "const:none"]
        key = [["json:/a/b", "json:/a/0"], "json:/0/id"]
        time = [{ from = "json:/time", unit = "s" }, { from = "header:X-Time", unit = "rfc3339" }]
    "#,
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        event = { id = "json:/a/b/c/d/e/f", type = "json:/~0~1/", key = "json:/a/b/c/d/0" }
    "#,
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        event = { id = "form-json:payload/id", type = ["form:type", "json:/type"], key = "form:key" }
    "#,
    r#"
        auth = "token"
        token = { from = ["json:/token", "query:token", "form:token"], prefix = "T" }
        event = { id = "json:/id" }
        secrets = ["env:PATH"]
    "#,
    ITEM,
    // Batches.
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        split = true
        event = { batch = "/items", id = "json:/id", type = "json:/type", key = "json:/n/0" }
    "#,
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        split = true
        max_items = 4
        event = { batch = "", id = "json:/id", type = "json:/type", key = "json:/n/0" }
    "#,
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        max_items = 4
        event = { batch = "/a/0", id = ["json:/id", ["json:/n", "header:X-Id"]], time = { from = "json:/at", unit = "ms" } }
    "#,
    r#"
        auth = "mac"
        algorithm = "sha256"
        match = "all-items"
        signature = { from = "json:/sig" }
        content = ["json:/id", "optional(json:/n)"]
        event = { batch = "/items", id = "json:/id" }
        secrets = ["env:PATH"]
    "#,
    // URLs as other libraries write them.
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig" }
        content_variants = [
            ["url", "url-other-port", "url-no-query", "path-and-query", "method", "optional(query:id)"],
            ["url-normalized"],
            ["url-legacy-query-other-port"],
        ]
        secrets = ["env:PATH"]
    "#,
    // Endpoint challenges.
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Code" }
        content = ["body"]
        secrets = ["env:PATH"]
        values = { verify_token = "a b" }
        [[challenge]]
        authenticated = false
        when = { "json:/type" = "url_verification", "json:/challenge" = true }
        reply = { content_type = "application/json", body = ['const:{"challenge":', "json(echo(json:/challenge))", "const:}"] }
        [[challenge]]
        authenticated = false
        methods = ["GET"]
        when = { "query:verify" = "config:verify_token" }
        reply = { body = ["percent-decode(query:text)"] }
        [[challenge]]
        authenticated = false
        methods = ["GET"]
        when = { "query:crc_token" = true }
        reply = { content_type = "application/json", body = ['const:{"a":"', "hmac(sha256, query:crc_token, base64)", 'const:"}'] }
        [[challenge]]
        authenticated = false
        when = { "header:X-Origin" = true }
        effect = "visit-url(json:/url)"
        reply = { headers = { WebHook-Allowed-Origin = ["echo(header:X-Origin)"] } }
    "#,
    // A signed batch.
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig" }
        content = ["body"]
        split = true
        event = { batch = "/items", id = "json:/id", type = "json:/type", key = "json:/n/0" }
        secrets = ["env:PATH"]
    "#,
];
/// Index of the recipe of [`LOCATORS`] whose deliveries the target signs.
const SIGNED_BATCH: usize = 11;
/// A recipe for one item of a batch.
const ITEM: &str = r#"
    auth = "none"
    allow_from = ["192.0.2.0/24"]
    event = { id = "json:/id", type = "json:/type", key = "json:/n/0" }
"#;
/// Recipes of [`LOCATORS`] that another JSON parser can check: the index, the array of the batch, and the pointers to the id,
/// the type and the key.
const MODELS: &[(usize, Option<&str>, [&str; 3])] = &[
    (1, None, ["/a/b/c/d/e/f", "/~0~1/", "/a/b/c/d/0"]),
    (4, None, ["/id", "/type", "/n/0"]),
    (5, Some("/items"), ["/id", "/type", "/n/0"]),
    (6, Some(""), ["/id", "/type", "/n/0"]),
    (SIGNED_BATCH, Some("/items"), ["/id", "/type", "/n/0"]),
];
/// Recipes for forms.
const FORMS: &[&str] = &[
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        event = { id = ["form:id", "form:a b"], type = "form-json:payload/type", key = "form-json:payload/a/0" }
    "#,
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig" }
        content = ["url", "form-sorted"]
        event = { id = "form:id" }
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig" }
        content = ["form-sorted('&', '=', repeated)"]
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "mac"
        algorithm = "sha256"
        signature = { from = "header:X-Sig" }
        content = ["form:payload", "optional(form-json:payload/a)"]
        secrets = ["env:PATH"]
    "#,
];
/// Recipes for multipart bodies.
const PARTS: &[&str] = &[
    r#"
        auth = "none"
        allow_from = ["192.0.2.0/24"]
        event = { id = "form-json:json/id", type = ["form:type", "form:a b"], key = "form:key" }
    "#,
    r#"
        auth = "token"
        token = { from = "form:token" }
        event = { id = "form:id" }
        secrets = ["env:PATH"]
    "#,
];
/// Recipes for compressed bodies.
const COMPRESSED: &[&str] = &[r#"
    auth = "none"
    allow_from = ["192.0.2.0/24"]
    event = { id = ["json:/id", "form:id"], type = "json:/type" }
"#];
/// Recipes for JSON Web Tokens.
const TOKENS: &[&str] = &[
    r#"
        auth = "jwt"
        algorithm = ["HS256"]
        token = { from = "header:X-Sig" }
        event = { id = "jwt:jti", type = "jwt:sub" }
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "jwt"
        algorithm = ["HS256", "HS512"]
        token = { from = "header:X-Sig", prefix = "Bearer " }
        claims = { iss = "a", aud = "b" }
        max_age = "5m"
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "jwt"
        algorithm = ["HS256"]
        token = { from = "header:X-Sig" }
        body_claim = { name = "sha256", encoding = "base64" }
        url_claim = { name = "url" }
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "jwt"
        algorithm = ["RS256", "PS256"]
        key_format = "spki-base64"
        token = { from = "header:X-Sig" }
        public_keys = ["MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxmT0QIJK3G6+Vt6K+t8U8BoP8dQpVNzXs9VENb5aTn6MGXkTwUB87KNGoyWXB4VHrgIhf96qA/kK58F6wblsEqHZMKxRJ6SE7V7CNCApaVbVQbKTTU83c3LqjZwC8nAtvyssHueOElALUNuiTAc8kzJzSuBqjIgIddqNMDnnryWgGGsgA9Bl4buSORQiUb/3neniGVw3MKRbvb3QuLISThjnsLEtFjluLiRKAaQnbMwOWfVtT4ZnNBs8wJ8lcSu3YVNnjBL4YVmUS6klXgebkv5P8xPPvtpN067h5E8M0lBfD1y7SRwe8CsAvxVLy1H1nWFlh4wGdq2rVl79MouHzwIDAQAB"]
    "#,
    r#"
        auth = "jwt"
        algorithm = ["ES256"]
        key_format = "spki-base64"
        token = { from = "header:X-Sig" }
        public_keys = ["MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXhJGIUgNd6rkqhWLCLG9XzVxd0i94/j2rvcZGm29L4z/GmHsNgQSzDGcdhPkC/iSFSM3L2nXksE1Mkxoadt/PQ=="]
    "#,
    r#"
        auth = "jwt"
        algorithm = ["EdDSA"]
        key_format = "spki-base64"
        token = { from = "header:X-Sig" }
        public_keys = ["MCowBQYDK2VwAyEAPtJ0CHfeT2VGEMdWNR7hRowigS3W4lm5voRwXEd5qdI="]
    "#,
    r#"
        auth = "jwt"
        algorithm = ["HS256"]
        token = { from = ["query:token", "form:token"] }
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "token"
        token = { from = ["header:X-Sig", "query:token"], prefix = "Bearer " }
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "basic"
        event = { id = "basic:user" }
        secrets = ["env:PATH"]
    "#,
    r#"
        auth = "jwt"
        algorithm = ["ES256"]
        token = { from = "header:X-Sig" }
        claims = { iss = "a" }
        key_format = "spki-base64"
        fetch = { url = "header:X-Url", hosts = ["*.example.com", "keys.example.org"] }
        public_keys = [{ name = "a", id = "k1", from = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXhJGIUgNd6rkqhWLCLG9XzVxd0i94/j2rvcZGm29L4z/GmHsNgQSzDGcdhPkC/iSFSM3L2nXksE1Mkxoadt/PQ==" }]
    "#,
];
/// Index of the recipe whose token is in the query.
const IN_QUERY: usize = 6;
/// Index of the recipe for a token that is no JSON Web Token.
const PLAIN_TOKEN: usize = 7;
/// Index of the recipe for user name and password.
const USER: usize = 8;
/// Index of the recipe whose tokens name a published key.
const FETCHED: usize = 9;
/// The public key of the recipe for RSA.
const RSA_PUBLIC_KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxmT0QIJK3G6+Vt6K+t8U8BoP8dQpVNzXs9VENb5aTn6MGXkTwUB87KNGoyWXB4VHrgIhf96qA/kK58F6wblsEqHZMKxRJ6SE7V7CNCApaVbVQbKTTU83c3LqjZwC8nAtvyssHueOElALUNuiTAc8kzJzSuBqjIgIddqNMDnnryWgGGsgA9Bl4buSORQiUb/3neniGVw3MKRbvb3QuLISThjnsLEtFjluLiRKAaQnbMwOWfVtT4ZnNBs8wJ8lcSu3YVNnjBL4YVmUS6klXgebkv5P8xPPvtpN067h5E8M0lBfD1y7SRwe8CsAvxVLy1H1nWFlh4wGdq2rVl79MouHzwIDAQAB";
const SIGNATURE: HeaderName = HeaderName::from_static("x-sig");
const KEY_URL: HeaderName = HeaderName::from_static("x-url");
/// Maximum length of an event id, event type or ordering key.
const MAX_FACT: usize = 512;
/// Maximum number of fields in a signed form.
const MAX_FIELDS: usize = 1_000;
