//! Checks JSON Web Tokens (RFC 7519). The library checks the signature and that the token names an accepted algorithm. This file
//! checks the times and the claims, because the verifier does not read the clock.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm as LibraryAlgorithm, Validation, decode};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::outcome::Outcome;
use crate::source::key::DecodedKey;
use crate::source::recipe::{HashClaim, JwtAlgorithm, JwtProof};
use crate::verify::code::Code;
use crate::verify::content::{Content, Part};
use crate::verify::hash::hash;
use crate::verify::proof::{ProofVerifier, Proven, Request, fetch, token};
use crate::verify::request_view::{RequestView, path_and_query};
use crate::verify::verdict::Rejection;

/// The claims of a token, by name.
type Claims = BTreeMap<String, TokenClaim>;

/// The value of a claim.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenClaim {
    Text(String),
    Flag(bool),
    Whole(u64),
    Negative(i64),
    Fraction(f64),
    List(Vec<TokenClaim>),
    /// An object or null, which hookhold does not read.
    Other(IgnoredAny),
}

impl TokenClaim {
    /// Returns the claim as text, or `None` for a value that a locator cannot read.
    fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            TokenClaim::Text(text) => Some(Cow::Borrowed(text)),
            TokenClaim::Flag(on) => Some(Cow::Owned(on.to_string())),
            TokenClaim::Whole(number) => Some(Cow::Owned(number.to_string())),
            TokenClaim::Negative(number) => Some(Cow::Owned(number.to_string())),
            TokenClaim::Fraction(_) | TokenClaim::List(_) | TokenClaim::Other(_) => None,
        }
    }

    /// Returns the claim as Unix seconds (NumericDate, which may have a fraction), or `None` for another value.
    fn seconds(&self) -> Option<u64> {
        match self {
            TokenClaim::Whole(seconds) => Some(*seconds),
            TokenClaim::Fraction(seconds) if *seconds >= 0.0 => Some(*seconds as u64),
            _ => None,
        }
    }

    /// Returns true if the claim is `wanted`, or a list that contains `wanted`, as `aud` may be.
    fn is(&self, wanted: &str) -> bool {
        match self {
            TokenClaim::List(values) => values.iter().any(|value| value.text().as_deref() == Some(wanted)),
            value => value.text().as_deref() == Some(wanted),
        }
    }
}

/// Checks the token of a delivery with every key, then its times, its claims, and the hashes that it contains.
pub(super) fn check<T>(
    verifier: &ProofVerifier,
    proof: &JwtProof,
    request: Request<'_>,
    accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let token = &*readable(proof, &request.view)?;
    let received_at = request.delivery.received_at;
    check_key(verifier, proof, &request, token)?;
    let (mut expired, mut is_readable) = (None, false);
    for (_, prepared, key) in verifier.keys_at(request.source, received_at) {
        let Some(DecodedKey::Jwt(jwt_key)) = key.for_proof(verifier.proof) else { continue };
        request.work.add(token.len());
        let decoded = decode::<Claims>(token, &jwt_key.decoding, &validation(proof));
        let is_checked = decoded.as_ref().err().is_none_or(|error| matches!(error.kind(), ErrorKind::InvalidSignature));
        if is_checked && jwt_key.secret().is_none() {
            request.work.add_public_key_check();
        }
        is_readable |= is_checked;
        let Ok(claims) = decoded.map(|decoded| decoded.claims) else { continue };
        if !key.is_valid_at(received_at) {
            expired = expired.or(Some(key));
            continue;
        }
        check_times(proof, &claims, received_at.0 / 1000)?;
        check_claims(proof, &claims)?;
        check_hashes(proof, &claims, request)?;
        let texts = texts(&claims);
        let mut content = Content::with_capacity(1);
        content.push(Part::Slice(signing_input(token)));
        return accept(Proven {
            coverage: proof.coverage,
            is_timed: proof.body_claim.is_some() && ["iat", "exp", "jti"].iter().any(|claim| claims.contains_key(*claim)),
            content,
            view: request.view.with_claims(&texts),
            ..Proven::by_key(request, key, prepared.auth.clone())
        });
    }
    if !is_readable && !verifier.keys.is_empty() {
        return Err(unreadable(proof));
    }
    Err(verifier.mismatch(request.source, expired, "token"))
}

