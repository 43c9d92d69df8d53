//! What the secret may have been: the configured one with a slip of the hand undone, read in another way, past its end, or
//! the one of another source.

use hookhold::secret::Secret;
use hookhold::source::key::Key;
use hookhold::source::recipe::{Encoding, KeyFormat};

use super::Case;
use super::cause::Cause;
use super::causes::when;

/// Every key that may have signed, with what is wrong then.
pub fn variants(case: &Case) -> Vec<(Key, Cause)> {
    let own = &case.source.secrets;
    let mut found: Vec<(Key, Cause)> = own.iter().flat_map(|key| of_one(case, key)).collect();
    for other in case.others.iter() {
        for key in &other.secrets {
            let what = format!("the secret {} of the source {} signed it", key.name, other.name);
            let advice = format!(
                "the sender signs with what belongs to {}: another endpoint, or its test mode. Enter the URL of {} there, or put \
                 that secret into {}",
                other.name, other.name, case.source.name
            );
            let cause = Cause::certain("other_sources_secret", what, advice);
            found.extend(decoded(case, key.configured().bytes.clone(), key, &case.source.recipe.proof.key_format, cause));
        }
    }
    found.retain(|(key, cause)| cause.word == "secret_expired" || !own.iter().any(|own| own.is_same_secret(key)));
    found
}

fn of_one(case: &Case, key: &Key) -> Vec<(Key, Cause)> {
    let (name, bytes, format) = (&key.name, &key.configured().bytes, &case.source.recipe.proof.key_format);
    let mut found = Vec::new();
    if !key.is_valid_at(case.delivery.received_at) {
        let what = format!("the secret {name} signed it, whose time is over (not_after)");
        let advice = format!("{}enter the new secret at the sender, or give the old one more time", when(case));
        let cause = Cause::certain("secret_expired", what, advice).at_its_time(case);
        found.extend(decoded(case, bytes.clone(), key, format, cause));
    }
    for (word, what, altered) in slips(bytes) {
        let cause = Cause::certain(word, format!("the secret {name} {what}"), WRITE_IT_CLEAN);
        found.extend(decoded(case, altered, key, format, cause));
    }
    for (suffix, what) in [("\n", "a line break"), (" ", "a blank"), ("\r\n", "a line break")] {
        let what = format!("at the sender the secret {name} has {what} behind it");
        let cause = Cause::certain("secret_whitespace", what, "enter the secret at the sender again, without what surrounds it");
        found.extend(decoded(case, [&bytes[..], suffix.as_bytes()].concat(), key, format, cause));
    }
    for (format, written) in formats() {
        let what = format!("the secret {name} is right, but it was read in the wrong way");
        let advice =
            format!("take the provider's own recipe, or write key_format = {written} into [sources.{}]", case.source.name);
        found.extend(decoded(case, bytes.clone(), key, &format, Cause::certain("key_decoding", what, advice)));
    }
    found
}

fn decoded(case: &Case, bytes: Vec<u8>, key: &Key, format: &KeyFormat, cause: Cause) -> Option<(Key, Cause)> {
    let secret = Secret { name: key.name.clone(), bytes, not_after: None };
    Some((Key::decode(&secret, format, &case.source.recipe.proof.scheme()).ok()?, cause))
}

/// What a secret looks like without what does not belong to it.
fn slips(bytes: &[u8]) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let unmarked = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bare = unmarked.trim_ascii();
    let unquoted = QUOTES.iter().find_map(|quote| bare.strip_prefix(&[*quote])?.strip_suffix(&[*quote]));
    let mut found = Vec::new();
    if bare.len() < bytes.len() {
        found.push(("secret_whitespace", "has white space or line breaks around it where it is kept", bare.to_vec()));
    }
    if let Some(unquoted) = unquoted {
        found.push(("secret_quotes", "has quotation marks around it where it is kept", unquoted.trim_ascii().to_vec()));
    }
    found
}

/// The ways in which providers make keys of texts, as the recipe language writes them.
fn formats() -> impl Iterator<Item = (KeyFormat, String)> {
    let ways = |strip: &'static [&'static str]| {
        let encodings = [None, Some(Encoding::Base64), Some(Encoding::Base64Url), Some(Encoding::Hex)];
        encodings.into_iter().map(move |encoding| {
            let steps = strip.iter().map(|prefix| format!("\"strip-prefix:{prefix}\""));
            let last = format!("\"{}\"", encoding.map_or("utf8", Encoding::word));
            let written = format!("[{}]", steps.chain([last]).collect::<Vec<_>>().join(", "));
            (KeyFormat { strip: strip.iter().map(|prefix| (*prefix).to_owned()).collect(), encoding }, written)
        })
    };
    ways(&[]).chain(ways(&["whsec_"]))
}

const QUOTES: &[u8] = b"\"'`";
const WRITE_IT_CLEAN: &str = "write the variable or the file again with nothing but the secret: no quotation marks, no blanks, no empty line \
     (printf %s, not echo)";
