//! Creates sample deliveries, signed with a source's own recipe and secret. A sample is either genuine or invalid in one chosen
//! way. The same code builds the signed content of a sample and of a delivery, so a mistake in this code does not make a sample
//! fail. A sample therefore tests the recipe and the secret, but not this code. The published vectors in `tests/vectors` test
//! the code.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::clock::UnixMillis;
use crate::event::Delivery;
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::pointers::{FormField, Node, Pointers};
use crate::source::recipe::{
    Choice, DigestProof, JwtProof, Locator, MacProof, Proof, Recipe, SignatureLocator, SignedContent, Term, TimeUnit,
};
use crate::verify::content::Content;
use crate::verify::hash::{Hash, hash, sha256};
use crate::verify::proof::jwt;
use crate::verify::proof::mac::MacKey;
use crate::verify::request_view::{JOINT, RequestView, Tag, body_values};
use crate::verify::signing_input::{SigningInput, encode};
use crate::verify::{json, tolerance};

/// A sample delivery: a signed request like those that the provider sends.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The request method, always POST.
    pub method: Method,
    /// The request target: the source's path, with the query parameters that the recipe reads.
    pub target: String,
    /// The request headers: every header that the recipe reads, and a content type.
    pub headers: HeaderMap,
    /// The request body.
    pub body: Bytes,
}

/// The event id, event type, ordering key, signing time and tampering of a sample.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// The event id of the sample. Ignored if the recipe has no event id.
    pub id: String,
    /// The event type of the sample, or `None` for the recipe's sample type.
    pub event_type: Option<String>,
    /// The ordering key of the sample, or `None` for a sample without an ordering key. Ignored if the recipe has no ordering
    /// key.
    pub key: Option<String>,
    /// The signing time of the sample.
    pub now: UnixMillis,
    /// The way in which the sample is invalid, or `None` for a genuine sample.
    pub tamper: Option<Tamper>,
}

/// One way to make a sample delivery invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// A body that is changed after signing.
    Body,
    /// A signature made with a secret that the source does not have.
    Secret,
    /// A missing signature header.
    Missing,
    /// A signing time that is older than the tolerance allows.
    Stale,
    /// A signing time that is further in the future than the tolerance allows.
    Future,
    /// A request path that belongs to no source.
    Unknown,
}

impl Tamper {
    /// Every kind of tampering, and its name on the command line.
    pub const WORDS: &[(&str, Tamper)] = &[
        ("body", Tamper::Body),
        ("secret", Tamper::Secret),
        ("missing", Tamper::Missing),
        ("stale", Tamper::Stale),
        ("future", Tamper::Future),
        ("unknown", Tamper::Unknown),
    ];

    /// Returns the outcome that the gateway must report for a sample with this tampering.
    pub fn expected(self) -> Outcome {
        match self {
            Tamper::Body | Tamper::Secret => Outcome::SignatureMismatch,
            Tamper::Missing => Outcome::SignatureMissing,
            Tamper::Stale => Outcome::TimestampStale,
            Tamper::Future => Outcome::TimestampFuture,
            Tamper::Unknown => Outcome::UnknownSource,
        }
    }

    /// Returns true if samples of the recipe can be invalid in this way. A sample can be stale or in the future only if the
    /// recipe has a signed timestamp.
    pub fn applies_to(self, recipe: &Recipe) -> bool {
        !matches!(self, Tamper::Stale | Tamper::Future) || recipe.timestamp().is_some()
    }
}

