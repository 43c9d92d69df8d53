//! Builds the signed content of a request from the terms of a recipe. The public URL comes from the configuration, and all
//! other parts come from the request as received. If a provider signs the sorted fields of a form, the verifier must first
//! decode and sort these fields.

use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderName;

use crate::event::Delivery;
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::recipe::{BodyHash, Encoding, FormJoin, Locator, SignedContent, Term};
use crate::verify::code::Code;
use crate::verify::content::{Content, Part};
use crate::verify::hash::{hash, sha256};
use crate::verify::request_view::{RequestView, path_and_query, query};
use crate::verify::sorted_form;
use crate::verify::verdict::Rejection;

/// The parts of a request from which the verifier builds the signed content.
pub(super) struct SigningInput<'a> {
    source: &'a Source,
    signed: &'a SignedContent,
    delivery: &'a Delivery,
    target: &'a str,
    /// The texts of the form, each with the way in which its fields are joined. All alternatives that join the fields in the
    /// same way share one text.
    forms: Vec<(&'a FormJoin, OnceCell<Bytes>)>,
    /// The hash of the body from the URL's query, and the recipe parameter that describes this hash. `None` if the URL has no
    /// such hash.
    hash: Option<(&'a BodyHash, &'a str)>,
}

impl<'a> SigningInput<'a> {
    /// Collects the signed parts of a delivery to `source`.
    pub(super) fn new(source: &'a Source, signed: &'a SignedContent, delivery: &'a Delivery) -> SigningInput<'a> {
        let hash = signed.body_hash.as_ref().and_then(|rule| Some((rule, query(&delivery.target, &rule.query)?)));
        let mut forms: Vec<(&FormJoin, OnceCell<Bytes>)> = Vec::new();
        for term in signed.contents.iter().flatten() {
            match term {
                Term::FormSorted(join) if !forms.iter().any(|(have, _)| *have == join) => forms.push((join, OnceCell::new())),
                _ => {}
            }
        }
        SigningInput { source, signed, delivery, target: path_and_query(&delivery.target), forms, hash }
    }

    /// Returns the SHA-256 hash of the body, or `None` if the URL contains no body hash. Rejects a body whose hash differs from
    /// the hash in the URL. The caller must first verify the signature of the URL, so that an unauthenticated sender cannot
    /// make hookhold hash a body.
    pub(super) fn body_hash(&self) -> Result<Option<[u8; 32]>, Rejection> {
        let Some((rule, text)) = self.hash else { return Ok(None) };
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
        // The configuration rejects a source without a public URL if its recipe signs the URL.
        let url = self.source.public_url.as_ref();
        let required = |part: Option<&'a [u8]>| part.map(Part::Slice).ok_or_else(|| absent(term));
        let part = match term {
            Term::Literal(text) => Part::Slice(text.as_bytes()),
            Term::Body => Part::Slice(body),
            Term::BodyHash(algorithm, encoding) => {
                let output = hash(*algorithm, [&body[..]].into_iter());
                Part::Computed(encode(*encoding, output.bytes()).into())
            }
            Term::BodyCrc32 => Part::Computed(crc32fast::hash(body).to_string().into()),
            Term::Timestamp => {
                let rule = self.signed.timestamp.as_ref();
                required(rule.and_then(|rule| view.signed(&rule.from)))?
            }
            Term::Id => required(view.signed(&self.source.recipe.event.id))?,
            Term::Header(name) => required(view.header(name))?,
            Term::Tag(tag) => required(view.tag(tag))?,
            Term::Located(locator) => required(view.find(locator))?,
            Term::Optional(locator) => Part::Slice(view.find(locator).unwrap_or_default()),
            Term::ListedHeaders { tag, separator } => Part::Computed(listed_headers(view, tag, separator)?),
            Term::Secret => Part::Slice(secret),
            Term::Method => Part::Slice(self.delivery.method.as_str().as_bytes()),
            Term::PathAndQuery => Part::Slice(self.target.as_bytes()),
            Term::Url | Term::UrlOtherPort | Term::UrlNoQuery => {
                let url = url.ok_or_else(|| absent(term))?;
                let base = if *term == Term::UrlOtherPort { url.other_port() } else { url.as_written() };
                content.push(Part::Slice(base.as_bytes()));
                let target =
                    if *term == Term::UrlNoQuery { self.target.split('?').next().unwrap_or_default() } else { self.target };
                Part::Slice(target.as_bytes())
            }
            Term::FormSorted(join) => Part::Computed(self.form(join)?),
        };
        content.push(part);
        Ok(())
    }

    fn form(&self, join: &FormJoin) -> Result<Bytes, Rejection> {
        // If the URL contains the hash of the body, the provider signs only the URL.
        let Some((_, text)) = self.forms.iter().find(|(have, _)| *have == join).filter(|_| self.hash.is_none()) else {
            return Ok(Bytes::new());
        };
        if let Some(text) = text.get() {
            return Ok(text.clone());
        }
        let computed = Bytes::from(sorted_form::text(&self.delivery.body, join)?);
        Ok(text.get_or_init(|| computed).clone())
    }
}

/// Returns the values of the headers that the tag `tag` names, joined with `separator`. A header that the request does not
/// contain has an empty value. Rejects a list of more than [`MAX_LISTED`] headers.
fn listed_headers(view: &RequestView<'_>, tag: &str, separator: &str) -> Result<Bytes, Rejection> {
    let malformed = |what: &str| {
        Rejection::new(
            Outcome::SignatureMalformed,
            format!("signature: expected a list of headers in the tag {tag}, found {what}"),
        )
    };
    let names = view.tag(tag).and_then(|names| std::str::from_utf8(names).ok());
    let names: Vec<&str> = names.ok_or_else(|| malformed("none"))?.split(' ').filter(|name| !name.is_empty()).collect();
    if names.len() > MAX_LISTED {
        return Err(malformed(&format!("more than {MAX_LISTED}")));
    }
    let value =
        |name: &&str| HeaderName::from_bytes(name.as_bytes()).ok().and_then(|name| view.header(&name)).unwrap_or_default();
    Ok(names.iter().map(value).collect::<Vec<&[u8]>>().join(separator.as_bytes()).into())
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

/// Maximum number of headers that a signature may list. Each costs a lookup before the sender is verified.
const MAX_LISTED: usize = 32;
