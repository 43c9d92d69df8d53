//! Where facts are looked up: headers, the target's query, the tags of one signature group, and what the recipe's pointers find
//! in the body, once that is opened. The signed content and the event's facts look things up alike, so what was signed is what is believed.

use std::borrow::Cow;
use std::iter;

use http::{HeaderMap, HeaderName};

use crate::source::pointers::Pointers;
use crate::source::recipe::{Choice, Locator};
use crate::verify::{form, json};

/// The places of one delivery that locators can point to.
pub struct RequestView<'a> {
    target: &'a str,
    headers: &'a HeaderMap,
    tags: &'a [(usize, &'a str, &'a str)],
    group: usize,
    body: Vec<Option<Cow<'a, str>>>,
}

impl<'a> RequestView<'a> {
    /// The delivery as one group of signatures sees it, its body still closed.
    pub fn new(target: &'a str, headers: &'a HeaderMap, tags: &'a [(usize, &'a str, &'a str)], group: usize) -> RequestView<'a> {
        RequestView { target, headers, tags, group, body: Vec::new() }
    }

    /// Opens the body: JSON, else a form. The body itself decides, not the content type, which nobody signs: a replay under
    /// another one must not become another event.
    pub fn with_body(self, pointers: &Pointers, body: &'a [u8]) -> RequestView<'a> {
        if pointers.is_empty() {
            return self;
        }
        let json = json::locate(&pointers.root, pointers.slots, body);
        RequestView { body: json.unwrap_or_else(|| form::locate(pointers, body)), ..self }
    }

    /// The first value of a header, unless empty.
    pub fn header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        self.headers.get(name).map(|value| value.as_bytes()).filter(|value| !value.is_empty())
    }

    /// A header that is UTF-8 and no longer than [`MAX_FACT`].
    pub fn header_text(&self, name: &HeaderName) -> Option<String> {
        self.header(name).and_then(text).map(str::to_owned)
    }

    /// A tag of this group, else of the first group that has it; unless empty.
    pub fn tag(&self, tag: &str) -> Option<&'a [u8]> {
        let named = || self.tags.iter().filter(|(_, name, _)| *name == tag);
        let found = named().find(|(group, ..)| *group == self.group).or_else(|| named().next());
        found.map(|(_, _, value)| value.as_bytes()).filter(|value| !value.is_empty())
    }

    /// The bytes that a choice of single headers and tags points to.
    pub fn signed(&self, choice: &Choice) -> Option<&'a [u8]> {
        choice.0.iter().find_map(|fields| match &fields[..] {
            [Locator::Header(name)] => self.header(name),
            [Locator::Tag(tag)] => self.tag(tag),
            _ => None,
        })
    }

    /// The fields of the first alternative that is wholly present. Text beyond [`MAX_FACT`] bytes or not UTF-8 counts as
    /// absent: cutting it could make two events one, refusing it would lose a genuine one.
    pub fn fact<'s>(&'s self, choice: &'s Choice) -> Option<Located<'s>> {
        let present = |(alternative, fields): (usize, &'s Vec<Locator>)| {
            let (first, rest) = fields.split_first()?;
            let rest: Vec<&[u8]> = rest.iter().map(|field| self.find(field)).collect::<Option<_>>()?;
            Some((alternative, self.find(first)?, rest))
        };
        let (alternative, first, rest) = choice.0.iter().enumerate().find_map(present)?;
        let rest = rest.into_iter().map(text).collect::<Option<_>>()?;
        let fact = Located { alternative, first: text(first)?, rest };
        (fact.fields().map(str::len).sum::<usize>() <= MAX_FACT).then_some(fact)
    }

    /// The text that one locator points to. Beyond [`MAX_FACT`] bytes or not UTF-8 it counts as absent.
    pub fn text<'s>(&'s self, locator: &'s Locator) -> Option<&'s str> {
        self.find(locator).and_then(text)
    }

    /// What one locator points to, unless empty.
    pub fn find<'s>(&'s self, locator: &'s Locator) -> Option<&'s [u8]> {
        match locator {
            Locator::Header(name) => self.header(name),
            Locator::Tag(tag) => self.tag(tag),
            Locator::Query(name) => query(self.target, name).map(str::as_bytes),
            Locator::Const(text) => Some(text.as_bytes()),
            Locator::Body(slot) => self.body.get(*slot)?.as_deref().map(str::as_bytes).filter(|value| !value.is_empty()),
        }
    }
}

/// A fact as it was found: one text, as a rule.
pub struct Located<'s> {
    /// Which of the recipe's alternatives it is.
    pub alternative: usize,
    first: &'s str,
    rest: Vec<&'s str>,
}

impl<'s> Located<'s> {
    /// Its fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &'s str> {
        iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// Its fields with [`JOINT`] between them.
    pub fn joined(&self) -> String {
        self.rest.iter().fold(self.first.to_owned(), |joined, field| joined + JOINT + field)
    }
}

/// The first query parameter of that name, as it arrived, unless empty.
pub fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(have, _)| *have == name));
    value.map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// A target without scheme and host, with which it may arrive as if to a proxy.
pub fn path_and_query(target: &str) -> &str {
    let authority = target.find("://").filter(|_| !target.starts_with('/')).map(|at| at + 3);
    let path = authority.and_then(|start| Some(start + target[start..].find('/')?));
    path.map_or(target, |start| &target[start..])
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_FACT)
}

/// The longest id, type, ordering key, traceparent or echo of a challenge, in bytes.
pub const MAX_FACT: usize = 512;
/// Stands between the fields of an id, type or ordering key.
pub const JOINT: &str = ".";
