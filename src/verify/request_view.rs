//! Looks up the parts of a request that a recipe's locators refer to: headers, query parameters, signature tags, and values in
//! the body. A view finds values in the body only after the verifier has added the body to the view. The same functions find
//! the signed content and the event's id, type, ordering key and time, so the verifier always reads a signed value from the
//! verified bytes.

use std::borrow::Cow;
use std::iter;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::event::Delivery;
use crate::source::pointers::Pointers;
use crate::source::recipe::{Choice, JOINT, Locator};
use crate::verify::items::{BatchItem, Items, Values};
use crate::verify::{form, json};

/// The values that a recipe reads from a body, and the items of its batch. Both are empty if the body has not been parsed.
#[derive(Default)]
pub(super) struct BodyFacts<'a> {
    /// The values, one for each of the recipe's body locations.
    pub(super) values: Values<'a>,
    pub(super) items: Items<'a>,
}

impl BodyFacts<'_> {
    /// Returns true if the body contains no value that the recipe reads.
    pub(super) fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none) && self.items.list.is_empty()
    }
}

/// Returns the values and the items in a body. Parses the body as JSON, or as a form if it is not JSON. Ignores the content
/// type, which is not signed. If the content type mattered, a replay with a different content type could become a second event.
pub(super) fn body_facts<'a>(pointers: &Pointers, body: &'a [u8]) -> BodyFacts<'a> {
    if pointers.is_empty() {
        return BodyFacts::default();
    }
    match json::locate_all(&pointers.root, pointers.slots, body) {
        Some((values, items)) => BodyFacts { values, items },
        None => BodyFacts { values: form::locate(pointers, body), items: Items::default() },
    }
}

/// A tag and its value in a signature header, such as `t=1700000000`.
pub(super) struct Tag<'a> {
    /// The index of the signature group that contains the tag.
    pub(super) group: usize,
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

/// A view of one request, and of the tags of a signature group or the claims of a token. Tags of this group take precedence
/// over tags of other groups.
#[derive(Clone, Copy)]
pub(super) struct RequestView<'a> {
    target: &'a str,
    headers: &'a HeaderMap,
    tags: &'a [Tag<'a>],
    group: usize,
    claims: &'a [(String, Cow<'a, str>)],
    body: &'a [Option<Cow<'a, str>>],
    /// The values in one item of a batch. Empty if the view is not of an item.
    item: &'a [Option<Cow<'a, str>>],
}

impl<'a> RequestView<'a> {
    /// Creates a view of a request with the values in its body. The view has no tags and no claims.
    pub(super) fn new(delivery: &'a Delivery, body: &'a [Option<Cow<'a, str>>]) -> RequestView<'a> {
        RequestView { body, ..RequestView::of_head(&delivery.target, &delivery.headers) }
    }

    /// Creates a view of a request head. In this view, locators that refer to the body find nothing.
    pub(super) fn of_head(target: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
        RequestView { target, headers, tags: &[], group: 0, claims: &[], body: &[], item: &[] }
    }

    /// Returns the view with the tags of the signature header. `group` is the signature group whose tags take precedence.
    pub(super) fn with_tags(self, tags: &'a [Tag<'a>], group: usize) -> RequestView<'a> {
        RequestView { tags, group, ..self }
    }

