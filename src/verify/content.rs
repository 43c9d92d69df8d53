//! The signed content: the recipe's template filled from the delivery, as slices of what arrived. Nothing is copied.

use crate::event::Outcome;
use crate::source::recipe::{Recipe, Term};
use crate::verify::Refusal;
use crate::verify::site::Site;

/// The parts to hash, in order. A part that the request lacks makes the signature unreadable.
pub fn parts<'a>(recipe: &'a Recipe, body: &'a [u8], site: &Site<'a>) -> Result<Vec<&'a [u8]>, Refusal> {
    recipe.content.iter().map(|term| part(term, recipe, body, site).ok_or_else(|| absent(term))).collect()
}

fn part<'a>(term: &'a Term, recipe: &'a Recipe, body: &'a [u8], site: &Site<'a>) -> Option<&'a [u8]> {
    match term {
        Term::Literal(text) => Some(text.as_bytes()),
        Term::Body => Some(body),
        Term::Timestamp => site.signed(&recipe.timestamp.as_ref()?.from),
        Term::Id => site.signed(&recipe.event.id),
        Term::Header(name) => site.header(name),
        Term::Tag(tag) => site.tag(tag),
    }
}

fn absent(term: &Term) -> Refusal {
    let what = match term {
        Term::Header(name) => format!("the header {name}"),
        Term::Tag(tag) => format!("the tag {tag}"),
        Term::Timestamp => "the timestamp".to_owned(),
        Term::Id => "the event id".to_owned(),
        Term::Literal(_) | Term::Body => "a part".to_owned(),
    };
    Refusal::new(Outcome::SignatureMalformed, format!("{what}, which is signed, is absent"))
}
