//! Builds the signed content of a request from the terms of a recipe. The public URL comes from the configuration, and all
//! other parts come from the request as received. If a provider signs the sorted fields of a form, the verifier must first
//! decode and sort these fields.

use std::cell::{OnceCell, RefCell};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderName;

use crate::event::Delivery;
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::recipe::{BodyHash, Encoding, FormJoin, Locator, SignedContent, Term, UrlStyle};
use crate::verify::code::Code;
use crate::verify::content::{Content, Part};
use crate::verify::hash::{hash, sha256};
use crate::verify::request_view::{RequestView, path_and_query, query};
use crate::verify::sorted_form;
use crate::verify::url_rewrite::rewritten;
use crate::verify::verdict::Rejection;
use crate::verify::work::Work;

/// The parts of a request from which the verifier builds the signed content.
pub(super) struct SigningInput<'a> {
    source: &'a Source,
    signed: &'a SignedContent,
    delivery: &'a Delivery,
    target: &'a str,
    /// The texts of the form that a content has needed so far, each with the way in which its fields are joined. All
    /// alternatives that join the fields in the same way share one text.
    forms: RefCell<Vec<(&'a FormJoin, Bytes)>>,
    /// The request target as other URL libraries write it, in the order of [`STYLES`]. Computed when a content needs it.
    rewritten: OnceCell<[Bytes; STYLES.len()]>,
    /// The hash of the body from the URL's query, and the recipe parameter that describes this hash. `None` if the URL has no
    /// such hash.
    hash: Option<(&'a BodyHash, &'a str)>,
    work: &'a Work,
}

