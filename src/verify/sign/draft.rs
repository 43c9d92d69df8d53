//! A sample delivery before it is signed: the values that the recipe reads, in their places.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::body::{FORM, SampleValues, SlotValue, media_type};
use super::{SampleOptions, Tamper};
use crate::clock::UnixMillis;
use crate::source::recipe::{Choice, Locator, Proof, Recipe, Term, TimeUnit};
use crate::verify::hash::sha256;
use crate::verify::request_view::{JOINT, query};
use crate::verify::signing_input::encode;
use crate::verify::tolerance;

/// A sample delivery before it is signed.
#[derive(Default)]
pub(super) struct SampleDraft {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) tags: Vec<(String, String)>,
    /// The claims that the recipe reads from a token.
    pub(super) claims: Vec<(String, String)>,
    pub(super) values: SampleValues,
}

/// The place of a signature or token in a sample.
pub(super) enum EvidencePlace {
    Header(HeaderName),
    Query(String),
    /// A place in the body, as an index into the recipe's body locations.
    Body(usize),
    /// A place in the item of a batch, as an index into the recipe's locations inside an item.
    Item(usize),
}

impl SampleDraft {
    pub(super) fn describe(&mut self, recipe: &Recipe, proof: &Proof, options: &SampleOptions) {
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
        // A sample contains the first alternative of the signed content.
        let terms = proof.signed().and_then(|signed| signed.contents.first());
        terms.into_iter().flatten().for_each(|term| self.fill(term));
    }

    /// Writes the signature or token to its place. A query parameter is percent-encoded, as a sender would do it.
    pub(super) fn put_evidence(&mut self, place: EvidencePlace, text: Vec<u8>) {
        match place {
            EvidencePlace::Header(name) => {
                self.headers.insert(name, HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(FILLER)));
            }
            EvidencePlace::Query(name) => {
                let text = percent_encode(&text, QUERY);
                self.target.push_str(&format!("{}{name}={text}", separator(&self.target)));
            }
            EvidencePlace::Body(slot) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.values.body[slot] = Some(SlotValue { text, is_number: false });
            }
            EvidencePlace::Item(slot) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.values.item[slot] = Some(SlotValue { text, is_number: false });
            }
        }
    }

    /// Sets the content type of the sample. Adds the body's hash to the URL if the recipe reads the hash from the URL and the
    /// body is not a form.
    pub(super) fn announce(&mut self, recipe: &Recipe, proof: &Proof, body: &[u8]) {
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
            Locator::Claim(name) => self.claims.push((name.clone(), text)),
            Locator::Const(_) | Locator::BasicUser => {}
            Locator::Body(slot) => self.values.body[*slot] = Some(SlotValue { text, is_number }),
            Locator::Item(slot) => self.values.item[*slot] = Some(SlotValue { text, is_number }),
        }
    }

    /// Adds a filler value for a term of the signed content if the sample does not yet have a value for the term.
    fn fill(&mut self, term: &Term) {
        match term {
            Term::Header(name) if !self.headers.contains_key(name) => put(&mut self.headers, name, FILLER),
            Term::Tag(tag) if !self.tags.iter().any(|(name, _)| name == tag) => self.tags.push((tag.clone(), FILLER.into())),
            Term::Located(locator @ Locator::Body(slot)) if self.values.body[*slot].is_none() => {
                self.put_at(locator, FILLER.into(), false)
            }
            Term::Located(locator @ Locator::Item(slot)) if self.values.item[*slot].is_none() => {
                self.put_at(locator, FILLER.into(), false);
            }
            Term::Located(locator @ Locator::Query(name)) if query(&self.target, name).is_none() => {
                self.put_at(locator, FILLER.into(), false);
            }
            Term::ListedHeaders { names, .. } => self.put_at(names, header::CONTENT_TYPE.to_string(), false),
            _ => {}
        }
    }
}

/// Returns the request target without the query parameters called `name`.
fn without_parameter(target: &str, name: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let others = query.split('&').filter(|pair| pair.split('=').next() != Some(name));
    others.fold(path.to_owned(), |target, pair| format!("{target}{}{pair}", separator(&target)))
}

pub(super) fn separator(target: &str) -> char {
    if target.contains('?') { '&' } else { '?' }
}

pub(super) fn put(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    let value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(FILLER));
    headers.insert(name, value);
}

/// Time by which a stale or future timestamp exceeds the tolerance, in milliseconds.
const BEYOND_MS: u64 = 60_000;
pub(super) const FILLER: &str = "sample";
/// The characters of a signature or token that a query parameter cannot contain as they are.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b'=').remove(b'+');