/// Rejects a delivery whose token names a public key which the source lacks. Before that, checks the parts of the token that a
/// forged token could have wrong: its form, its times and its claims.
fn check_key(verifier: &ProofVerifier, proof: &JwtProof, request: &Request<'_>, token: &[u8]) -> Result<(), Rejection> {
    let Some(fetch) = &proof.fetch else { return Ok(()) };
    let id = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
    let Some(rejection) = fetch::unknown_key(verifier, fetch, request, id.as_deref()) else { return Ok(()) };
    let code = token.rsplit(|byte| *byte == b'.').next().and_then(|code| URL_SAFE_NO_PAD.decode(code).ok());
    let claims = insecure_decode_claims::<Claims>(token).ok().filter(|_| code.is_some_and(|code| code.len() >= MIN_CODE));
    let claims = claims.ok_or_else(|| unreadable(proof))?;
    let times = check_times(proof, &claims, request.delivery.received_at.0 / 1000);
    times.and_then(|()| check_claims(proof, &claims)).map_err(fetch::unproved)?;
    Err(rejection)
}

/// Rejects a request without a token that names an accepted algorithm. Accepts every request if the token may be in the body.
pub(super) fn precheck(proof: &JwtProof, view: &RequestView<'_>) -> Result<(), Rejection> {
    if token::may_be_in_body(&proof.from) { Ok(()) } else { readable(proof, view).map(|_| ()) }
}

/// Returns the first token of a request that is not too long and names an accepted algorithm.
fn readable<'a>(proof: &'a JwtProof, view: &RequestView<'a>) -> Result<Cow<'a, [u8]>, Rejection> {
    let names_algorithm = |token: &[u8]| {
        let header = jsonwebtoken::decode_header(token);
        header.is_ok_and(|header| proof.algorithms.iter().any(|algorithm| library(*algorithm) == header.alg))
    };
    let mut tokens = token::texts(&proof.from, &proof.prefix, view)?.into_iter();
    let found = tokens.find(|token| token.len() <= MAX_TOKEN && names_algorithm(token));
    found.ok_or_else(|| unreadable(proof))
}

fn unreadable(proof: &JwtProof) -> Rejection {
    malformed(format!(
        "token: expected a JSON Web Token of at most {MAX_TOKEN} bytes with the algorithm {}, found another text or algorithm; \
         correct algorithm in the recipe",
        algorithms(proof)
    ))
}

/// Returns the signed part of a token: its header and its claims. The signature is no part of the identity of a delivery,
/// because anyone can turn an ECDSA signature into another valid one.
fn signing_input(token: &[u8]) -> &[u8] {
    let end = token.iter().rposition(|byte| *byte == b'.').unwrap_or(token.len());
    &token[..end]
}