impl<'a> SigningInput<'a> {
    /// Collects the signed parts of a delivery to `source`. Adds each pass over the body to `work`.
    pub(super) fn new(source: &'a Source, signed: &'a SignedContent, delivery: &'a Delivery, work: &'a Work) -> SigningInput<'a> {
        let hash = signed.body_hash.as_ref().and_then(|rule| Some((rule, query(&delivery.target, &rule.query)?)));
        let target = path_and_query(&delivery.target);
        SigningInput { source, signed, delivery, target, forms: RefCell::default(), rewritten: OnceCell::new(), hash, work }
    }

    /// Returns the alternatives of the signed content, in the recipe's order. Omits an alternative that is the same text as an
    /// earlier one because the rewritten URL is the URL itself, so that most forged deliveries cost fewer hashes. Also omits
    /// an alternative whose rewritten query contains another hash of the body than the query itself: such a query would make
    /// a signature valid for another body.
    pub(super) fn contents(&self) -> impl Iterator<Item = &'a [Term]> {
        let all = &self.signed.contents;
        let is_same =
            |one: &[Term], other: &[Term]| one.len() == other.len() && one.iter().zip(other).all(|pair| self.are_equal(pair));
        let is_new = move |at: usize| !all[..at].iter().any(|earlier| is_same(earlier, &all[at]));
        let has_one_hash = |terms: &[Term]| terms.iter().all(|term| self.keeps_hash(term));
        (0..all.len()).filter(move |at| has_one_hash(&all[*at]) && is_new(*at)).map(|at| &all[at][..])
    }

    fn are_equal(&self, (one, other): (&Term, &Term)) -> bool {
        let text = |term: &Term| self.url(term).map(|(base, target)| [base.as_bytes(), target.bytes()].concat());
        match (one, other) {
            (Term::UrlRewritten { .. }, _) | (_, Term::UrlRewritten { .. }) => text(one) == text(other),
            _ => one == other,
        }
    }

    fn keeps_hash(&self, term: &Term) -> bool {
        let (Some(rule), Term::UrlRewritten { .. }) = (&self.signed.body_hash, term) else { return true };
        let target = self.url(term).map(|(_, target)| target);
        let rewritten = target.as_ref().and_then(|target| query(std::str::from_utf8(target.bytes()).ok()?, &rule.query));
        rewritten == query(self.target, &rule.query)
    }

    /// Returns the base and the target of the URL that `term` stands for. Returns `None` for a term that is no URL, and if the
    /// source has no public URL, which the configuration excludes for a recipe that signs the URL.
    fn url(&self, term: &Term) -> Option<(&'a str, Part<'a>)> {
        let url = self.source.public_url.as_ref()?;
        let slice = |text: &'a str| Part::Slice(text.as_bytes());
        match term {
            Term::Url => Some((url.as_written(), slice(self.target))),
            Term::UrlOtherPort => Some((url.other_port(), slice(self.target))),
            Term::UrlNoQuery => Some((url.as_written(), slice(self.target.split('?').next().unwrap_or_default()))),
            Term::UrlRewritten { style, other_port } => {
                let all = self.rewritten.get_or_init(|| STYLES.map(|style| rewritten(self.target, style).into()));
                let at = STYLES.iter().position(|one| one == style)?;
                Some((url.normalized(*other_port), Part::Computed(all[at].clone())))
            }
            _ => None,
        }
    }

    /// Returns the SHA-256 hash of the body, or `None` if the URL contains no body hash. Rejects a body whose hash differs from
    /// the hash in the URL. The caller must first verify the signature of the URL, so that an unauthenticated sender cannot
    /// make hookhold hash a body.
    pub(super) fn body_hash(&self) -> Result<Option<[u8; 32]>, Rejection> {
        let Some((rule, text)) = self.hash else { return Ok(None) };
        self.work.add(self.delivery.body.len());
        let hash = sha256([&self.delivery.body[..]].into_iter());
        if Code::decode(rule.encoding, text).is_some_and(|stated| stated.bytes() == hash) {
            return Ok(Some(hash));
        }
        let hint = format!(
            "body: expected the hash in the query parameter {}, found another hash; make every proxy forward the body unchanged",
            rule.query
        );
        Err(Rejection::new(Outcome::SignatureMismatch, hint))
    }

    /// Returns the signed content for `terms` in their order. `secret` is the value of the term [`Term::Secret`]. Rejects a
    /// request that lacks a part of the content, and a signed form with more than [`sorted_form::MAX_FIELDS`] fields.
    pub(super) fn content(&self, terms: &'a [Term], view: &RequestView<'a>, secret: &'a [u8]) -> Result<Content<'a>, Rejection> {
        let mut content = Content::with_capacity(terms.len() + 1);
        for term in terms {
            self.append(term, view, secret, &mut content)?;
        }
        Ok(content)
    }

    fn append(
        &self,
        term: &'a Term,
        view: &RequestView<'a>,
        secret: &'a [u8],
        content: &mut Content<'a>,
    ) -> Result<(), Rejection> {
        let body = &self.delivery.body;
        let required = |part: Option<&'a [u8]>| part.map(Part::Slice).ok_or_else(|| absent(term));
        let part = match term {
            Term::Literal(text) => Part::Slice(text.as_bytes()),
            Term::Body => Part::Slice(body),
            Term::BodyHash(algorithm, encoding) => {
                self.work.add(body.len());
                let output = hash(*algorithm, [&body[..]].into_iter());
                Part::Computed(encode(*encoding, output.bytes()).into())
            }
            Term::BodyCrc32 => {
                self.work.add(body.len());
                Part::Computed(crc32fast::hash(body).to_string().into())
            }
            Term::Timestamp => {
                let rule = self.signed.timestamp.as_ref();
                required(rule.and_then(|rule| view.signed(&rule.from)))?
            }
            Term::Id => required(view.signed(&self.source.recipe.event.id))?,
            Term::Header(name) => required(view.header(name))?,
            Term::Tag(tag) => required(view.tag(tag))?,
            Term::Located(locator) => required(view.find(locator))?,
            Term::Optional(locator) => Part::Slice(view.find(locator).unwrap_or_default()),
            Term::ListedHeaders { names, separator, pair } => {
                Part::Computed(listed_headers(view, names, separator, pair.as_deref())?)
            }
            Term::Secret => Part::Slice(secret),
            Term::Method => Part::Slice(self.delivery.method.as_str().as_bytes()),
            Term::PathAndQuery => Part::Slice(self.target.as_bytes()),
            Term::Url | Term::UrlOtherPort | Term::UrlNoQuery | Term::UrlRewritten { .. } => {
                let (base, target) = self.url(term).ok_or_else(|| absent(term))?;
                content.push(Part::Slice(base.as_bytes()));
                target
            }
            Term::FormSorted(join) => Part::Computed(self.form(join)?),
        };
        content.push(part);
        Ok(())
    }

    fn form(&self, join: &'a FormJoin) -> Result<Bytes, Rejection> {
        if self.hash.is_some() {
            // If the URL contains the hash of the body, the provider signs only the URL.
            return Ok(Bytes::new());
        }
        let mut forms = self.forms.borrow_mut();
        if let Some((_, text)) = forms.iter().find(|(have, _)| *have == join) {
            return Ok(text.clone());
        }
        self.work.add(self.delivery.body.len());
        let text = Bytes::from(sorted_form::text(&self.delivery.body, join)?);
        forms.push((join, text.clone()));
        Ok(text)
    }
}

