//! Parses the signatures of a request. Splits a header value into groups, a group into items, and an item into a tag and a value. Accepts
//! unknown tags. The verifier rejects a delivery without a readable signature.

use std::fmt::Display;
use std::iter;

use memchr::memchr;
use smallvec::SmallVec;

use crate::outcome::Outcome;
use crate::source::recipe::{SignatureFormat, SignatureLocator, SignedContent};
use crate::source::work_limits::MAX_GROUPS;
use crate::verify::code::Code;
use crate::verify::request_view::{RequestView, Tag};
use crate::verify::verdict::Rejection;

/// The signatures and tags of a request.
pub(super) struct Signatures<'a> {
    /// The number of signature groups in the request, at most [`SignatureLimits::groups`]. 1 if all groups sign the same content.
    pub(super) groups: usize,
    /// The tags whose values are not signatures.
    pub(super) tags: Vec<Tag<'a>>,
    codes: SmallVec<[StatedCode; 1]>,
}

/// The maximum numbers of signature groups and of readable signatures in a request.
#[derive(Clone, Copy)]
pub(super) struct SignatureLimits {
    pub(super) groups: usize,
    pub(super) signatures: usize,
}

/// One signature of a request.
struct StatedCode {
    group: usize,
    /// Index of the locator at which the signature was found.
    slot: usize,
    code: Code,
}

impl Signatures<'_> {
    /// Returns the decoded signatures of one signature group. If `slot` is not `None`, returns only the signatures at the
    /// locator with this index.
    pub(super) fn of(&self, group: usize, slot: Option<usize>) -> impl Iterator<Item = &Code> {
        let codes = self.codes.iter().filter(move |stated| stated.group == group && slot.is_none_or(|slot| stated.slot == slot));
        codes.map(|stated| &stated.code)
    }
}

/// Texts that contain signatures, each with the index of its locator. Nearly every request has one.
type Texts<'a> = SmallVec<[(usize, &'a str); 1]>;

/// Returns the texts that contain the signatures of a request, each with the index of its locator. If the recipe lists several
/// locators, uses the first one that the request contains, or all of them if each locator belongs to one key. Rejects a request
/// that contains none of them.
fn texts<'a>(signed: &'a SignedContent, view: &RequestView<'a>) -> Result<Texts<'a>, Rejection> {
    let mut found = Texts::new();
    let mut is_present = false;
    for (slot, locator) in signed.signature.from.iter().enumerate() {
        let mut add = |value: &'a [u8]| {
            is_present = true;
            found.extend(std::str::from_utf8(value).ok().filter(|text| text.is_ascii()).map(|text| (slot, text)));
        };
        match locator {
            SignatureLocator::Header(name) => view.headers(name).iter().for_each(|value| add(value.as_bytes())),
            SignatureLocator::NumberedHeaders(prefix) => view.numbered_headers(prefix).for_each(|value| add(value.as_bytes())),
            SignatureLocator::Other(locator) => view.find(locator).into_iter().for_each(&mut add),
        }
        if is_present && !signed.in_slots {
            break;
        }
    }
    if is_present { Ok(found) } else { Err(missing(signed)) }
}

/// Returns the rejection for a request that contains no signature.
pub(super) fn missing(signed: &SignedContent) -> Rejection {
    let is_header = |locator: &SignatureLocator| !matches!(locator, SignatureLocator::Other(_));
    let names: Vec<String> = signed.signature.from.iter().map(SignatureLocator::name).collect();
    let kind = if signed.signature.from.iter().all(is_header) { "header " } else { "" };
    let names = names.join(" or ");
    let hint = format!("signature: expected the {kind}{names}, found none; configure a secret in the sender's dashboard");
    Rejection::new(Outcome::SignatureMissing, hint)
}

