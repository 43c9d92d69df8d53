//! The signed content: the recipe's template filled from the delivery, as slices of what arrived. Only the fields of a form
//! are copied, because they are signed decoded and in another order.

use crate::event::{Integrity, Outcome};
use crate::source::Source;
use crate::source::recipe::{Encoding, Term};
use crate::verify::mac::sha256;
use crate::verify::site::{Site, path_and_query, query};
use crate::verify::{Refusal, signature, sorted};

/// What the terms of a template are filled from.
pub struct Ground<'a> {
    source: &'a Source,
    target: &'a str,
    body: &'a [u8],
    form: Vec<u8>,
    /// How much of an event a signature over it proves.
    pub integrity: Integrity,
}

impl<'a> Ground<'a> {
    /// A request to `source`. Refuses a body whose hash is another than the URL says, and a form that is signed and has more
    /// than [`sorted::MAX_FIELDS`] fields.
    pub fn new(source: &'a Source, target: &'a str, body: &'a [u8]) -> Result<Ground<'a>, Refusal> {
        let recipe = &source.recipe;
        let hash = recipe.body_sha256.as_ref().and_then(|rule| Some((rule, query(target, &rule.query)?)));
        let form = match hash {
            None if recipe.signs_form() => sorted::fields(body)?,
            _ => Vec::new(),
        };
        if let Some((rule, _)) = hash.filter(|(rule, text)| !is_hash_of(body, rule.encoding, text)) {
            let hint = format!("the body is not the one whose hash the URL has as {}", rule.query);
            return Err(Refusal::new(Outcome::SignatureMismatch, hint));
        }
        let integrity = hash.map_or(recipe.integrity, |(rule, _)| rule.integrity);
        Ok(Ground { source, target: path_and_query(target), body, form, integrity })
    }

    /// The parts to hash, in order. A part that the request lacks makes the signature unreadable.
    pub fn parts(&'a self, terms: &'a [Term], site: &Site<'a>) -> Result<Vec<&'a [u8]>, Refusal> {
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

    fn part(&'a self, term: &'a Term, site: &Site<'a>) -> Option<&'a [u8]> {
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

fn is_hash_of(body: &[u8], encoding: Encoding, text: &str) -> bool {
    signature::decode(encoding, text).is_some_and(|hash| hash.bytes() == sha256(&[body]))
}

fn absent(term: &Term) -> Refusal {
    let what = match term {
        Term::Header(name) => format!("the header {name}"),
        Term::Tag(tag) => format!("the tag {tag}"),
        Term::Timestamp => "the timestamp".to_owned(),
        Term::Id => "the event id".to_owned(),
        _ => "a part".to_owned(),
    };
    Refusal::new(Outcome::SignatureMalformed, format!("{what}, which is signed, is absent"))
}
