//! Builds the text that Twilio signs if the body is a form (<https://www.twilio.com/docs/usage/webhooks/webhooks-security> and
//! Twilio's official libraries).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter;

use memchr::{memchr, memchr_iter, memchr2};
use percent_encoding::percent_decode;

use crate::outcome::Outcome;
use crate::source::recipe::FormJoin;
use crate::verify::verdict::Rejection;

/// Returns the signed text of a form. Decodes the fields of the form, sorts them by name and then by value in the order of
/// UTF-16 code units, and joins them as `join` says. Leaves invalid UTF-8 unchanged. Rejects a form with more than
/// [`MAX_FIELDS`] fields, because each field costs memory and comparisons before the sender is verified.
pub(super) fn text(body: &[u8], join: &FormJoin) -> Result<Vec<u8>, Rejection> {
    let mut fields = form_pairs(body);
    if fields.len() > MAX_FIELDS {
        let hint = format!("body: expected a form of at most {MAX_FIELDS} fields, found more; send fewer fields");
        return Err(Rejection::new(Outcome::SignatureMalformed, hint));
    }
    // Text that was not decoded is ASCII if the body is.
    let is_ascii = |text: &Cow<'_, [u8]>| matches!(text, Cow::Borrowed(_)) || text.is_ascii();
    if body.is_ascii() && fields.iter().all(|(name, value)| is_ascii(name) && is_ascii(value)) {
        // For ASCII text, the order of bytes equals the order of UTF-16 code units, and sorting bytes is much faster.
        fields.sort_unstable();
    } else {
        fields.sort_by(|a, b| by_code_units(&a.0, &b.0).then_with(|| by_code_units(&a.1, &b.1)));
    }
    if !join.keeps_repeated {
        fields.dedup();
    }
    let mut text = Vec::with_capacity(body.len());
    for (index, (name, value)) in fields.iter().enumerate() {
        let separator = if index == 0 { "" } else { &join.fields };
        [separator.as_bytes(), name, join.pair.as_bytes(), value].into_iter().for_each(|part| text.extend_from_slice(part));
    }
    Ok(text)
}

/// The decoded name and the decoded value of one form field.
type FormPair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Returns the fields of a form, without empty ones, but at most one more than [`MAX_FIELDS`].
fn form_pairs(body: &[u8]) -> Vec<FormPair<'_>> {
    let mut fields = Vec::with_capacity(USUAL_FIELDS);
    // Most fields contain no escape, so one search for the next escape serves all fields in front of it.
    let next_escape = |start: usize| memchr2(b'+', b'%', &body[start..]).map_or(body.len(), |at| start + at);
    let (mut start, mut escape) = (0, next_escape(0));
    for end in memchr_iter(b'&', body).chain(iter::once(body.len())) {
        let pair = &body[start..end];
        if escape < start {
            escape = next_escape(start);
        }
        start = end + 1;
        if !pair.is_empty() {
            fields.push(form_pair(pair, escape < end));
        }
        if fields.len() > MAX_FIELDS {
            break;
        }
    }
    fields
}

fn form_pair(pair: &[u8], has_escapes: bool) -> FormPair<'_> {
    let end_of_name = memchr(b'=', pair).unwrap_or(pair.len());
    let (name, value) = (&pair[..end_of_name], pair.get(end_of_name + 1..).unwrap_or_default());
    if has_escapes { (decoded(name), decoded(value)) } else { (name.into(), value.into()) }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'+', text).is_none() {
        return percent_decode(text).into();
    }
    let space = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
    percent_decode(&text.iter().map(space).collect::<Vec<u8>>()).collect()
}

/// Compares two UTF-8 texts in the order of UTF-16 code units, as Java and JavaScript do. This order differs from the order of
/// bytes in one case: characters above U+FFFF (first byte F0 to F4) sort before U+E000 to U+FFFF (first byte EE or EF). To sort
/// EE and EF after F4, the comparison replaces them with FE and FF, which do not occur in UTF-8.
fn by_code_units(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |byte: &u8| match byte {
        0xEE | 0xEF => byte + 0x10,
        0xFE | 0xFF => byte - 0x10,
        _ => *byte,
    };
    a.iter().map(weight).cmp(b.iter().map(weight))
}

/// Maximum number of fields in a signed form. Twilio sends a few dozen fields.
pub(super) const MAX_FIELDS: usize = 1_000;
/// Number of fields for which the list of fields initially has room.
const USUAL_FIELDS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_fields_sort_by_utf16_code_units() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut below = 0;
        for _ in 0..20_000 {
            let mut text = || -> String {
                let edges = ["", "a", "é", "\u{d7ff}", "\u{e000}", "\u{ffff}", "\u{10000}", "\u{10ffff}", "\u{fffd}"];
                (0..3).map(|_| random.choice(edges).expect("not empty")).collect()
            };
            let (a, b) = (text(), text());
            assert_eq!(by_code_units(a.as_bytes(), b.as_bytes()), a.encode_utf16().cmp(b.encode_utf16()), "{a:?} {b:?}");
            below += usize::from(a < b && a.encode_utf16().gt(b.encode_utf16()));
        }
        assert!(below > 100, "only {below} pairs sort differently by bytes");
    }

    #[test]
    fn each_escape_is_decoded_wherever_its_field_stands() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let pieces = ["a", "b", "=", "&", "+", "%41", "%2b", "%26", "%z"];
        let mut decoded = 0;
        for _ in 0..20_000 {
            let size = random.usize(..16);
            let form: String = (0..size).map(|_| random.choice(pieces).expect("not empty")).collect();
            let found = form_pairs(form.as_bytes());
            let model = form_urlencoded::parse(form.as_bytes());
            let model: Vec<_> = model.map(|(name, value)| [name, value].map(|text| text.as_bytes().to_vec())).collect();
            decoded += found.iter().filter(|(_, value)| matches!(value, Cow::Owned(_))).count();
            let found: Vec<_> = found.into_iter().map(|(name, value)| [name.into_owned(), value.into_owned()]).collect();
            assert_eq!(found, model, "{form}");
        }
        assert!(decoded > 1_000, "only {decoded} values were decoded");
    }

    #[test]
    fn ascii_forms_sort_like_all_other_forms() {
        let text = |form: &str| {
            String::from_utf8(super::text(form.as_bytes(), &FormJoin::default()).expect("few fields")).expect("UTF-8")
        };
        let ascii = "b=2&a=%2B+x&b=1&b=2&B=&a";
        assert_eq!(text(ascii), "Baa+ xb1b2");
        assert_eq!(text(&format!("{ascii}&\u{10000}=&\u{ffff}=")), "Baa+ xb1b2\u{10000}\u{ffff}");
    }
}