/// Returns a sample delivery for `source`, signed with the source's first secret that is valid at `options.now`. Uses the first
/// proof of the recipe for which the source has a secret. Returns `None` if there is no such proof, because only the provider
/// has the private key that belongs to a public key. If `body` is `None`, creates a small JSON object or form that contains the
/// event id, event type and ordering key.
pub fn sign(source: &Source, body: Option<Bytes>, options: &SampleOptions) -> Option<Sample> {
    let recipe = &source.recipe;
    let (proof, signer) = signer(source, options)?;
    let body_slots = vec![None; recipe.pointers.slots];
    let mut draft = SampleDraft { body: body_slots, target: source.path.clone(), ..SampleDraft::default() };
    draft.describe(recipe, proof, options);
    let mut body = body.unwrap_or_else(|| written(&recipe.pointers, &draft.body).into());
    draft.announce(recipe, proof, &body);
    let evidence = draft.evidence(source, proof, &signer, &body, options);
    let SampleDraft { mut headers, mut target, .. } = draft;
    if let Some((locator, text)) = evidence.filter(|_| options.tamper != Some(Tamper::Missing)) {
        match locator {
            EvidencePlace::Header(name) => put(&mut headers, &name, &text),
            EvidencePlace::Query(name) => target.push_str(&format!("{}{name}={text}", separator(&target))),
        }
    }
    if options.tamper == Some(Tamper::Body) {
        body = damaged(&body);
    }
    if options.tamper == Some(Tamper::Unknown) {
        target.insert_str(source.path.len(), "-unknown");
    }
    Some(Sample { method: Method::POST, target, headers, body })
}

/// Returns true if [`sign`] can sign samples for `source`.
pub fn can_sign(source: &Source, now: UnixMillis) -> bool {
    proof_and_secret(source, now).is_some()
}

/// Returns true if [`sign`] can sign samples for a source with this recipe and with a secret for each of its proofs.
pub fn can_sign_with(recipe: &Recipe) -> bool {
    recipe.proofs.iter().any(|proof| !proof.uses_public_keys())
}

/// Returns the first proof for which the source has a secret, and the secret. The secret is empty if the source requires no
/// proof.
fn proof_and_secret(source: &Source, now: UnixMillis) -> Option<(&Proof, Vec<u8>)> {
    source.recipe.proofs.iter().enumerate().find_map(|(index, proof)| {
        if !proof.needs_key() {
            return Some((proof, Vec::new()));
        }
        Some((proof, source.key_at(index, now)?.secret_for(index)?.to_vec()))
    })
}

/// The place of a signature or token in a sample.
enum EvidencePlace {
    Header(HeaderName),
    Query(String),
}

/// The secret that signs a sample.
struct Signer {
    /// Bytes of the secret, or of another secret if the sample is invalid in this way.
    secret: Vec<u8>,
}

fn signer<'s>(source: &'s Source, options: &SampleOptions) -> Option<(&'s Proof, Signer)> {
    let (proof, secret) = proof_and_secret(source, options.now)?;
    let another = match proof {
        Proof::Basic => &b"not:the secret"[..],
        _ => b"not the secret",
    };
    let secret = if options.tamper == Some(Tamper::Secret) { another.to_vec() } else { secret };
    Some((proof, Signer { secret }))
}

/// A sample delivery before it is signed.
#[derive(Default)]
struct SampleDraft {
    target: String,
    headers: HeaderMap,
    tags: Vec<(String, String)>,
    /// The values that the body must contain, one for each of the recipe's body locations, or `None` for a location without a
    /// value.
    body: Vec<Option<SlotValue>>,
}

/// The value at one location of a sample's body.
#[derive(Clone)]
struct SlotValue {
    text: String,
    /// True if the sample contains the value as a JSON number, without quotation marks.
    is_number: bool,
}

