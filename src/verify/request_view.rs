//! The parts of a request that locators can point to: headers, the target's query, the tags of one signature group, and the
//! recipe's pointers into the body, once the body has been read. The signed content and the event's facts are looked up
//! by the same functions, so the verified bytes and the extracted facts are the same.

use std::borrow::Cow;
use std::iter;

use http::{HeaderMap, HeaderName};

use crate::source::pointers::Pointers;
use crate::source::recipe::{Choice, Locator};
use crate::verify::signature::Tag;
use crate::verify::{form, json};

/// One request, as one group of its signatures sees it.
pub(super) struct RequestView<'a> {
    target: &'a str,
    headers: &'a HeaderMap,
    tags: &'a [Tag<'a>],
    group: usize,
    body: Vec<Option<Cow<'a, str>>>,
}

impl<'a> RequestView<'a> {
    /// A view without the body: locators into it find nothing.
    pub(super) fn new(target: &'a str, headers: &'a HeaderMap, tags: &'a [Tag<'a>], group: usize) -> RequestView<'a> {
        RequestView { target, headers, tags, group, body: Vec::new() }
    }

    /// Reads the body as JSON, else as a form. The body itself decides, not the content type, which is not signed: a replay
    /// with another content type must not become another event.
    pub(super) fn with_body(self, pointers: &Pointers, body: &'a [u8]) -> RequestView<'a> {
        if pointers.is_empty() {
            return self;
        }
        let json = json::locate(&pointers.root, pointers.slots, body);
        RequestView { body: json.unwrap_or_else(|| form::locate(pointers, body)), ..self }
    }

    /// Returns the first value of a header, unless empty.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        self.headers.get(name).map(|value| value.as_bytes()).filter(|value| !value.is_empty())
    }

    /// Returns a header that is UTF-8 and at most [`MAX_FACT`] long.
    pub(super) fn header_text(&self, name: &HeaderName) -> Option<String> {
        self.header(name).and_then(text).map(str::to_owned)
    }

    /// Returns a tag of this group, else of the first group that has it; unless empty.
    pub(super) fn tag(&self, name: &str) -> Option<&'a [u8]> {
        let named = || self.tags.iter().filter(|tag| tag.name == name);
        let found = named().find(|tag| tag.group == self.group).or_else(|| named().next());
        found.map(|tag| tag.value.as_bytes()).filter(|value| !value.is_empty())
    }

    /// Returns the bytes that a choice of single headers and tags points to.
    pub(super) fn signed(&self, choice: &Choice) -> Option<&'a [u8]> {
        choice.0.iter().find_map(|fields| match &fields[..] {
            [Locator::Header(name)] => self.header(name),
            [Locator::Tag(tag)] => self.tag(tag),
            _ => None,
        })
    }

    /// Returns the fields of the first alternative that is completely present. Text longer than [`MAX_FACT`] bytes or not
    /// UTF-8 counts as absent: cutting it could make two events one, and rejecting the delivery would lose a genuine one.
    pub(super) fn locate<'s>(&'s self, choice: &'s Choice) -> Option<Located<'s>> {
        let present = |(alternative, fields): (usize, &'s Vec<Locator>)| {
            let (first, rest) = fields.split_first()?;
            let rest: Vec<&[u8]> = rest.iter().map(|field| self.find(field)).collect::<Option<_>>()?;
            Some((alternative, self.find(first)?, rest))
        };
        let (alternative, first, rest) = choice.0.iter().enumerate().find_map(present)?;
        let rest = rest.into_iter().map(text).collect::<Option<_>>()?;
        let located = Located { alternative, first: text(first)?, rest };
        (located.fields().map(str::len).sum::<usize>() <= MAX_FACT).then_some(located)
    }

    /// Returns the text at one locator. Text longer than [`MAX_FACT`] bytes or not UTF-8 counts as absent.
    pub(super) fn text<'s>(&'s self, locator: &'s Locator) -> Option<&'s str> {
        self.find(locator).and_then(text)
    }

    /// Returns the bytes at one locator, unless empty.
    pub(super) fn find<'s>(&'s self, locator: &'s Locator) -> Option<&'s [u8]> {
        match locator {
            Locator::Header(name) => self.header(name),
            Locator::Tag(tag) => self.tag(tag),
            Locator::Query(name) => query(self.target, name).map(str::as_bytes),
            Locator::Const(text) => Some(text.as_bytes()),
            Locator::Body(slot) => self.body.get(*slot)?.as_deref().map(str::as_bytes).filter(|value| !value.is_empty()),
        }
    }
}

/// A fact as found in the request. Most have one field, so the first is stored without an allocation.
pub(super) struct Located<'s> {
    /// The index of the recipe's alternative.
    pub(super) alternative: usize,
    first: &'s str,
    rest: Vec<&'s str>,
}

impl<'s> Located<'s> {
    /// Returns the fields, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'s str> {
        iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// Joins the fields with [`JOINT`].
    pub(super) fn joined(&self) -> String {
        self.rest.iter().fold(self.first.to_owned(), |joined, field| joined + JOINT + field)
    }
}

/// Returns the first query parameter with that name, as received, unless empty.
pub(super) fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(have, _)| *have == name));
    value.map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// Removes scheme and host from a target in absolute form, which clients send to proxies.
pub(super) fn path_and_query(target: &str) -> &str {
    let authority = target.find("://").filter(|_| !target.starts_with('/')).map(|at| at + 3);
    let path = authority.and_then(|start| Some(start + target[start..].find('/')?));
    path.map_or(target, |start| &target[start..])
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_FACT)
}

/// The longest id, type, ordering key, traceparent or echo of a challenge, in bytes.
pub(super) const MAX_FACT: usize = 512;
/// Separates the fields of an id, type or ordering key.
pub(super) const JOINT: &str = ".";
