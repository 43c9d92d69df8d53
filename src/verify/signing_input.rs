//! The signed content: the recipe's template filled from the delivery, as slices of what arrived. Only the fields of a form
//! are copied, because they are signed decoded and in another order.

use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::recipe::{BodyHash, Term};
use crate::verify::mac::sha256;
use crate::verify::request_view::{RequestView, path_and_query, query};
use crate::verify::{Rejection, signature, sorted};

/// What the terms of a template are filled from.
pub struct SigningInput<'a> {
    source: &'a Source,
    target: &'a str,
    body: &'a [u8],
    form: Vec<u8>,
    /// The body's hash by the URL.
    hash: Option<(&'a BodyHash, &'a str)>,
}

impl<'a> SigningInput<'a> {
    /// A request to `source`. Refuses a form that is signed and has more than [`sorted::MAX_FIELDS`] fields.
    pub fn new(source: &'a Source, target: &'a str, body: &'a [u8]) -> Result<SigningInput<'a>, Rejection> {
        let recipe = &source.recipe;
        let hash = recipe.body_sha256.as_ref().and_then(|rule| Some((rule, query(target, &rule.query)?)));
        let form = match hash {
            None if recipe.signs_form => sorted::fields(body)?,
            _ => Vec::new(),
        };
        Ok(SigningInput { source, target: path_and_query(target), body, form, hash })
    }

    /// SHA-256 of the body, where the URL says it. Refuses another body. Asked only once the URL is proved: to hash a body is
    /// more than strangers get.
    pub fn body_hash(&self) -> Result<Option<[u8; 32]>, Rejection> {
        let Some((rule, text)) = self.hash else { return Ok(None) };
        let hash = sha256(&[self.body]);
        if signature::decode(rule.encoding, text).is_some_and(|said| said.bytes() == hash) {
            return Ok(Some(hash));
        }
        let hint = format!("the body is not the one whose hash the URL has as {}", rule.query);
        Err(Rejection::new(Outcome::SignatureMismatch, hint))
    }

    /// The parts to hash, in order. A part that the request lacks makes the signature unreadable.
    pub fn parts(&'a self, terms: &'a [Term], site: &RequestView<'a>) -> Result<Vec<&'a [u8]>, Rejection> {
        let mut parts = Vec::with_capacity(terms.len() + 1);
        for term in terms {
            match (term, &self.source.public_url) {
                (Term::Url, Some(url)) => parts.extend([url.as_written().as_bytes(), self.target.as_bytes()]),
                (Term::UrlOtherPort, Some(url)) => parts.extend([url.other_port().as_bytes(), self.target.as_bytes()]),
                _ => parts.push(self.part(term, site).ok_or_else(|| absent(term))?),
            }
        }
        Ok(parts)
    }

    fn part(&'a self, term: &'a Term, site: &RequestView<'a>) -> Option<&'a [u8]> {
        let recipe = &self.source.recipe;
        match term {
            Term::Literal(text) => Some(text.as_bytes()),
            Term::Body => Some(self.body),
            Term::Timestamp => site.signed(&recipe.timestamp.as_ref()?.from),
            Term::Id => site.signed(&recipe.event.id),
            Term::Header(name) => site.header(name),
            Term::Tag(tag) => site.tag(tag),
            Term::FormSorted => Some(&self.form),
            // A source without a public URL does not get this far: that is a mistake in its configuration.
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
        _ => "a part".to_owned(),
    };
    Rejection::new(Outcome::SignatureMalformed, format!("{what}, which is signed, is absent"))
}
