//! Checks the user name and password of HTTP Basic authentication (RFC 7617). A secret has the form `USER:PASSWORD`.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

use crate::outcome::Outcome;
use crate::verify::proof::{ProofVerifier, Proven, Request};
use crate::verify::request_view::{BASIC_USER, RequestView};
use crate::verify::verdict::Rejection;

/// Compares the credentials of a delivery with every secret, in constant time.
pub(super) fn check<T>(
    verifier: &ProofVerifier,
    request: Request<'_>,
    accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let credentials = credentials(&request.view)?;
    let received_at = request.delivery.received_at;
    let mut expired = None;
    for (_, prepared, key) in verifier.keys_at(request.source, received_at) {
        let secret = key.secret_for(verifier.proof).unwrap_or_default();
        if !bool::from(secret.ct_eq(&credentials)) {
            continue;
        }
        if key.is_valid_at(received_at) {
            let user = credentials.split(|byte| *byte == b':').next().unwrap_or_default();
            let claims = [(BASIC_USER.to_owned(), String::from_utf8_lossy(user))];
            let claims: &[(String, Cow<'_, str>)] = &claims;
            let view = request.view.with_claims(claims);
            return accept(Proven { view, ..Proven::by_key(request, key, prepared.auth.clone()) });
        }
        expired = expired.or(Some(key));
    }
    Err(verifier.mismatch(request.source, expired, "authorization"))
}

/// Rejects a request without readable credentials.
pub(super) fn precheck(view: &RequestView<'_>) -> Result<(), Rejection> {
    credentials(view).map(|_| ())
}

fn credentials(view: &RequestView<'_>) -> Result<Vec<u8>, Rejection> {
    let missing = || {
        Rejection::new(
            Outcome::SignatureMissing,
            "authorization: expected Basic credentials, found none; configure user and password in the sender's dashboard",
        )
    };
    let value = view.header(&AUTHORIZATION).ok_or_else(missing)?;
    let encoded = value.split_at_checked(SCHEME.len()).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME));
    let decoded = encoded.and_then(|(_, encoded)| STANDARD_PAD_INDIFFERENT.decode(encoded.trim_ascii()).ok());
    decoded.ok_or_else(|| {
        Rejection::new(
            Outcome::SignatureMalformed,
            "authorization: expected Basic credentials in Base64, found another text; compare the header with RFC 7617",
        )
    })
}

const SCHEME: &[u8] = b"Basic ";
