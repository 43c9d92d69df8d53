//! A form as Twilio signs it (<https://www.twilio.com/docs/usage/webhooks/webhooks-security>, the official libraries).

use std::borrow::Cow;
use std::cmp::Ordering;

use percent_encoding::percent_decode;

use crate::event::Outcome;
use crate::verify::Refusal;

/// The fields decoded, sorted by name and then by value in the order of UTF-16 code units, equal pairs once, with nothing
/// between them. Bytes that are not UTF-8 stay as they are. Refuses more than [`MAX_FIELDS`]: each costs memory and
/// comparisons before anything is believed.
pub fn fields(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = pairs.take(MAX_FIELDS + 1).map(field).collect();
    if fields.len() > MAX_FIELDS {
        return Err(Refusal::new(Outcome::SignatureMalformed, format!("a form of more than {MAX_FIELDS} fields")));
    }
    fields.sort_by(|a, b| by_code_units(&a.0, &b.0).then_with(|| by_code_units(&a.1, &b.1)));
    fields.dedup();
    Ok(fields.into_iter().flat_map(|(name, value)| [name, value]).flatten().collect())
}

fn field(pair: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end_of_name = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    let value = pair.get(end_of_name + 1..).unwrap_or_default();
    (decoded(&pair[..end_of_name]), decoded(value))
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let blank = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
    percent_decode(&text.iter().map(blank).collect::<Vec<u8>>()).collect()
}

/// As Java and JavaScript sort text: a character beyond U+FFFF stands before U+E000. Equal only for equal bytes.
fn by_code_units(a: &[u8], b: &[u8]) -> Ordering {
    let [a_text, b_text]: [Cow<'_, str>; 2] = [a, b].map(String::from_utf8_lossy);
    a_text.encode_utf16().cmp(b_text.encode_utf16()).then_with(|| a.cmp(b))
}

/// The fields of a form that is signed by its fields; Twilio sends some dozens.
pub const MAX_FIELDS: usize = 1_000;
