//! Compares the token or the credentials of a request with the configuration. Doctor prints neither, and no part of them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use hookhold::log::escaped;
use hookhold::outcome::Outcome;
use hookhold::source::key::Key;
use hookhold::source::recipe::{JwtAlgorithm, JwtProof, Locator, Proof};
use hookhold::verify::Rejection;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode;
use serde_json::Value;

use super::captured::CapturedDelivery;
use super::cause::Cause;
use crate::cli::unstored_credentials;

/// Returns the cause that a request shows if it carries a token or credentials that no secret of the source matches.
pub(super) fn causes(captured: &CapturedDelivery, rejection: &Rejection) -> Vec<Cause> {
    if let Some(cause) = not_stored(captured, rejection) {
        return vec![cause];
    }
    let proofs = &captured.source.recipe.proofs;
    let each = proofs.iter().filter_map(|proof| match proof {
        Proof::Jwt(jwt) => web_token(captured, jwt, rejection),
        Proof::Token(token) => plain_token(captured, &token.from, &token.prefix, |key| token.key_format.decode(key)),
        Proof::Basic => basic(captured),
        Proof::Mac(_) | Proof::Digest(_) | Proof::PublicKey(_) | Proof::None => None,
    });
    each.take(1).collect()
}

/// Returns the cause if hookhold rejected the delivery for its token or credentials, which it does not store.
pub(super) fn not_stored(captured: &CapturedDelivery, rejection: &Rejection) -> Option<Cause> {
    let rejected_as = captured.rejected_as.as_deref()?;
    let target = &captured.delivery.target;
    let was_missing = rejected_as == Outcome::SignatureMissing.word() && !unstored_credentials::has_placeholder(target);
    if was_missing || !unstored_credentials::may_explain(&captured.source, target, rejection) {
        return None;
    }
    let what = format!(
        "hookhold rejected the delivery as {rejected_as}, but it does not store the token or the credentials of a request"
    );
    let advice = "record a request between the sender and hookhold, and pass it with --request FILE --at TIME";
    Some(Cause::certain("credentials_not_stored", what, advice))
}

fn web_token(captured: &CapturedDelivery, proof: &JwtProof, rejection: &Rejection) -> Option<Cause> {
    let text = text_at(captured, &proof.from)?;
    let Some(token) = without_prefix(&text, &proof.prefix) else {
        return Some(malformed(format!("the token does not begin with {:?}", proof.prefix)));
    };
    let parts: Vec<&str> = token.split('.').collect();
    if parts.len() != 3 {
        let what = format!("the text is no JSON Web Token, which has three parts separated by dots: it has {}", parts.len());
        return Some(malformed(what));
    }
    let object =
        |part: &str| URL_SAFE_PAD_INDIFFERENT.decode(part).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    let (Some(header), Some(_)) = (object(parts[0]), object(parts[1])) else {
        return Some(malformed(
            "the header or the claims of the token are no JSON in Base64; a proxy may have cut the token".to_owned(),
        ));
    };
    let algorithm = header["alg"].as_str().unwrap_or("none");
    let accepted: Vec<&str> = proof.algorithms.iter().map(|algorithm| algorithm_word(*algorithm)).collect();
    if !accepted.contains(&algorithm) {
        let named = escaped(algorithm).chars().take(MAX_NAME).collect::<String>();
        let what = format!("the token names the algorithm {named}, but the source accepts {}", accepted.join(" or "));
        let advice = "select an accepted algorithm at the sender; if the sender offers only the other one, write its algorithm and its \
                      key in the source; a token with the algorithm none proves nothing";
        return Some(Cause::certain("other_algorithm", what, advice));
    }
    if rejection.hint.starts_with("token: expected the claim ") {
        let advice = "correct claims (such as the audience) in the source, or the settings of the sender";
        return Some(Cause::certain("token_claim", statement(&rejection.hint), advice));
    }
    None
}