impl SampleDraft {
    fn describe(&mut self, recipe: &Recipe, proof: &Proof, options: &SampleOptions) {
        let kind = options.event_type.as_deref().unwrap_or(&recipe.setup.sample_type);
        let id = if options.id.is_empty() { FILLER } else { &options.id };
        self.put_fact(&recipe.event.id, id);
        self.put_fact(&recipe.event.kind, kind);
        self.put_fact(&recipe.event.key, options.key.as_deref().unwrap_or_default());
        if let Some((locator, unit)) = recipe.event.time.first() {
            self.put_at(locator, tolerance::write(*unit, options.now), *unit != TimeUnit::Rfc3339);
        }
        if let Some(rule) = proof.timestamp() {
            let (past, future) = (rule.past.as_millis() as u64, rule.future.as_millis() as u64);
            let signed_at = match options.tamper {
                Some(Tamper::Stale) => options.now.0.saturating_sub(past + BEYOND_MS),
                Some(Tamper::Future) => options.now.0 + future + BEYOND_MS,
                _ => options.now.0,
            };
            self.put_fact(&rule.from, &tolerance::write(rule.unit, UnixMillis(signed_at)));
        }
        let terms = proof.signed().into_iter().flat_map(|signed| signed.contents.iter().flatten());
        terms.for_each(|term| self.fill(term));
    }

    /// Sets the content type of the sample. Adds the body's hash to the URL if the recipe reads the hash from the URL and the
    /// body is not a form.
    fn announce(&mut self, recipe: &Recipe, proof: &Proof, body: &[u8]) {
        let media_type = media_type(recipe, proof, body);
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        let body_hash = proof.signed().and_then(|signed| signed.body_hash.as_ref());
        if let Some(rule) = body_hash.filter(|_| media_type != FORM) {
            let hash = encode(rule.encoding, &sha256([body].into_iter()));
            self.put_at(&Locator::Query(rule.query.clone()), hash, false);
        }
    }

    /// Writes `text`, such as an event id, to the locations from which the recipe reads this text. `choice` is a list of
    /// alternatives, and each alternative is a list of locators. For each alternative, splits `text` at [`JOINT`] into one part
    /// per locator. Uses the first alternative for which `text` has enough parts and each part for a `const:` locator equals
    /// the locator's text.
    fn put_fact(&mut self, choice: &Choice, text: &str) {
        let parts = |fields: &Vec<Locator>| text.splitn(fields.len(), JOINT).map(str::to_owned).collect::<Vec<_>>();
        let fits = |fields: &Vec<Locator>, parts: &[String]| {
            let agrees = |(locator, part): (&Locator, &String)| !matches!(locator, Locator::Const(text) if text != part);
            fields.len() == parts.len() && fields.iter().zip(parts).all(agrees)
        };
        let fitting = choice.0.iter().find(|fields| fits(fields, &parts(fields)));
        for (locator, part) in fitting.into_iter().flat_map(|fields| fields.iter().zip(parts(fields))) {
            if !part.is_empty() {
                self.put_at(locator, part, false);
            }
        }
    }

    fn put_at(&mut self, locator: &Locator, text: String, is_number: bool) {
        match locator {
            Locator::Header(name) => put(&mut self.headers, name, &text),
            Locator::Tag(tag) => {
                self.tags.retain(|(have, _)| have != tag);
                self.tags.push((tag.clone(), text));
            }
            Locator::Query(name) => {
                self.target = without_parameter(&self.target, name);
                self.target.push_str(&format!("{}{name}={text}", separator(&self.target)));
            }
            Locator::Const(_) | Locator::Claim(_) | Locator::BasicUser => {}
            Locator::Body(slot) => self.body[*slot] = Some(SlotValue { text, is_number }),
        }
    }

    /// Adds a filler value for a term of the signed content if the sample does not yet have a value for the term.
    fn fill(&mut self, term: &Term) {
        match term {
            Term::Header(name) if !self.headers.contains_key(name) => put(&mut self.headers, name, FILLER),
            Term::Tag(tag) if !self.tags.iter().any(|(name, _)| name == tag) => self.tags.push((tag.clone(), FILLER.into())),
            _ => {}
        }
    }