/// Returns the rules by which the library checks the signature. It checks neither times nor audience.
fn validation(proof: &JwtProof) -> Validation {
    let algorithms: Vec<LibraryAlgorithm> = proof.algorithms.iter().map(|algorithm| library(*algorithm)).collect();
    let mut validation = Validation::new(algorithms[0]);
    validation.algorithms = algorithms;
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Checks the claims `exp`, `nbf` and `iat`, which are Unix seconds. A token without `iat` fails if the recipe limits the age.
fn check_times(proof: &JwtProof, claims: &Claims, now: u64) -> Result<(), Rejection> {
    let time = |claim: &str| {
        let invalid = || {
            malformed(format!(
                "token: expected Unix seconds in the claim {claim}, found another value; compare the token with RFC 7519"
            ))
        };
        claims.get(claim).map(|value| value.seconds().ok_or_else(invalid)).transpose()
    };
    let (expiry, start, issued) = (time("exp")?, time("nbf")?, time("iat")?);
    if let Some(expiry) = expiry.filter(|expiry| now >= expiry.saturating_add(LEEWAY_S)) {
        return Err(Rejection::new(
            Outcome::TimestampStale,
            format!(
                "token: expected a valid token, found one that expired {} s ago; compare this machine's clock with a time server",
                now - expiry
            ),
        ));
    }
    if let Some(start) = start.max(issued).filter(|start| *start > now.saturating_add(LEEWAY_S)) {
        let hint = format!(
            "token: expected a valid token, found one that begins in {} s; compare this machine's clock with a time server",
            start - now
        );
        return Err(Rejection::new(Outcome::TimestampFuture, hint));
    }
    let Some(max_age) = proof.max_age else { return Ok(()) };
    let issued = issued
        .ok_or_else(|| malformed("token: expected the claim iat, found none; remove max_age from the recipe".to_owned()))?;
    let age = now.saturating_sub(issued);
    if age > max_age.as_secs() {
        let hint = format!(
            "token: expected at most {} s in the past, found {age} s; compare this machine's clock with a time server",
            max_age.as_secs()
        );
        return Err(Rejection::new(Outcome::TimestampStale, hint));
    }
    Ok(())
}

/// Checks that each claim of the recipe has its value, or contains the value if the claim is an array (`aud`).
fn check_claims(proof: &JwtProof, claims: &Claims) -> Result<(), Rejection> {
    let is_met = |(name, wanted): &&(String, String)| claims.get(name).is_some_and(|claim| claim.is(wanted));
    match proof.claims.iter().find(|claim| !is_met(claim)) {
        None => Ok(()),
        Some((name, wanted)) => {
            let hint = format!(
                "token: expected the claim {name} with the value {wanted:?}, found another value; correct claims in the recipe"
            );
            Err(Rejection::new(Outcome::SignatureMismatch, hint))
        }
    }
}

fn check_hashes(proof: &JwtProof, claims: &Claims, request: Request<'_>) -> Result<(), Rejection> {
    if let Some(rule) = &proof.body_claim {
        request.work.add(request.delivery.body.len());
        check_hash(rule, claims, &[&request.delivery.body], "body")?;
    }
    if let Some(rule) = &proof.url_claim {
        let url = request.source.public_url.as_ref().map(|url| url.as_written()).unwrap_or_default();
        check_hash(rule, claims, &[url.as_bytes(), path_and_query(&request.delivery.target).as_bytes()], "url")?;
    }
    Ok(())
}

fn check_hash(rule: &HashClaim, claims: &Claims, parts: &[&[u8]], what: &str) -> Result<(), Rejection> {
    let text = claims.get(&rule.name).and_then(TokenClaim::text);
    let stated = text.and_then(|text| Code::decode(rule.encoding, &text));
    let stated = stated.ok_or_else(|| {
        malformed(format!(
            "token: expected a {} hash in the claim {}, found none; correct body_claim or url_claim in the recipe",
            rule.algorithm.word(),
            rule.name
        ))
    })?;
    if stated.equals(hash(rule.algorithm, parts.iter().copied()).bytes()) {
        return Ok(());
    }
    let hint = format!(
        "{what}: expected the hash in the claim {} of the token, found another hash; make every proxy forward the request unchanged",
        rule.name
    );
    Err(Rejection::new(Outcome::SignatureMismatch, hint))
}

/// Returns the claims that a locator can read.
fn texts(claims: &Claims) -> Vec<(String, Cow<'_, str>)> {
    claims.iter().filter_map(|(name, value)| Some((name.clone(), value.text()?))).collect()
}

fn malformed(hint: String) -> Rejection {
    Rejection::new(Outcome::SignatureMalformed, hint)
}

fn algorithms(proof: &JwtProof) -> String {
    let word =
        |algorithm: &JwtAlgorithm| JwtAlgorithm::WORDS.iter().find(|(_, one)| one == algorithm).map_or("", |(word, _)| word);
    proof.algorithms.iter().map(word).collect::<Vec<_>>().join(" or ")
}

/// Returns the library's name of an algorithm.
pub(in crate::verify) fn library(algorithm: JwtAlgorithm) -> LibraryAlgorithm {
    match algorithm {
        JwtAlgorithm::Hs256 => LibraryAlgorithm::HS256,
        JwtAlgorithm::Hs384 => LibraryAlgorithm::HS384,
        JwtAlgorithm::Hs512 => LibraryAlgorithm::HS512,
        JwtAlgorithm::Rs256 => LibraryAlgorithm::RS256,
        JwtAlgorithm::Rs512 => LibraryAlgorithm::RS512,
        JwtAlgorithm::Ps256 => LibraryAlgorithm::PS256,
        JwtAlgorithm::Es256 => LibraryAlgorithm::ES256,
        JwtAlgorithm::EdDsa => LibraryAlgorithm::EdDSA,
    }
}

/// Maximum length of a token in bytes. The library decodes it before it checks the signature.
const MAX_TOKEN: usize = 16 << 10;
/// Length of the shortest public-key signature of a token in bytes.
const MIN_CODE: usize = 64;
/// Maximum difference between the clocks of the sender and of this machine, in seconds.
const LEEWAY_S: u64 = 60;
