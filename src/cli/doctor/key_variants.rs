//! Other secrets with which the sender may have signed a delivery: variants of the configured secrets, expired secrets, and the
//! secrets of other sources. A variant has no surrounding whitespace or quotes, has whitespace at the end, or has another key
//! format.

use hookhold::secret::Secret;
use hookhold::source::key::Key;
use hookhold::source::recipe::{Encoding, KeyFormat};

use super::captured::CapturedDelivery;
use super::cause::Cause;
use super::timing;

/// Returns the keys that may have signed the delivery, except the source's own valid keys. Each key has the cause that a
/// matching signature proves.
pub(super) fn all(captured: &CapturedDelivery) -> Vec<(Key, Cause)> {
    let source = &captured.source;
    let mut found: Vec<(Key, Cause)> = source.keys.iter().flat_map(|key| of_one(captured, key)).collect();
    for other in captured.others.iter() {
        for key in &other.keys {
            let kind = if key.is_public { "private key of" } else { "secret" };
            let what = format!("the sender signed with the {kind} {} of the source {}", key.name, other.name);
            let advice = format!(
                "enter the URL of the source {} at the sender, or add this secret to [sources.{}]; the secret belongs to another \
                 endpoint or to test mode",
                other.name, source.name
            );
            let cause = Cause::certain("other_sources_secret", what, advice);
            found.extend(as_configured(captured, key.configured().bytes.clone(), key, cause));
        }
    }
    found.retain(|(key, cause)| cause.word == "secret_expired" || !source.keys.iter().any(|own| own.is_same_secret(key)));
    found
}

fn of_one(captured: &CapturedDelivery, key: &Key) -> Vec<(Key, Cause)> {
    let (name, bytes) = (&key.name, &key.configured().bytes);
    let mut found = Vec::new();
    if !key.is_valid_at(captured.delivery.received_at) {
        let kind = if key.is_public { "private key of the public key" } else { "secret" };
        let what = format!("the sender signed with the {kind} {name}, which has expired (not_after)");
        let advice = format!("{}enter the new secret at the sender, or extend not_after", timing::ask_for_time(captured));
        let cause = timing::only_at_its_time(captured, Cause::certain("secret_expired", what, advice));
        found.extend(as_configured(captured, bytes.clone(), key, cause));
    }
    if key.is_public {
        return found;
    }
    for (word, what, unwrapped) in unwrapped(bytes) {
        let cause = Cause::certain(word, format!("the secret {name} {what}"), WRITE_IT_CLEAN);
        found.extend(as_configured(captured, unwrapped, key, cause));
    }
    for (suffix, what) in [("\n", "a line break"), (" ", "a space"), ("\r\n", "a line break")] {
        let what = format!("the secret {name} ends with {what} at the sender");
        let advice = "enter the secret at the sender again, without surrounding whitespace";
        let cause = Cause::certain("secret_whitespace", what, advice);
        found.extend(as_configured(captured, [&bytes[..], suffix.as_bytes()].concat(), key, cause));
    }
    for (format, written) in formats() {
        let what = format!("the secret {name} is correct, but key_format decodes it incorrectly");
        let advice =
            format!("use the provider's own recipe, or set key_format = {written} in [sources.{}]", captured.source.name);
        let decoded = format.decode(bytes).filter(|bytes| !bytes.is_empty());
        let cause = Cause::certain("key_decoding", what, advice);
        found.extend(decoded.map(|bytes| (key.with_bytes(bytes, &captured.source.recipe.proofs), cause)));
    }
    found
}

/// Decodes `bytes` as the recipe decodes a configured secret or public key.
fn as_configured(captured: &CapturedDelivery, bytes: Vec<u8>, key: &Key, cause: Cause) -> Option<(Key, Cause)> {
    let secret = Secret::new(key.name.clone(), bytes);
    Some((Key::decode(&secret, key.is_public, &captured.source.recipe.proofs).ok()?, cause))
}

/// Returns up to two variants of a secret: one without surrounding whitespace, and one also without surrounding quotes. Each
/// variant has the identifier and the explanation of the cause that it undoes.
fn unwrapped(bytes: &[u8]) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let without_bom = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let trimmed = without_bom.trim_ascii();
    let unquoted = QUOTES.iter().find_map(|quote| trimmed.strip_prefix(&[*quote])?.strip_suffix(&[*quote]));
    let mut found = Vec::new();
    if trimmed.len() < bytes.len() {
        found.push(("secret_whitespace", "has whitespace or line breaks around it in the configuration", trimmed.to_vec()));
    }
    if let Some(unquoted) = unquoted {
        found.push(("secret_quotes", "has quotes around it in the configuration", unquoted.trim_ascii().to_vec()));
    }
    found
}

/// Yields the key formats that providers use, each with its spelling in the recipe language.
fn formats() -> impl Iterator<Item = (KeyFormat, String)> {
    let ways = |strip: &'static [&'static str]| {
        let encodings = [None, Some(Encoding::Base64), Some(Encoding::Base64Url), Some(Encoding::Hex)];
        encodings.into_iter().map(move |encoding| {
            let steps = strip.iter().map(|prefix| format!("\"strip-prefix:{prefix}\""));
            let last = format!("\"{}\"", encoding.map_or("utf8", Encoding::word));
            let written = format!("[{}]", steps.chain([last]).collect::<Vec<_>>().join(", "));
            (KeyFormat { strip: strip.iter().map(|prefix| (*prefix).to_owned()).collect(), encoding, hash: None }, written)
        })
    };
    ways(&[]).chain(ways(&["whsec_"]))
}

const QUOTES: &[u8] = b"\"'`";
const WRITE_IT_CLEAN: &str = "write the variable or the file again so that it contains only the secret, without quotes, spaces \
     or line breaks (use `printf %s`, not `echo`)";