    /// Returns the signature or token of the sample, with its place in the request. Returns `None` if the recipe requires no
    /// proof, or if the signature is in a place that a sample cannot fill.
    fn evidence(
        &self,
        source: &Source,
        proof: &Proof,
        signer: &Signer,
        body: &Bytes,
        options: &SampleOptions,
    ) -> Option<(EvidencePlace, String)> {
        let text = || String::from_utf8_lossy(&signer.secret).into_owned();
        match proof {
            Proof::Mac(MacProof { algorithm, signed, .. }) => {
                let place = signature_place(signed)?;
                let code = |content: &Content<'_>| MacKey::new(*algorithm, &signer.secret).mac(content);
                Some((place, self.signature(source, signed, signer, body, code)))
            }
            Proof::Digest(DigestProof { algorithm, signed, .. }) => {
                let place = signature_place(signed)?;
                let code = |content: &Content<'_>| hash(*algorithm, content.parts());
                Some((place, self.signature(source, signed, signer, body, code)))
            }
            Proof::Token(proof) => Some((token_place(&proof.from)?, format!("{}{}", proof.prefix, text()))),
            Proof::Basic => {
                let credentials = format!("Basic {}", STANDARD.encode(&signer.secret));
                Some((EvidencePlace::Header(header::AUTHORIZATION), credentials))
            }
            Proof::Jwt(proof) => {
                Some((token_place(&proof.from)?, format!("{}{}", proof.prefix, token(proof, signer, body, options)?)))
            }
            Proof::PublicKey(_) | Proof::None => None,
        }
    }

    fn signature(
        &self,
        source: &Source,
        signed: &SignedContent,
        signer: &Signer,
        body: &Bytes,
        code: impl Fn(&Content<'_>) -> Hash,
    ) -> String {
        let tags: Vec<Tag<'_>> = self.tags.iter().map(|(name, value)| Tag { group: 0, name, value }).collect();
        let delivery = Delivery {
            method: Method::POST,
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: body.clone(),
            remote: (Ipv4Addr::UNSPECIFIED, 0).into(),
            received_at: UnixMillis(0),
        };
        let values = body_values(&source.recipe.pointers, &delivery.body);
        let view = RequestView::new(&delivery, &values).with_tags(&tags, 0);
        let input = SigningInput::new(source, signed, &delivery);
        // Building the content fails if the form has more fields than the verifier accepts, or if the sample does not contain a
        // signed part.
        let Ok(content) = input.content(&signed.contents[0], &view, &signer.secret) else { return FILLER.to_owned() };
        self.with_tags(signed, &encode(signed.encoding, code(&content).bytes()))
    }

    fn with_tags(&self, signed: &SignedContent, code: &str) -> String {
        let format = &signed.signature;
        let code = format!("{}{code}", format.prefix);
        let Some(pair) = &format.pair else { return code };
        let tags = self.tags.iter().map(|(tag, value)| format!("{tag}{pair}{value}"));
        let items: Vec<String> = tags.chain([format!("{}{pair}{code}", format.take[0])]).collect();
        items.join(format.items.as_deref().unwrap_or_default())
    }
}

fn signature_place(signed: &SignedContent) -> Option<EvidencePlace> {
    signed.signature.from.iter().find_map(|locator| match locator {
        SignatureLocator::Header(name) => Some(EvidencePlace::Header(name.clone())),
        SignatureLocator::NumberedHeaders(prefix) => format!("{prefix}1").parse().ok().map(EvidencePlace::Header),
        SignatureLocator::Other(Locator::Query(name)) => Some(EvidencePlace::Query(name.clone())),
        SignatureLocator::Other(_) => None,
    })
}

fn token_place(from: &[Locator]) -> Option<EvidencePlace> {
    from.iter().find_map(|locator| match locator {
        Locator::Header(name) => Some(EvidencePlace::Header(name.clone())),
        Locator::Query(name) => Some(EvidencePlace::Query(name.clone())),
        _ => None,
    })
}

/// A claim of a sample's token.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum SampleClaim {
    Text(String),
    Seconds(u64),
}

