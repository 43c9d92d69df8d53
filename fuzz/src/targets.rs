//! One function for each fuzz target. Each function reads arbitrary bytes through the public API of the verifier or of the
//! configuration, and panics if a promise is broken: no unsigned delivery verifies, and no input makes the library panic.
//!
//! The bytes choose a recipe and contain the parts of a delivery. The targets know the secret of the recipes. A target that
//! tests code behind a signature signs the bytes itself.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use hookhold::clock::UnixMillis;
use hookhold::event::Delivery;
use hookhold::source::url::PublicUrl;
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::sign::{SampleOptions, sign};
use hookhold::verify::{Memory, Rejection, Verdict, Verifier};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::Sha256;

/// Reads the headers that contain signatures. The text `SIG` in a header stands for the genuine signature of the time
/// 1700000000 and the body, so that the fuzzer reaches the code behind the check of the signature.
pub fn grammar(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((verifier, data)) = chosen(RECIPES.get_or_init(|| all(GRAMMARS)), data) else { return };
    let body = Bytes::from_static(b"{}");
    let code = hex(&mac(b"1700000000{}"));
    let mut delivery = delivery("/hooks/fuzz", body);
    for (index, line) in data.split(|byte| *byte == b'\n').enumerate() {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) if index > 0 => (HeaderName::from_bytes(&line[..at]).ok(), &line[at + 1..]),
            _ => (Some(SIGNATURE), line),
        };
        let value = replaced(value, b"SIG", code.as_bytes());
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
            delivery.headers.append(name, value);
        }
    }
    let names_code = data.windows(3).any(|window| window == b"SIG");
    let result = verify(verifier, &delivery);
    assert!(names_code || result.is_err(), "a delivery without a genuine signature verifies");
}

/// Finds values in the request head and in a JSON body.
pub fn locators(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((verifier, data)) = chosen(RECIPES.get_or_init(|| all(LOCATORS)), data) else { return };
    let (head, body) = cut(data, 0).unwrap_or((b"", data));
    let mut lines = head.split(|byte| *byte == b'\n');
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut delivery = delivery(&target, Bytes::copy_from_slice(body));
    for line in lines {
        let (name, value) = cut(line, b':').unwrap_or((b"x-id", line));
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            delivery.headers.append(name, value);
        }
    }
    let first = facts(verify(verifier, &delivery));
    // The content type is not signed, so it must not change the values.
    delivery.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    assert_eq!(facts(verify(verifier, &delivery)), first);
}

/// Finds values in a form, and sorts a form for a signature.
pub fn form(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((verifier, data)) = chosen(RECIPES.get_or_init(|| all(FORMS)), data) else { return };
    let mut delivery = delivery("/hooks/fuzz", Bytes::copy_from_slice(data));
    // A readable signature of the right size, so that the verifier sorts the form before it rejects the signature.
    delivery.headers.insert(SIGNATURE, HeaderValue::from_str(&"0".repeat(64)).expect("ASCII"));
    let is_signed = verifier.source().recipe.proof_headers().contains(&SIGNATURE);
    assert!(verify(verifier, &delivery).is_err() || !is_signed, "an unsigned form verifies");
}

/// Finds values in a multipart body.
pub fn multipart(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((verifier, data)) = chosen(RECIPES.get_or_init(|| all(PARTS)), data) else { return };
    let first = facts(verify(verifier, &delivery("/hooks/fuzz", Bytes::copy_from_slice(data))));
    // A line break before the first boundary does not change the values.
    let mut shifted = b"\r\n".to_vec();
    shifted.extend_from_slice(data);
    if data.starts_with(b"--") {
        assert_eq!(facts(verify(verifier, &delivery("/hooks/fuzz", shifted.into()))), first);
    }
}

/// Decompresses a body after the proof. The first byte chooses the declared format. Decompression must stay within the memory
/// that the caller grants.
pub fn decompression(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((verifier, data)) = chosen(RECIPES.get_or_init(|| all(COMPRESSED)), data) else { return };
    let Some((first, body)) = data.split_first() else { return };
    let mut delivery = delivery("/hooks/fuzz", Bytes::copy_from_slice(body));
    let declared = ["", "gzip", "br", "zstd", "identity", "gzip, br", "x-gzip", "deflate"][usize::from(*first) % 8];
    if !declared.is_empty() {
        delivery.headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static(declared));
    }
    let memory = GrantedMemory::default();
    let verdict = verifier.verify_within(&delivery, &memory);
    assert!(verdict.is_ok(), "a compressed body is rejected: {verdict:?}");
    let _ = verifier.is_long(&delivery);
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

