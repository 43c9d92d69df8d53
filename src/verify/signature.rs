//! Parses signature headers. Splits a header value into groups, a group into items, and an item into a tag and a value. Accepts
//! unknown tags. The verifier rejects a delivery without a readable signature.

use std::iter;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_PAD_INDIFFERENT};
use http::header::GetAll;
use http::{HeaderMap, HeaderValue};

use crate::outcome::Outcome;
use crate::source::recipe::{Encoding, MacProof, SignatureFormat};
use crate::verify::mac::{MAX_MAC, Mac};
use crate::verify::verdict::Rejection;

/// The signatures and tags that a request's signature headers contain.
pub(super) struct Signatures<'a> {
    /// The number of signature groups in the request, at most [`MAX_GROUPS`].
    pub(super) groups: usize,
    /// The tags whose values are not signatures.
    pub(super) tags: Vec<Tag<'a>>,
    macs: Vec<(usize, Mac)>,
}

/// A tag and its value in a signature header, such as `t=1700000000`.
pub(super) struct Tag<'a> {
    /// The index of the signature group that contains the tag.
    pub(super) group: usize,
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

impl Signatures<'_> {
    /// Returns true if the signature headers contain no readable signature.
    pub(super) fn is_empty(&self) -> bool {
        self.macs.is_empty()
    }

    /// Returns the decoded signatures of one signature group. Each signature is as long as the MACs of the recipe's algorithm.
    pub(super) fn of(&self, group: usize) -> impl Iterator<Item = Mac> + Clone {
        self.macs.iter().filter(move |(of, _)| *of == group).map(|(_, mac)| *mac)
    }
}

/// Returns all values of the signature header. If the recipe lists several signature headers, uses the first one that the
/// request contains. Rejects a request that contains none of the headers.
pub(super) fn header<'a>(proof: &MacProof, headers: &'a HeaderMap) -> Result<GetAll<'a, HeaderValue>, Rejection> {
    let names = &proof.signature.from;
    let mut all = names.iter().map(|name| headers.get_all(name));
    all.find(|values| values.iter().next().is_some()).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let names = names.join(" or ");
        let hint = format!("signature: expected the header {names}, found none; configure a secret in the sender's dashboard");
        Rejection::new(Outcome::SignatureMissing, hint)
    })
}

/// Parses the signature headers of a request. Rejects a request with more than [`MAX_GROUPS`] signature groups, because the
/// verifier must hash the body once for each group.
pub(super) fn read<'a>(proof: &'a MacProof, headers: &'a HeaderMap) -> Result<Signatures<'a>, Rejection> {
    let format = &proof.signature;
    let values = header(proof, headers)?.into_iter().filter_map(|value| value.to_str().ok());
    let mut found = Signatures { groups: 0, tags: Vec::new(), macs: Vec::new() };
    for group in values.flat_map(|value| split(value, format.groups.as_deref())) {
        if found.groups == MAX_GROUPS {
            return Err(Rejection::new(
                Outcome::SignatureMalformed,
                format!(
                    "signature: expected at most {MAX_GROUPS} signature groups, found more; compare the header with the \
                     provider's documentation"
                ),
            ));
        }
        for item in split(group, format.items.as_deref()) {
            found.add(proof, format, item);
        }
        found.groups += 1;
    }
    if !proof.reads_tags {
        // All groups sign the same content. Merging the groups into one reduces the work to one hash.
        found.groups = found.groups.min(1);
        found.macs.iter_mut().for_each(|(group, _)| *group = 0);
    }
    Ok(found)
}

/// Returns the rejection for a signature header that contains no readable signature.
pub(super) fn unreadable(proof: &MacProof) -> Rejection {
    let SignatureFormat { take, prefix, .. } = &proof.signature;
    let looked_for = match (take.is_empty(), prefix.is_empty()) {
        (false, _) => format!(" with tag {}", take.join(" or ")),
        (true, false) => format!(" with prefix {prefix}"),
        (true, true) => String::new(),
    };
    let (size, encoding) = (proof.algorithm.size(), proof.encoding.word());
    let hint = format!(
        "signature: expected {size} bytes in {encoding}{looked_for}, found none; compare the header with the provider's \
         documentation"
    );
    Rejection::new(Outcome::SignatureMalformed, hint)
}

impl<'a> Signatures<'a> {
    /// Parses one item of the current signature group and adds the item as a tag or a signature. Ignores an unreadable item.
    fn add(&mut self, proof: &MacProof, format: &SignatureFormat, item: &'a str) {
        let trim = |text: &'a str| if format.trim { text.trim() } else { text };
        let value = match &format.pair {
            None => trim(item),
            Some(pair) => {
                let Some((name, value)) = cut(item, pair) else { return };
                let (name, value) = (trim(name), trim(value));
                if !format.take.iter().any(|take| take == name) {
                    return self.tags.push(Tag { group: self.groups, name, value });
                }
                value
            }
        };
        let mac = value.strip_prefix(format.prefix.as_str()).and_then(|text| decode(proof.encoding, text));
        self.macs.extend(mac.filter(|mac| mac.bytes().len() == proof.algorithm.size()).map(|mac| (self.groups, mac)));
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

/// Splits `text` at the first `separator`. Most separators are a single character, and searching for a `char` is faster than
/// searching for a string.
fn cut<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    match separator.as_bytes() {
        [character] => text.split_once(char::from(*character)),
        _ => text.split_once(separator),
    }
}

/// Decodes the text of a MAC or a hash. Returns `None` if the text is not valid in `encoding` or is longer than [`MAX_MAC`]
/// bytes after decoding.
pub(super) fn decode(encoding: Encoding, text: &str) -> Option<Mac> {
    let mut bytes = [0; MAX_MAC];
    let size = match encoding {
        Encoding::Hex => base16ct::mixed::decode(text, &mut bytes).ok()?.len(),
        Encoding::Base64 => STANDARD.decode_slice(text, &mut bytes).ok()?,
        Encoding::Base64Url => URL_SAFE_PAD_INDIFFERENT.decode_slice(text, &mut bytes).ok()?,
    };
    Some(Mac::new(bytes, size))
}

/// Maximum number of signature groups in a request. Providers send two groups while they rotate a secret.
pub(super) const MAX_GROUPS: usize = 8;
