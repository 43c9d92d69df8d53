//! Undoes changes that API gateways, serverless platforms and web frameworks make to a whole body: they encode it, or put it
//! into another document.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use serde_json::Value;

/// A body that the sender may have signed: the identifier of the change, the change, and the bytes.
pub(super) type Unwrapped = (&'static str, String, Vec<u8>);

/// Returns the bodies that the sender may have signed if a gateway changed the whole body, at most [`MAX_BODIES`].
pub(super) fn all(body: &[u8]) -> Vec<Unwrapped> {
    let text = body.trim_ascii();
    let mut found: Vec<Unwrapped> = Vec::new();
    found.extend(of_base64(text).map(|bytes| (BASE64, "the body was encoded in Base64".to_owned(), bytes)));
    if let Ok(value) = serde_json::from_slice::<Value>(text) {
        found.extend(of_json(value, 0));
    }
    found.extend(of_form(body));
    found.push((BASE64, "the body was decoded from Base64".to_owned(), STANDARD.encode(body).into_bytes()));
    found.extend(std::str::from_utf8(body).ok().filter(|text| text.starts_with(['{', '['])).into_iter().flat_map(in_form));
    let mut seen = BTreeSet::new();
    found.retain(|(_, _, bytes)| bytes != body && seen.insert(bytes.clone()));
    found.truncate(MAX_BODIES);
    found
}

/// Returns the forms out of which a framework may have taken a JSON text.
fn in_form(json: &str) -> Vec<Unwrapped> {
    let mut found = Vec::new();
    for name in FIELDS {
        for set in [COMPONENT, GO] {
            let value = utf8_percent_encode(json, set).to_string();
            for value in [value.replace("%20", "+"), value] {
                let what = format!("the value of the form field {name} was taken out of the form");
                found.push((FORM, what, format!("{name}={value}").into_bytes()));
            }
        }
    }
    found
}

fn of_base64(text: &[u8]) -> Option<Vec<u8>> {
    let lines: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = STANDARD_PAD_INDIFFERENT.decode(&lines).or_else(|_| URL_SAFE_PAD_INDIFFERENT.decode(&lines));
    decoded.ok().filter(|bytes| !bytes.is_empty())
}

/// Returns the text inside a JSON string, or the texts in the members of a JSON object such as the event of a serverless function.
/// Reads at most [`MAX_NESTING`] levels of objects and lists. A queue puts its messages into a list.
fn of_json(value: Value, depth: usize) -> Vec<Unwrapped> {
    match value {
        Value::String(text) => {
            let inner = serde_json::from_str::<String>(&text).ok();
            let texts = [Some(text), inner].into_iter().flatten();
            texts.map(|text| (STRINGIFIED, "the body was written as a JSON string".to_owned(), text.into_bytes())).collect()
        }
        Value::Object(members) => {
            let (texts, inner): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, value)| value.is_string());
            let texts = texts.iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
            let bodies = texts.flat_map(|(name, text)| {
                let what = format!("the body was put into the member {name:?} of a JSON object");
                let encoded = of_base64(text.as_bytes()).map(|bytes| (ENVELOPE, format!("{what}, in Base64"), bytes));
                [Some((ENVELOPE, what, text.into_bytes())), encoded].into_iter().flatten()
            });
            let bodies: Vec<Unwrapped> = bodies.collect();
            bodies.into_iter().chain(inside(inner.into_iter().map(|(_, value)| value), depth)).collect()
        }
        Value::Array(elements) => inside(elements, depth),
        _ => Vec::new(),
    }
}

/// Returns the texts inside the objects among the values.
fn inside(values: impl IntoIterator<Item = Value>, depth: usize) -> Vec<Unwrapped> {
    if depth == MAX_NESTING {
        return Vec::new();
    }
    let nested = values.into_iter().filter(|value| value.is_object() || value.is_array());
    nested.flat_map(|value| of_json(value, depth + 1)).take(MAX_BODIES).collect()
}