/// Returns the values of the headers that the list at `names` names, joined with `separator`. If `pair` is not `None`, puts the
/// name of each header before its value. A header that the request does not contain has an empty value. Rejects a list of more
/// than [`MAX_LISTED`] headers and a list with a repeated name.
fn listed_headers<'a>(
    view: &RequestView<'a>,
    names: &'a Locator,
    separator: &str,
    pair: Option<&str>,
) -> Result<Bytes, Rejection> {
    let malformed = |what: &str| {
        let hint = format!("signed content: expected a list of at most {MAX_LISTED} signed headers, found {what}");
        Rejection::new(Outcome::SignatureMalformed, hint)
    };
    let list = view.find(names).and_then(|names| std::str::from_utf8(names).ok()).ok_or_else(|| malformed("none"))?;
    let (mut text, mut seen) = (Vec::new(), Vec::new());
    for (index, name) in list.split([' ', ',']).filter(|name| !name.is_empty()).enumerate() {
        if index == MAX_LISTED {
            return Err(malformed("more"));
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed("a name that no header can have"))?;
        if seen.contains(&name) {
            // A list that repeats the name of a long header would make a small request expensive.
            return Err(malformed("a name that is repeated"));
        }
        let value = view.header(&name).unwrap_or_default();
        let before = if index == 0 { "" } else { separator };
        let (shown, pair) = pair.map_or(("", ""), |pair| (name.as_str(), pair));
        [before.as_bytes(), shown.as_bytes(), pair.as_bytes(), value].iter().for_each(|part| text.extend_from_slice(part));
        seen.push(name);
    }
    Ok(text.into())
}

/// Writes bytes as text.
pub(super) fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Hex => base16ct::lower::encode_string(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
        Encoding::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
    }
}

fn absent(term: &Term) -> Rejection {
    let what = match term {
        Term::Header(name) => format!("the header {name}"),
        Term::Tag(tag) => format!("the tag {tag}"),
        Term::Timestamp => "the timestamp".to_owned(),
        Term::Id => "the event id".to_owned(),
        Term::Located(Locator::Query(name)) => format!("the query parameter {name}"),
        Term::Located(_) => "a value in the body".to_owned(),
        _ => "the URL".to_owned(),
    };
    let hint = format!("signed content: expected {what}, found none; make every proxy forward the request unchanged");
    Rejection::new(Outcome::SignatureMalformed, hint)
}

/// The ways in which another library may have written the signed URL.
const STYLES: [UrlStyle; 2] = [UrlStyle::Normalized, UrlStyle::LegacyQuery];
/// Maximum number of headers that a signature may list. Each costs a lookup before the sender is verified.
const MAX_LISTED: usize = 32;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::source::SourceDefaults;
    use crate::source::url::PublicUrl;
    use crate::toml_value::TomlTable;

    fn twilio() -> Source {
        let defaults = SourceDefaults {
            providers: Default::default(),
            topic: "t".to_owned(),
            public_url: Some(PublicUrl::new("https://hooks.example.com")),
            max_body: 1 << 20,
            request_deadline: Duration::from_secs(8),
            window: Duration::from_secs(60),
        };
        let entry = "provider = \"twilio\"\nsecrets = [\"env:PATH\"]";
        let compile = |table, diagnostics: &_| Source::compile("twilio", table, &defaults, diagnostics);
        TomlTable::read("hookhold.toml", entry, compile).ok().flatten().expect("a valid source")
    }

    #[test]
    fn a_url_that_stays_the_same_is_tried_only_once() {
        let source = twilio();
        let signed = source.recipe.proofs[0].signed().expect("a signature");
        for (target, count) in
            [("/in", 2), ("/in?a=b&c=%20", 2), ("/in?a", 4), ("/in?a=b+c", 4), ("/in?n=O'Hara", 4), ("/in?n=O'Hara+x", 6)]
        {
            let delivery = Delivery {
                method: http::Method::POST,
                target: target.to_owned(),
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
                remote: (Ipv4Addr::LOCALHOST, 1).into(),
                received_at: UnixMillis(0),
            };
            assert_eq!(SigningInput::new(&source, signed, &delivery, &Work::default()).contents().count(), count, "{target}");
        }
    }
}
