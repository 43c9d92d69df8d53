//! Takes a signature header apart: repeats, then groups, then items, then tag and value. Tags that no recipe takes are
//! never errors; a delivery on which no readable signature remains is refused.

use std::iter;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_PAD_INDIFFERENT};
use http::header::GetAll;
use http::{HeaderMap, HeaderValue};

use crate::outcome::Outcome;
use crate::source::recipe::{Encoding, Recipe, Signature};
use crate::verify::Rejection;
use crate::verify::mac::{Code, MAX_CODE};

/// What a delivery's signature header holds.
pub struct Signatures<'a> {
    /// How many groups there are, at most [`MAX_GROUPS`].
    pub groups: usize,
    /// Every tag that is not a signature: its group, name and value.
    pub tags: Vec<(usize, &'a str, &'a str)>,
    codes: Vec<(usize, Code)>,
}

impl Signatures<'_> {
    /// True without one readable signature.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// The signatures of one group, decoded, all of the right length.
    pub fn of(&self, group: usize) -> impl Iterator<Item = Code> + Clone {
        self.codes.iter().filter(move |(of, _)| *of == group).map(|(_, code)| *code)
    }
}

/// All values of the first of the recipe's signature headers that the request has.
pub fn header<'a>(recipe: &Recipe, headers: &'a HeaderMap) -> Result<GetAll<'a, HeaderValue>, Rejection> {
    let names = &recipe.signature.from;
    let mut all = names.iter().map(|name| headers.get_all(name));
    all.find(|values| values.iter().next().is_some()).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        Rejection::new(Outcome::SignatureMissing, format!("the request has no header {}", names.join(" or ")))
    })
}

/// Reads the signatures of a request. Refuses too many groups, because each costs a hash over the body.
pub fn read<'a>(recipe: &'a Recipe, headers: &'a HeaderMap) -> Result<Signatures<'a>, Rejection> {
    let grammar = &recipe.signature;
    let values = header(recipe, headers)?.into_iter().filter_map(|value| value.to_str().ok());
    let mut found = Signatures { groups: 0, tags: Vec::new(), codes: Vec::new() };
    for group in values.flat_map(|value| split(value, grammar.groups.as_deref())) {
        if found.groups == MAX_GROUPS {
            return Err(Rejection::new(Outcome::SignatureMalformed, format!("more than {MAX_GROUPS} groups of signatures")));
        }
        for item in split(group, grammar.items.as_deref()) {
            found.take(recipe, grammar, item);
        }
        found.groups += 1;
    }
    if !recipe.reads_tags {
        // Every group signs the same content: hashed once.
        found.groups = found.groups.min(1);
        found.codes.iter_mut().for_each(|(group, _)| *group = 0);
    }
    Ok(found)
}

/// The refusal of a header without one readable signature.
pub fn unreadable(recipe: &Recipe) -> Rejection {
    let Signature { take, prefix, .. } = &recipe.signature;
    let looked_for = match (take.is_empty(), prefix.is_empty()) {
        (false, _) => format!("with tag {}", take.join(" or ")),
        (true, false) => format!("after {prefix}"),
        (true, true) => "at all".to_owned(),
    };
    let (size, encoding) = (recipe.algorithm.size(), recipe.encoding.word());
    Rejection::new(Outcome::SignatureMalformed, format!("no signature of {size} bytes in {encoding} {looked_for}"))
}

impl<'a> Signatures<'a> {
    fn take(&mut self, recipe: &Recipe, grammar: &Signature, item: &'a str) {
        let trim = |text: &'a str| if grammar.trim { text.trim() } else { text };
        let value = match &grammar.pair {
            None => trim(item),
            Some(pair) => {
                let Some((tag, value)) = cut(item, pair) else { return };
                let (tag, value) = (trim(tag), trim(value));
                if !grammar.take.iter().any(|take| take == tag) {
                    return self.tags.push((self.groups, tag, value));
                }
                value
            }
        };
        let code = value.strip_prefix(grammar.prefix.as_str()).and_then(|text| decode(recipe.encoding, text));
        self.codes.extend(code.filter(|code| code.bytes().len() == recipe.algorithm.size()).map(|code| (self.groups, code)));
    }
}

fn split<'a>(text: &'a str, separator: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let mut rest = Some(text);
    let parts = iter::from_fn(move || match separator.and_then(|separator| cut(rest?, separator)) {
        Some((part, after)) => rest.replace(after).and(Some(part)),
        None => rest.take(),
    });
    parts.filter(|part| !part.is_empty())
}

/// Cuts at the first separator: one character, as a rule, which `str` finds faster as such than as a text.
fn cut<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    match separator.as_bytes() {
        [character] => text.split_once(char::from(*character)),
        _ => text.split_once(separator),
    }
}

/// The bytes of a code of any length up to [`MAX_CODE`]; `None` when it is not written so.
pub fn decode(encoding: Encoding, text: &str) -> Option<Code> {
    let mut bytes = [0; MAX_CODE];
    let size = match encoding {
        Encoding::Hex => base16ct::mixed::decode(text, &mut bytes).ok()?.len(),
        Encoding::Base64 => STANDARD.decode_slice(text, &mut bytes).ok()?,
        Encoding::Base64Url => URL_SAFE_PAD_INDIFFERENT.decode_slice(text, &mut bytes).ok()?,
    };
    Some(Code::new(bytes, size))
}

/// How many groups of signatures a request may carry. A provider that rolls secrets sends two.
pub const MAX_GROUPS: usize = 8;
