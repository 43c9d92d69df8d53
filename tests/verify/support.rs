//! Sources and deliveries for the tests of verification.

use std::io::Write;

use bytes::Bytes;
use hookhold::clock::UnixMillis;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::source::url::PublicUrl;
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::sign::{SampleOptions, Tamper, sign};
use hookhold::verify::{Rejection, Verdict, Verified, VerifiedBatch, Verifier};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Arrival time of every delivery in the verification tests, in Unix seconds.
pub const NOW: u64 = 1_700_000_000;

/// Returns a source with a built-in recipe and one secret. `secret` is the text of the secret, and `more` contains
/// additional options as TOML.
pub fn source(provider: &str, secret: &str, more: &str) -> Source {
    compile(&format!("provider = {provider:?}\n{more}"), &[("secret", secret)])
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Adds `secrets` to a configuration entry and compiles the entry. Each pair in `secrets` is the name and the text of a secret.
pub fn compile(entry: &str, secrets: &[(&str, &str)]) -> Result<Source, Diagnostics> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let reference = |(name, text): &(&str, &str)| {
        let path = directory.path().join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file in it");
        format!("{:?}", format!("file:{}", path.display()))
    };
    let references: Vec<String> = secrets.iter().map(reference).collect();
    let text = format!("secrets = [{}]\n{entry}\n", references.join(", "));
    compile_alone(&text)
}

/// Returns the defaults for options that a test source does not set.
pub fn defaults() -> SourceDefaults {
    SourceDefaults {
        providers: Default::default(),
        public_url: Some(PublicUrl::new("https://hooks.example.com")),
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: std::time::Duration::from_secs(8),
        window: std::time::Duration::from_secs(7 * 86_400),
    }
}

/// Returns a POST delivery whose arrival time is [`NOW`].
pub fn delivery(body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Delivery {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    }
    Delivery {
        method: Method::POST,
        target: "/hooks/shop".into(),
        headers: map,
        body: body.into(),
        remote: ([192, 0, 2, 1], 443).into(),
        received_at: UnixMillis(NOW * 1000),
    }
}

/// Returns a signed sample delivery whose arrival time is [`NOW`]. `tamper` determines what makes the sample invalid; with
/// `None`, the sample is genuine.
pub fn sample(source: &Source, tamper: Option<Tamper>) -> Delivery {
    sample_of(source, None, tamper)
}

/// Returns a signed sample delivery whose arrival time is [`NOW`]. If `body` is not `None`, the sample has this body.
pub fn sample_of(source: &Source, body: Option<&[u8]>, tamper: Option<Tamper>) -> Delivery {
    let now = UnixMillis(NOW * 1000);
    let options = SampleOptions { id: "id-1".into(), event_type: None, key: Some("key-1".into()), now, tamper };
    let sample = sign(source, body.map(Bytes::copy_from_slice), &options).expect("the source has a secret");
    Delivery { headers: sample.headers, target: sample.target, ..delivery(sample.body, &[]) }
}

/// Checks a request head. Returns the maximum size of the body or the rejection.
pub fn precheck(source: &Source, method: Method, headers: &HeaderMap) -> Result<usize, Rejection> {
    Verifier::new(source.clone()).precheck(&method, &source.path, headers)
}

/// Returns the names of the headers that contain the signature.
pub fn signature_header(source: &Source) -> HeaderName {
    source.recipe.proof_headers().remove(0)
}

/// Verifies a delivery and returns the verified event or the rejection. Panics if the delivery is an endpoint challenge.
pub fn verify(source: &Source, delivery: &Delivery) -> Result<Verified, Rejection> {
    Verifier::new(source.clone()).verify(delivery).map(|verdict| match verdict {
        Verdict::Event(verified) => verified,
        Verdict::Batch(batch) => panic!("a batch: {batch:?}"),
        Verdict::Challenge(reply) | Verdict::UnsignedChallenge(reply) => panic!("a challenge, answered with {reply:?}"),
    })
}

/// Verifies a delivery of a source that splits batches, and returns the verified events. Panics if the delivery is rejected or
/// stays one event.
pub fn verify_batch(source: &Source, delivery: &Delivery) -> VerifiedBatch {
    match Verifier::new(source.clone()).verify(delivery) {
        Ok(Verdict::Batch(batch)) => batch,
        verdict => panic!("not a batch: {verdict:?}"),
    }
}

/// Verifies a delivery. Returns the outcome of the rejection, or `None` if the delivery is genuine.
pub fn rejection(source: &Source, delivery: &Delivery) -> Option<Outcome> {
    verify(source, delivery).err().map(|rejection| rejection.outcome)
}

/// Replaces all values of the header `name` with `value`.
pub fn set(delivery: &mut Delivery, name: &'static str, value: &str) {
    delivery.headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
}

/// Returns the first value of the header `name`.
pub fn get<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    delivery.headers.get(name).and_then(|value| value.to_str().ok()).expect("the header is present")
}

/// Returns a source with the built-in recipe `name` and a secret that every built-in recipe accepts.
pub fn provider(name: &str) -> Source {
    source(name, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "")
}

/// Returns a source with the inline recipe `recipe` and one secret, whose text is `acme`.
pub fn inline(recipe: &str) -> Source {
    compile(recipe, &[("secret", "acme")]).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Inline recipe whose signature covers only the body.
pub const INLINE: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Acme-Signature" }
content = ["body"]
"#;

/// Inline recipe whose signature covers a timestamp and the body. A test must add the required option `timestamp`.
pub const INLINE_TIMED: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Acme-Signature" }
content = ["timestamp", ".", "body"]
"#;

/// Inline recipe whose signature covers the tag `t` of the signature header, followed by the body.
pub const INLINE_TAGGED: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Acme-Signature", items = ",", pair = "=", take = ["v1"] }
content = ["tag:t", "body"]
"#;

/// Compiles a configuration entry as written, without adding secrets.
pub fn compile_alone(entry: &str) -> Result<Source, Diagnostics> {
    compile_under(entry, &defaults())
}

/// Compiles a configuration entry with these defaults, without adding secrets.
pub fn compile_under(entry: &str, defaults: &SourceDefaults) -> Result<Source, Diagnostics> {
    let compile = |table, diagnostics: &Diagnostics| Source::compile("shop", table, defaults, diagnostics);
    Ok(TomlTable::read("hookhold.toml", entry, compile)?.expect("a source without mistakes is usable"))
}