fn plain_token(
    captured: &CapturedDelivery,
    from: &[Locator],
    prefix: &str,
    decode: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Option<Cause> {
    let text = text_at(captured, from)?;
    let secrets = || captured.source.keys.iter().filter_map(|key| Some((key, decode(&key.configured().bytes)?)));
    let Some(token) = without_prefix(&text, prefix) else {
        let is_bare = secrets().any(|(_, secret)| secret == text.trim().as_bytes());
        let and = if is_bare { "; the rest is a configured token" } else { "" };
        return Some(malformed(format!("the token does not begin with {prefix:?}{and}")));
    };
    let rewritten = secrets().find_map(|(key, secret)| Some((key, rewriting(token.as_bytes(), &secret)?)));
    if let Some((key, how)) = rewritten {
        return Some(encoded(key, how));
    }
    let what = format!("the request has a token, but it is none of the configured secrets ({})", names(captured));
    Some(Cause::certain("other_credentials", what, other_token(captured)))
}

fn basic(captured: &CapturedDelivery) -> Option<Cause> {
    let text =
        captured.delivery.headers.get(AUTHORIZATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())?;
    let malformed = |what: &str| {
        let advice =
            "configure Basic authentication at the sender; a URL with USER:PASSWORD@ makes most senders write the header";
        Some(Cause::certain("credentials_malformed", what, advice))
    };
    let Some(encoded_text) = without_prefix(&text, "Basic ") else {
        return malformed("the header authorization has another scheme than Basic");
    };
    let keys = || captured.source.keys.iter().filter(|key| !key.is_public);
    let is_plain = keys().any(|key| key.configured().bytes == encoded_text.trim().as_bytes());
    let Ok(credentials) = STANDARD_PAD_INDIFFERENT.decode(encoded_text.trim()) else {
        return malformed(if is_plain {
            "user name and password are not encoded in Base64"
        } else {
            "the credentials are no Base64"
        });
    };
    if !credentials.contains(&b':') {
        return malformed("the credentials have no colon between user name and password");
    }
    if let Some((key, how)) = keys().find_map(|key| Some((key, rewriting(&credentials, &key.configured().bytes)?))) {
        return Some(encoded(key, how));
    }
    let user = |bytes: &[u8]| bytes.split(|byte| *byte == b':').next().unwrap_or_default().to_vec();
    let same_user = keys().find(|key| user(&key.configured().bytes) == user(&credentials));
    let what = match same_user {
        Some(key) => format!("the user name is that of the secret {}, but the password is another one", key.name),
        None => format!("the user name is in none of the configured secrets ({})", names(captured)),
    };
    Some(Cause::certain("other_credentials", what, other_token(captured)))
}

/// Returns the way in which the text of a request differs from a secret, or `None` if it is another text.
fn rewriting(found: &[u8], secret: &[u8]) -> Option<&'static str> {
    let unquoted = |text: &[u8]| text.trim_ascii().trim_ascii_start().to_vec();
    let latin_1: Vec<u8> = found.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes();
    let quotes = |byte: &u8| b"\"'`".contains(byte);
    let bare = |text: &[u8]| unquoted(text).into_iter().filter(|byte| !quotes(byte)).collect::<Vec<u8>>();
    if found == secret || secret.is_empty() {
        None
    } else if unquoted(found) == unquoted(secret) {
        Some("has white space around it")
    } else if bare(found) == bare(secret) {
        Some("has quotes around it")
    } else if percent_decode(found).collect::<Vec<u8>>() == secret {
        Some("is percent-encoded")
    } else if STANDARD_PAD_INDIFFERENT.decode(found).is_ok_and(|decoded| decoded.trim_ascii() == secret) {
        Some("is encoded in Base64")
    } else if latin_1 == secret {
        Some("is written in ISO 8859-1 instead of UTF-8")
    } else if found.eq_ignore_ascii_case(secret) {
        Some("has other upper and lower case")
    } else {
        None
    }
}

fn encoded(key: &Key, how: &str) -> Cause {
    let what = format!("the request contains the secret {}, but one of the two {how}", key.name);
    Cause::certain("credentials_encoding", what, "write the same text in the configuration and at the sender")
}

fn malformed(what: String) -> Cause {
    let advice = "compare the request with the provider's documentation, and look for a proxy that rewrites or cuts the token";
    Cause::certain("token_malformed", what, advice)
}

/// Returns the text at the first locator that the request contains. Ignores locators in the body.
fn text_at(captured: &CapturedDelivery, from: &[Locator]) -> Option<String> {
    from.iter().find_map(|locator| match locator {
        Locator::Header(name) => {
            captured.delivery.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        }
        Locator::Query(name) => {
            let (_, query) = captured.delivery.target.split_once('?')?;
            let pair = query.split('&').find_map(|pair| pair.split_once('=').filter(|(have, _)| have == name));
            pair.map(|(_, value)| value.to_owned())
        }
        _ => None,
    })
}

fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn names(captured: &CapturedDelivery) -> String {
    captured.source.keys.iter().map(|key| &*key.name).collect::<Vec<_>>().join(", ")
}

fn other_token(captured: &CapturedDelivery) -> String {
    let page = &captured.source.recipe.setup.secret;
    let page = if page.is_empty() { "the settings of the sender" } else { page };
    format!("compare the configured secret with {page}; it may be out of date, or may belong to another endpoint")
}

fn algorithm_word(algorithm: JwtAlgorithm) -> &'static str {
    JwtAlgorithm::WORDS.iter().find(|(_, one)| *one == algorithm).map_or("", |(word, _)| word)
}

/// Returns a hint without its remedy.
fn statement(hint: &str) -> String {
    hint.rsplit_once("; ").map_or(hint, |(statement, _)| statement).to_owned()
}

/// Maximum length of the name of an algorithm in a message, in characters.
const MAX_NAME: usize = 20;