/// Returns the values of a form's fields, and the whole text if a framework read it as the name of a single field.
fn of_form(body: &[u8]) -> Vec<Unwrapped> {
    let pairs = body.split(|byte| *byte == b'&').take(MAX_FIELDS);
    let mut found: Vec<Unwrapped> = Vec::new();
    for pair in pairs {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (decoded(&pair[..at]), decoded(&pair[at + 1..]));
        let shown = String::from_utf8_lossy(&name).chars().take(MAX_NAME).collect::<String>();
        found.push((FORM, format!("the body was put into the form field {shown:?}"), value));
    }
    if let Some(name) = body.strip_suffix(b"=") {
        found.push((FORM, "the body was put into the name of a form field".to_owned(), decoded(name)));
    }
    let decoded = decoded(body);
    found.push((FORM, "the body was percent-encoded".to_owned(), decoded));
    found
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

const BASE64: &str = "body_base64";
const STRINGIFIED: &str = "body_stringified";
const ENVELOPE: &str = "body_envelope";
const FORM: &str = "body_form_wrapped";
/// Names of form fields in which senders put JSON.
const FIELDS: [&str; 3] = ["payload", "data", "body"];
/// The characters that browsers escape in a form.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');
/// The characters that Go and Ruby escape in a form.
const GO: &AsciiSet = &NON_ALPHANUMERIC.remove(b'~').remove(b'-').remove(b'.').remove(b'_');
/// Maximum number of bodies to try.
const MAX_BODIES: usize = 64;
/// Maximum number of objects and lists around the object with the body.
const MAX_NESTING: usize = 3;
/// Maximum number of form fields to read.
const MAX_FIELDS: usize = 16;
/// Maximum length of the name of a form field in a message, in characters.
const MAX_NAME: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_gateway_is_undone() {
        for (now, word, before) in [
            ("eyJhIjoxfQ==", BASE64, "{\"a\":1}"),
            ("eyJhIjoxfQ", BASE64, "{\"a\":1}"),
            ("eyJh\r\nIjoxfQ==\n", BASE64, "{\"a\":1}"),
            ("{\"a\":1}", BASE64, "eyJhIjoxfQ=="),
            ("\"{\\\"a\\\": 1}\\n\"", STRINGIFIED, "{\"a\": 1}\n"),
            ("\"\\\"{}\\\"\"", STRINGIFIED, "{}"),
            ("{\"body\":\"{\\\"a\\\":1}\",\"isBase64Encoded\":false}", ENVELOPE, "{\"a\":1}"),
            ("{\"body\":\"eyJhIjoxfQ==\",\"isBase64Encoded\":true}", ENVELOPE, "{\"a\":1}"),
            ("{\"Records\":[{\"body\":\"{\\\"a\\\":1}\"}]}", ENVELOPE, "{\"a\":1}"),
            ("payload=%7B%22a%22%3A1%7D", FORM, "{\"a\":1}"),
            ("x=1&payload=%7B%22a%22%3A+1%7D", FORM, "{\"a\": 1}"),
            ("{\"a\":1}=", FORM, "{\"a\":1}"),
            ("%7B%22a%22%3A1%7D=", FORM, "{\"a\":1}"),
            ("{\"a\":\"=\"}", FORM, "payload=%7B%22a%22%3A%22%3D%22%7D"),
            ("{\"a\": 1}", FORM, "payload=%7B%22a%22%3A+1%7D"),
        ] {
            let found = all(now.as_bytes());
            assert!(
                found.iter().any(|(have, _, bytes)| *have == word && bytes == before.as_bytes()),
                "{now} to {before}: {found:?}"
            );
        }
    }

    #[test]
    fn the_number_of_bodies_is_limited() {
        let many = format!("{{{}}}", (0..1_000).map(|n| format!("\"{n}\":\"eyJ9\"")).collect::<Vec<_>>().join(","));
        for body in [many.as_bytes(), &b"a=1&".repeat(1_000), b"\xff\x00=", b"", b"==", b"\"", b"[[[["] {
            assert!(all(body).len() <= MAX_BODIES);
        }
    }
}
