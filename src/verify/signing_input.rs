//! Builds the signed content of a request: replaces the terms of the recipe with slices of the received bytes. Copies no bytes
//! except the fields of a signed form, which the verifier must decode and sort.

use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::recipe::{BodyHash, Term};
use crate::verify::mac::sha256;
use crate::verify::request_view::{RequestView, path_and_query, query};
use crate::verify::verdict::Rejection;
use crate::verify::{signature, sorted_form};

/// The parts of a request from which the verifier builds the signed content.
pub(super) struct SigningInput<'a> {
    source: &'a Source,
    target: &'a str,
    body: &'a [u8],
    form: Vec<u8>,
    /// The recipe parameter that describes the body hash, and the text of this hash in the URL's query. `None` if the URL
    /// contains no body hash.
    hash: Option<(&'a BodyHash, &'a str)>,
}

impl<'a> SigningInput<'a> {
    /// Collects the signed parts of a request to `source`. Rejects a signed form with more than [`sorted_form::MAX_FIELDS`]
    /// fields.
    pub(super) fn new(source: &'a Source, target: &'a str, body: &'a [u8]) -> Result<SigningInput<'a>, Rejection> {
        let proof = &source.recipe.proof;
        let hash = proof.body_sha256.as_ref().and_then(|rule| Some((rule, query(target, &rule.query)?)));
        let form = match hash {
            None if proof.signs_form => sorted_form::fields(body)?,
            _ => Vec::new(),
        };
        Ok(SigningInput { source, target: path_and_query(target), body, form, hash })
    }

    /// Returns the SHA-256 hash of the body, or `None` if the URL contains no body hash. Rejects a body whose hash differs from
    /// the hash in the URL. The caller must first verify the signature of the URL, so that an unauthenticated sender cannot
    /// make hookhold hash a body.
    pub(super) fn body_hash(&self) -> Result<Option<[u8; 32]>, Rejection> {
        let Some((rule, text)) = self.hash else { return Ok(None) };
        let hash = sha256(&[self.body]);
        if signature::decode(rule.encoding, text).is_some_and(|stated| stated.bytes() == hash) {
            return Ok(Some(hash));
        }
        let hint = format!(
            "body: expected the hash in the query parameter {}, found another hash; make every proxy forward the body unchanged",
            rule.query
        );
        Err(Rejection::new(Outcome::SignatureMismatch, hint))
    }

    /// Returns the slices that form the signed content, in the order of `terms`. Rejects a request if one of these slices is
    /// missing.
    pub(super) fn parts(&'a self, terms: &'a [Term], request: &RequestView<'a>) -> Result<Vec<&'a [u8]>, Rejection> {
        let mut parts = Vec::with_capacity(terms.len() + 1);
        for term in terms {
            match (term, &self.source.public_url) {
                (Term::Url, Some(url)) => parts.extend([url.as_written().as_bytes(), self.target.as_bytes()]),
                (Term::UrlOtherPort, Some(url)) => parts.extend([url.other_port().as_bytes(), self.target.as_bytes()]),
                _ => parts.push(self.part(term, request).ok_or_else(|| absent(term))?),
            }
        }
        Ok(parts)
    }

    fn part(&'a self, term: &'a Term, request: &RequestView<'a>) -> Option<&'a [u8]> {
        let recipe = &self.source.recipe;
        match term {
            Term::Literal(text) => Some(text.as_bytes()),
            Term::Body => Some(self.body),
            Term::Timestamp => request.signed(&recipe.timestamp.as_ref()?.from),
            Term::Id => request.signed(&recipe.event.id),
            Term::Header(name) => request.header(name),
            Term::Tag(tag) => request.tag(tag),
            Term::FormSorted => Some(&self.form),
            // Unreachable: if a recipe signs the URL, the configuration rejects a source without a public URL.
            Term::Url | Term::UrlOtherPort => None,
        }
    }
}

fn absent(term: &Term) -> Rejection {
    let what = match term {
        Term::Header(name) => format!("the header {name}"),
        Term::Tag(tag) => format!("the tag {tag}"),
        Term::Timestamp => "the timestamp".to_owned(),
        Term::Id => "the event id".to_owned(),
        _ => "the URL".to_owned(),
    };
    let hint = format!("signed content: expected {what}, found none; make every proxy forward the request unchanged");
    Rejection::new(Outcome::SignatureMalformed, hint)
}