/// Returns a token with the claims that the recipe requires and the hash of the body.
fn token(proof: &JwtProof, signer: &Signer, body: &[u8], options: &SampleOptions) -> Option<String> {
    let text = |text: &str| SampleClaim::Text(text.to_owned());
    let mut claims: BTreeMap<&str, SampleClaim> = proof.claims.iter().map(|(name, value)| (&**name, text(value))).collect();
    claims.insert("iat", SampleClaim::Seconds(options.now.0 / 1000));
    claims.insert("jti", text(&options.id));
    if let Some(rule) = &proof.body_claim {
        claims.insert(&rule.name, SampleClaim::Text(encode(rule.encoding, hash(rule.algorithm, [body].into_iter()).bytes())));
    }
    let header = jsonwebtoken::Header::new(jwt::library(*proof.algorithms.first()?));
    jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&signer.secret).ok()?).ok()
}

/// Returns the request target without the query parameters called `name`.
fn without_parameter(target: &str, name: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let others = query.split('&').filter(|pair| pair.split('=').next() != Some(name));
    others.fold(path.to_owned(), |target, pair| format!("{target}{}{pair}", separator(&target)))
}

fn separator(target: &str) -> char {
    if target.contains('?') { '&' } else { '?' }
}

fn put(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    let value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(FILLER));
    headers.insert(name, value);
}

/// Returns a sample body that contains `values`. The body is JSON if the recipe reads one of the values with a JSON pointer,
/// and a form otherwise. If there are no values, the body is `{}`.
fn written(pointers: &Pointers, values: &[Option<SlotValue>]) -> String {
    let form = || Some(written_form(&pointers.form, values)).filter(|form| !form.is_empty());
    written_json(&pointers.root, values).or_else(form).unwrap_or_else(|| "{}".to_owned())
}

fn written_form(fields: &[FormField], values: &[Option<SlotValue>]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for FormField { name, slot, root } in fields {
        let plain = || slot.and_then(|slot| values[slot].as_ref()).map(|value| value.text.clone());
        if let Some(text) = written_json(root, values).or_else(plain) {
            form.append_pair(name, &text);
        }
    }
    form.finish()
}

/// Returns the media type that the provider would send with `body`.
fn media_type(recipe: &Recipe, proof: &Proof, body: &[u8]) -> &'static str {
    let is_json = json::locate(&Node::default(), 0, body).is_some();
    let signs_form = proof.signed().is_some_and(|signed| signed.signs_form);
    let knows_forms = signs_form || !recipe.pointers.form.is_empty();
    if is_json || !knows_forms { "application/json" } else { FORM }
}

/// Returns the JSON for one node in the tree of the recipe's JSON pointers: the node's own value if it has one, otherwise an
/// object that contains the values of its child nodes.
fn written_json(node: &Node, values: &[Option<SlotValue>]) -> Option<String> {
    let json = |value: &SlotValue| if value.is_number { value.text.clone() } else { quoted(&value.text) };
    let value = node.slot.and_then(|slot| values[slot].as_ref()).map(json);
    let member = |(name, below): &(String, Node)| Some(format!("{}:{}", quoted(name), written_json(below, values)?));
    let object = || node.children.iter().filter_map(member).collect::<Vec<_>>().join(",");
    value.or_else(|| Some(object()).filter(|members| !members.is_empty()).map(|members| format!("{{{members}}}")))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text can be written as JSON")
}

fn damaged(body: &[u8]) -> Bytes {
    let mut body = body.to_vec();
    match body.last_mut() {
        Some(last) => *last ^= 1,
        None => body.push(b'!'),
    }
    body.into()
}

/// Time by which a stale or future timestamp exceeds the tolerance, in milliseconds.
const BEYOND_MS: u64 = 60_000;
const FILLER: &str = "sample";
const FORM: &str = "application/x-www-form-urlencoded";
