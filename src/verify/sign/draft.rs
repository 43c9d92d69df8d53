//! A sample delivery before it is signed: the values that the recipe reads, in their places.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::body::{FORM, media_type};
use super::{SampleOptions, Tamper};
use crate::clock::UnixMillis;
use crate::source::recipe::{Choice, JOINT, Locator, Proof, Recipe, RecipeSample, SampleValues, SlotValue, Term, TimeUnit, fits};
use crate::verify::hash::sha256;
use crate::verify::request_view::query;
use crate::verify::signing_input::encode;
use crate::verify::tolerance;

/// A sample delivery before it is signed.
#[derive(Default)]
pub(super) struct SampleDraft<'r> {
    /// The recipe's own sample; `None` if the recipe has none, or for a body that the recipe does not contain.
    pub(super) own: Option<&'r RecipeSample>,
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

impl<'r> SampleDraft<'r> {
    /// Creates a draft with the headers and values of a sample of the recipe.
    pub(super) fn new(recipe: &'r Recipe, own: Option<&'r RecipeSample>, target: String) -> SampleDraft<'r> {
        let values = own.map_or_else(|| SampleValues::new(&recipe.pointers), |own| own.values.clone());
        let mut headers = own.map(|own| own.headers.clone()).unwrap_or_default();
        recipe.proofs.iter().flat_map(Proof::headers).for_each(|name| drop(headers.remove(name)));
        SampleDraft { own, target, headers, values, ..SampleDraft::default() }
    }

    pub(super) fn describe(&mut self, recipe: &Recipe, proof: &Proof, options: &SampleOptions) {
        let kind = options.event_type.as_deref().unwrap_or(&recipe.setup.sample_type);
        let id = if options.id.is_empty() { FILLER } else { &options.id };
        self.put_fact(recipe, &recipe.event.id, id);
        self.put_fact(recipe, &recipe.event.kind, kind);
        if let Some(key) = &options.key {
            self.put_fact(recipe, &recipe.event.key, key);
        }
        let times = || recipe.event.time.iter();
        let time = times().find(|(locator, _)| self.text(locator).is_some());
        if let Some((locator, unit)) = time.or_else(|| times().find(|(locator, _)| self.has_place(recipe, locator))) {
            self.put_at(locator, tolerance::write(*unit, options.now), *unit != TimeUnit::Rfc3339);
        }
        if let Some(rule) = proof.timestamp() {
            let (past, future) = (rule.past.as_millis() as u64, rule.future.as_millis() as u64);
            let signed_at = match options.tamper {
                Some(Tamper::Stale) => options.now.0.saturating_sub(past + BEYOND_MS),
                Some(Tamper::Future) => options.now.0 + future + BEYOND_MS,
                _ => options.now.0,
            };
            self.put_fact(recipe, &rule.from, &tolerance::write(rule.unit, UnixMillis(signed_at)));
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
                self.values.body[slot] = Some(SlotValue { text, is_literal: false });
            }
            EvidencePlace::Item(slot) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.values.item[slot] = Some(SlotValue { text, is_literal: false });
            }
        }
    }

    /// Sets the content type of the sample. Adds the body's hash to the URL if the recipe reads the hash from the URL and the
    /// body is not a form.
    pub(super) fn announce(&mut self, recipe: &Recipe, proof: &Proof, body: &[u8]) {
        let media_type = if self.own.is_some_and(|own| own.body.is_form()) { FORM } else { media_type(recipe, proof, body) };
        self.headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(media_type));
        let body_hash = proof.signed().and_then(|signed| signed.body_hash.as_ref());
        if let Some(rule) = body_hash.filter(|_| media_type != FORM) {
            let hash = encode(rule.encoding, &sha256([body].into_iter()));
            self.put_at(&Locator::Query(rule.query.clone()), hash, false);
        }
    }

    /// Writes `text`, such as an event id, to the locations from which the recipe reads this text. `choice` is a list of
    /// alternatives, and each alternative is a list of locators. Splits `text` at [`JOINT`] into one part per locator. Uses the
    /// first alternative for which `text` has enough parts and each part for a `const:` locator equals the locator's text. Prefers
    /// an alternative that the recipe's own sample contains, then one for which the sample has a place. Then removes the values of
    /// the earlier alternatives, because the verifier would read them first.
    fn put_fact(&mut self, recipe: &Recipe, choice: &Choice, text: &str) {
        let fitting = choice.0.iter().enumerate().filter(|(_, fields)| fits(fields, text));
        let Some((index, fields)) = fitting.min_by_key(|(_, fields)| self.effort(recipe, fields)) else { return };
        for (locator, part) in fields.iter().zip(self.parts(fields, text)) {
            if !part.is_empty() {
                self.put_at(locator, part, false);
            }
        }
        if self.own.is_some() {
            choice.0[..index].iter().for_each(|earlier| self.remove(earlier, fields));
        }
    }

    /// Returns 0 if the sample contains a value for each of the fields, 1 if it has places for them, and otherwise 2. Without a
    /// sample of the recipe, every location has a place.
    fn effort(&self, recipe: &Recipe, fields: &[Locator]) -> u8 {
        if self.own.is_none() || fields.iter().all(|locator| self.text(locator).is_some()) {
            return 0;
        }
        if fields.iter().all(|locator| self.has_place(recipe, locator)) { 1 } else { 2 }
    }

    fn has_place(&self, recipe: &Recipe, locator: &Locator) -> bool {
        match locator {
            Locator::Body(slot) => self.own.is_none_or(|own| own.body.has_place(&recipe.pointers, *slot)),
            _ => true,
        }
    }

    /// Splits `text` into one part per locator. A part that the sample already contains may itself contain [`JOINT`], such as a
    /// host name.
    fn parts(&self, fields: &[Locator], text: &str) -> Vec<String> {
        let mut rest = text;
        let mut parts = Vec::new();
        for (index, locator) in fields.iter().enumerate() {
            let present = self.text(locator).and_then(|own| rest.strip_prefix(&own)?.strip_prefix(JOINT));
            let part = match (index + 1 == fields.len(), present, rest.split_once(JOINT)) {
                (true, _, _) | (_, None, None) => std::mem::take(&mut rest),
                (_, Some(after), _) => {
                    let part = &rest[..rest.len() - after.len() - JOINT.len()];
                    rest = after;
                    part
                }
                (_, None, Some((part, after))) => {
                    rest = after;
                    part
                }
            };
            parts.push(part.to_owned());
        }
        parts
    }

    /// Returns the text that the verifier would find at `locator`, or `None` if the draft has no text there.
    pub(super) fn text(&self, locator: &Locator) -> Option<String> {
        let text = match locator {
            Locator::Header(name) => self.headers.get(name)?.to_str().ok()?,
            Locator::Const(text) => text,
            Locator::Body(slot) => &self.values.body.get(*slot)?.as_ref()?.text,
            Locator::Item(slot) => &self.values.item.get(*slot)?.as_ref()?.text,
            _ => return None,
        };
        Some(text.to_owned()).filter(|text| !text.is_empty())
    }

    /// Returns the texts of the first alternative of `choice` whose locators all have a text.
    pub(super) fn located(&self, choice: &Choice) -> Option<Vec<String>> {
        choice.0.iter().find_map(|fields| fields.iter().map(|locator| self.text(locator)).collect())
    }

    /// Removes one value of the alternative `fields`, so that the verifier does not use the alternative. Does not remove the values
    /// of `used`.
    fn remove(&mut self, fields: &[Locator], used: &[Locator]) {
        if !fields.iter().all(|locator| self.text(locator).is_some()) {
            return;
        }
        let unused = fields.iter().filter(|locator| !used.contains(locator));
        for locator in unused {
            match locator {
                Locator::Header(name) => drop(self.headers.remove(name)),
                Locator::Body(slot) => self.values.body[*slot] = None,
                Locator::Item(slot) => self.values.item[*slot] = None,
                _ => continue,
            }
            return;
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
            Locator::Body(slot) => replace(&mut self.values.body[*slot], text, is_number),
            Locator::Item(slot) => replace(&mut self.values.item[*slot], text, is_number),
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

/// Replaces a value. A number remains a number if `text` is one, and a string remains a string.
fn replace(value: &mut Option<SlotValue>, text: String, is_number: bool) {
    let is_integer = text.len() < 39 && text.parse::<u128>().is_ok_and(|number| number.to_string() == text);
    let is_literal = value.as_ref().map_or(is_number, |value| value.is_literal && is_integer);
    *value = Some(SlotValue { text, is_literal });
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