    /// Returns the view with the claims that the proof has verified, each as its name and its text: the claims of a token, or
    /// the user name of HTTP Basic authentication.
    pub(super) fn with_claims(self, claims: &'a [(String, Cow<'a, str>)]) -> RequestView<'a> {
        RequestView { claims, ..self }
    }

    /// Returns the view with the values in the body.
    pub(super) fn with_body(self, body: &'a [Option<Cow<'a, str>>]) -> RequestView<'a> {
        RequestView { body, ..self }
    }

    /// Returns the view with the values in one item of a batch.
    pub(super) fn with_item(self, item: &'a BatchItem<'a>) -> RequestView<'a> {
        RequestView { item: &item.values, ..self }
    }

    /// Returns all values of the header `name`.
    pub(super) fn headers(&self, name: &HeaderName) -> http::header::GetAll<'a, http::HeaderValue> {
        self.headers.get_all(name)
    }

    /// Returns the values of all headers whose names consist of `prefix` and a number.
    pub(super) fn numbered_headers(&self, prefix: &'a str) -> impl Iterator<Item = &'a http::HeaderValue> + use<'a> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_one = move |name: &HeaderName| name.as_str().strip_prefix(prefix).is_some_and(is_number);
        self.headers.iter().filter(move |(name, _)| is_one(name)).map(|(_, value)| value)
    }

    /// Returns the first value of the header `name`, or `None` if the value is absent or empty.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        self.headers.get(name).map(|value| value.as_bytes()).filter(|value| !value.is_empty())
    }

    /// Returns the first value of the header `name` as text, or `None` if the value is absent, empty, not UTF-8 or longer than
    /// [`MAX_FACT`] bytes.
    pub(super) fn header_text(&self, name: &HeaderName) -> Option<String> {
        self.header(name).and_then(text).map(str::to_owned)
    }

    /// Returns the value of the tag `name` in this signature group. If this group does not have the tag, uses the first group
    /// that has it. Returns `None` if the value is absent or empty.
    pub(super) fn tag(&self, name: &str) -> Option<&'a [u8]> {
        let named = || self.tags.iter().filter(|tag| tag.name == name);
        let found = named().find(|tag| tag.group == self.group).or_else(|| named().next());
        found.map(|tag| tag.value.as_bytes()).filter(|value| !value.is_empty())
    }

    fn claim(&self, name: &str) -> Option<&'a [u8]> {
        let (_, text) = self.claims.iter().find(|(have, _)| have == name)?;
        Some(text.as_bytes()).filter(|text| !text.is_empty())
    }

    /// Returns the bytes at the first alternative of `choice` that is present. Ignores an alternative that has several fields.
    pub(super) fn signed(&self, choice: &'a Choice) -> Option<&'a [u8]> {
        choice.0.iter().find_map(|fields| match &fields[..] {
            [locator] => self.find(locator),
            _ => None,
        })
    }

    /// Returns the fields of the first alternative of `choice` whose fields are all present. Returns `None` if the fields are
    /// not UTF-8 or are longer than [`MAX_FACT`] bytes in total. Does not truncate the fields, because truncation could make
    /// two ids equal. Does not reject the delivery, because hookhold would then lose an event.
    pub(super) fn locate(&self, choice: &'a Choice) -> Option<Located<'a>> {
        let present = |(alternative, fields): (usize, &'a Vec<Locator>)| {
            let (first, rest) = fields.split_first()?;
            let rest: Vec<&[u8]> = rest.iter().map(|field| self.find(field)).collect::<Option<_>>()?;
            Some((alternative, self.find(first)?, rest))
        };
        let (alternative, first, rest) = choice.0.iter().enumerate().find_map(present)?;
        let rest = rest.into_iter().map(text).collect::<Option<_>>()?;
        let located = Located { alternative, first: text(first)?, rest };
        (located.fields().map(str::len).sum::<usize>() <= MAX_FACT).then_some(located)
    }

    /// Returns the text at `locator`, or `None` if the text is absent, empty, not UTF-8 or longer than [`MAX_FACT`] bytes.
    pub(super) fn text(&self, locator: &'a Locator) -> Option<&'a str> {
        self.find(locator).and_then(text)
    }

    /// Returns the bytes at `locator`, or `None` if the bytes are absent or empty.
    pub(super) fn find(&self, locator: &'a Locator) -> Option<&'a [u8]> {
        match locator {
            Locator::Header(name) => self.header(name),
            Locator::Tag(tag) => self.tag(tag),
            Locator::Query(name) => decoded_query(self.target, name).map(str::as_bytes),
            Locator::Const(text) => Some(text.as_bytes()),
            Locator::Claim(claim) => self.claim(claim),
            Locator::BasicUser => self.claim(BASIC_USER),
            Locator::Body(slot) => in_slot(self.body, *slot),
            Locator::Item(slot) => in_slot(self.item, *slot),
        }
    }
}

/// A value, such as the event id, that the verifier has found in a request. Most values have only one field, so the first field
/// is stored without an allocation.
pub(super) struct Located<'s> {
    /// The alternative with which the verifier found the value, as an index into the recipe's list of alternatives.
    pub(super) alternative: usize,
    first: &'s str,
    rest: Vec<&'s str>,
}

impl<'s> Located<'s> {
    /// Returns the fields of the value, in the recipe's order.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'s str> {
        iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// Returns the fields of the value, joined with [`JOINT`].
    pub(super) fn joined(&self) -> String {
        self.text().into_owned()
    }

    /// Like [`Located::joined`], but without a copy of a value that has only one field.
    pub(super) fn text(&self) -> Cow<'s, str> {
        self.rest.iter().fold(Cow::Borrowed(self.first), |joined, field| joined + JOINT + *field)
    }
}

fn in_slot<'a>(values: &'a [Option<Cow<'a, str>>], slot: usize) -> Option<&'a [u8]> {
    values.get(slot)?.as_deref().map(str::as_bytes).filter(|value| !value.is_empty())
}

/// Returns the undecoded value of the first query parameter called `name` in the request target, or `None` if the value is
/// absent or empty.
pub(super) fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    parameter(target, |have| have == name)
}

/// Like [`query`], but compares the decoded names, because a sender may percent-encode any character of a name.
fn decoded_query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    parameter(target, |have| is_same_name(have, name))
}

fn parameter(target: &str, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
    let (_, query) = target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(have, _)| is_wanted(have)));
    value.map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn is_same_name(one: &str, other: &str) -> bool {
    let is_encoded = |name: &str| name.contains('%');
    one == other || ((is_encoded(one) || is_encoded(other)) && percent_decode_str(one).eq(percent_decode_str(other)))
}

/// Removes the scheme and host from a request target in absolute form. Clients send the absolute form to proxies.
pub(super) fn path_and_query(target: &str) -> &str {
    // Nearly every target is a path, and a search for a string takes longer than this check.
    if target.starts_with('/') {
        return target;
    }
    let authority = target.find("://").map(|at| at + 3);
    let path = authority.and_then(|start| Some(start + target[start..].find('/')?));
    path.map_or(target, |start| &target[start..])
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_FACT)
}

/// Maximum length in bytes of an event id, event type, ordering key or `traceparent`, or of a text that a challenge contains.
pub(super) const MAX_FACT: usize = 512;
/// Name of the claim that contains the user name of HTTP Basic authentication.
pub(super) const BASIC_USER: &str = "user";