/// Parses the signatures of a request. Rejects a request without a readable signature, and a request with more signatures than
/// `limits` allow. The limit on groups applies only if the verifier must hash the body once for each group.
pub(super) fn read<'a>(
    signed: &'a SignedContent,
    view: &RequestView<'a>,
    limits: SignatureLimits,
) -> Result<Signatures<'a>, Rejection> {
    let format = &signed.signature;
    let mut found = Signatures { groups: 0, tags: Vec::new(), codes: SmallVec::new() };
    // A proxy may join the values of a repeated header with a comma (RFC 9110). No encoding of a signature contains a comma.
    let is_bare = format.groups.is_none() && format.items.is_none() && format.pair.is_none() && !format.prefix.contains(',');
    let groups = if is_bare { Some(",") } else { format.groups.as_deref() };
    let texts = texts(signed, view)?;
    for (slot, text) in texts.iter().copied() {
        for group in split(text, groups) {
            if found.groups == limits.groups && signed.reads_tags {
                let count = texts.iter().map(|(_, text)| split(text, groups).count()).sum::<usize>();
                return Err(too_many(limits.groups, "signature groups", count));
            }
            for item in split(group, format.items.as_deref()) {
                found.add(signed, format, slot, item);
                // A signature inside the body may be as long as the body.
                if found.codes.len() > limits.signatures {
                    return Err(too_many(limits.signatures, "signatures", "more"));
                }
                if found.tags.len() > MAX_TAGS {
                    return Err(too_many(MAX_TAGS, "tags", "more"));
                }
            }
            found.groups += 1;
        }
    }
    if found.codes.is_empty() {
        return Err(unreadable(signed));
    }
    if !signed.reads_tags {
        // All groups sign the same content. Merging the groups into one reduces the work to one hash.
        found.groups = found.groups.min(1);
        found.codes.iter_mut().for_each(|stated| stated.group = 0);
    }
    Ok(found)
}

fn too_many(most: usize, what: &str, found: impl Display) -> Rejection {
    // hookhold checks each group with each key, so a source with many keys accepts fewer groups.
    let remedy = if most < MAX_GROUPS { "; remove unused secrets or public keys of this source" } else { "" };
    let hint = format!("signature: expected at most {most} {what}, found {found}{remedy}");
    Rejection::new(Outcome::SignatureMalformed, hint)
}

/// Returns the rejection for a request that contains no readable signature.
pub(super) fn unreadable(signed: &SignedContent) -> Rejection {
    let SignatureFormat { take, prefix, .. } = &signed.signature;
    let looked_for = match (take.is_empty(), prefix.is_empty()) {
        (false, _) => format!(" with tag {}", take.join(" or ")),
        (true, false) => format!(" with prefix {prefix}"),
        (true, true) => String::new(),
    };
    let size = signed.code_size.map_or("a signature".to_owned(), |size| format!("{size} bytes"));
    let hint = format!(
        "signature: expected {size} in {}{looked_for}, found none; compare the header with the provider's documentation",
        signed.encoding.word()
    );
    Rejection::new(Outcome::SignatureMalformed, hint)
}

impl<'a> Signatures<'a> {
    /// Parses one item of the current signature group and adds the item as a tag or a signature. Ignores an unreadable item,
    /// and a signature of another length than those of the recipe's algorithm.
    fn add(&mut self, signed: &SignedContent, format: &SignatureFormat, slot: usize, item: &'a str) {
        let trim = |text: &'a str| if format.trim { text.trim() } else { text };
        let value = match &format.pair {
            None => trim(item),
            Some(pair) => {
                let Some((name, value)) = cut(item, pair) else { return };
                let (name, value) = (trim(name), trim(value));
                if !format.take.iter().any(|take| take == name) {
                    // A recipe with a signature in each item reads no tags.
                    self.tags.extend((!signed.by_item).then_some(Tag { group: self.groups, name, value }));
                    return;
                }
                value
            }
        };
        // Where another character separates the items, a joined header leaves a comma after its first values.
        let value = if format.trim { value.trim_end_matches(',') } else { value };
        // Most recipes have no prefix, and a comparison with an empty string takes as long as decoding a code on some processors.
        let text = if format.prefix.is_empty() { Some(value) } else { value.strip_prefix(format.prefix.as_str()) };
        let code = text.and_then(|text| Code::decode(signed.encoding, text));
        let code = code.filter(|code| signed.code_size.is_none_or(|size| code.bytes().len() == size));
        self.codes.extend(code.map(|code| StatedCode { group: self.groups, slot, code }));
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

/// Splits `text` at the first `separator`. Most separators are a single character, and searching for a byte is faster than
/// searching for a string.
fn cut<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    match separator.as_bytes() {
        [byte] => memchr(*byte, text.as_bytes()).map(|at| (&text[..at], &text[at + 1..])),
        _ => text.split_once(separator),
    }
}

/// Maximum number of MACs or hashes in a request. DocuSign sends one for each of at most 100 keys.
pub(super) const MAX_CODES: usize = 128;
/// Maximum number of tags in a request that are no signatures. Providers send at most a few.
const MAX_TAGS: usize = 128;