/// Reads JSON Web Tokens. An even first byte means that the rest is the text of the token. After an odd one, the rest is the
/// header and the claims, and the target signs them.
pub fn jwt(data: &[u8]) {
    static RECIPES: OnceLock<Vec<Verifier>> = OnceLock::new();
    let Some((verifier, data)) = chosen(RECIPES.get_or_init(|| all(TOKENS)), data) else { return };
    let Some((first, rest)) = data.split_first() else { return };
    let is_signed = first % 2 == 1;
    let token = if is_signed {
        let (header, claims) = cut(rest, b'\n').unwrap_or((br#"{"alg":"HS256"}"#, rest));
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let prefix = if first % 4 == 1 { "" } else { "Bearer " };
        format!("{prefix}{signed}.{}", URL_SAFE_NO_PAD.encode(mac(signed.as_bytes()))).into_bytes()
    } else {
        rest.to_vec()
    };
    let mut delivery = delivery("/hooks/fuzz", Bytes::from_static(b"{}"));
    let Ok(value) = HeaderValue::from_bytes(&token) else { return };
    delivery.headers.insert(SIGNATURE, value);
    let result = verify(verifier, &delivery);
    assert!(is_signed || result.is_err(), "a token without a genuine signature verifies");
}

/// Reads the configuration of a source, and verifies and signs deliveries with the recipe that results.
pub fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The target must not read files.
    if text.contains("file:") {
        return;
    }
    let found = match compile(text) {
        Ok(source) => source,
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "a source is rejected without a reason");
            return;
        }
    };
    let verifier = Verifier::new(found);
    let source = verifier.source().clone();
    let options =
        SampleOptions { id: "id-1".into(), event_type: None, key: None, now: UnixMillis(1_700_000_000_000), tamper: None };
    let _ = verify(&verifier, &delivery(&source.path, Bytes::from_static(b"{\"id\":1}")));
    if let Some(sample) = sign(&source, None, &options) {
        let signed = Delivery { headers: sample.headers, ..delivery(&sample.target, sample.body) };
        let _ = verify(&verifier, &signed);
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

/// Returns the values that the verifier has found, or the outcome of the rejection.
fn facts(verdict: Result<Verdict, Rejection>) -> Result<[Option<String>; 3], String> {
    match verdict {
        Ok(Verdict::Event(verified)) => {
            let event = &verified.event;
            let all = [event.id(), event.event_type(), event.ordering_key()].map(|fact| fact.map(str::to_owned));
            assert!(all.iter().flatten().all(|fact| fact.len() <= MAX_FACT), "a value is too long");
            Ok(all)
        }
        Ok(other) => Err(format!("{other:?}")),
        Err(rejection) => Err(rejection.to_string()),
    }
}

fn all(recipes: &[&str]) -> Vec<Verifier> {
    recipes.iter().map(|recipe| Verifier::new(compile(recipe).unwrap_or_else(|error| panic!("{recipe}: {error}")))).collect()
}

fn compile(entry: &str) -> Result<Arc<Source>, Diagnostics> {
    let defaults = SourceDefaults {
        public_url: Some(PublicUrl::new("https://hooks.example.com")),
        topic: "{source}".into(),
        max_body: 5 << 20,
        request_deadline: Duration::from_secs(8),
        window: Duration::from_secs(7 * 86_400),
        providers: Default::default(),
    };
    let compile = |table, diagnostics: &Diagnostics| Source::compile("fuzz", table, &defaults, diagnostics);
    TomlTable::read("fuzz.toml", entry, compile).map(|source| Arc::new(source.expect("a source without diagnostics is usable")))
}

fn chosen<'v, 'd>(verifiers: &'v [Verifier], data: &'d [u8]) -> Option<(&'v Verifier, &'d [u8])> {
    let (first, rest) = data.split_first()?;
    Some((&verifiers[usize::from(*first) % verifiers.len()], rest))
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
    // A recipe refers to its secret, and every environment has this variable.
    let secret = std::env::var("PATH").expect("the environment has a PATH");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC accepts keys of any length");
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
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
];
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
        key_format = "jwk"
        token = { from = "header:X-Sig" }
        public_keys = ['{"kty":"RSA","n":"0pheNPSezjkTD1X1JccYaK_WglLjRrgQV1WtdruFLXRHvWC8qEk2DbyUnfmGMzdMPjr7__hSDLT61ZSl01knXcZ0r3gKqymSC3w8d-xh3Jus7WT6vct4mPtCInbC0CFXFgJLDN0mnakt_mFcmt7tZW_KTCEWCcfjwhAicQ8ffkkkAuCZ_1LJOXAutyPQLAURuJ8aeKgs9XZe3BU-m2cXBJop3siMv8HOElp52abFDzWctH-u731E_yACV8jhFR5hJ6T7cHzxTjZjNW8TukmKhh56GEDgFvqoiS-HQjJ8owH0SNQeo1H0QLzG--UoKFunxUzNusSyCiE3RlHCpI54FQ","e":"AQAB"}']
    "#,
    r#"
        auth = "jwt"
        algorithm = ["ES256"]
        key_format = "jwk"
        token = { from = "header:X-Sig" }
        public_keys = ['{"kty":"EC","x":"DV6nBuVF1NfqM-nP104WiWayfhWGgaUpKnJE0L0Ek8k","y":"5C8hCt7sqDJGbAVulad4LoTfoH5-SBamuQmFyu5DbSg","crv":"P-256"}']
    "#,
    r#"
        auth = "jwt"
        algorithm = ["EdDSA"]
        key_format = "jwk"
        token = { from = "header:X-Sig" }
        public_keys = ['{"crv":"Ed25519","x":"CTt4Vkx-GncFEFhu0GV-oRwfIZ3KzlG57LSXm61BXKE","kty":"OKP"}']
    "#,
];
const SIGNATURE: HeaderName = HeaderName::from_static("x-sig");
/// Maximum length of an event id, event type or ordering key.
const MAX_FACT: usize = 512;
