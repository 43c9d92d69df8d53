//! One header field of a stored request, and the fields that are never stored.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue};

/// One header field: its name in lower case and its value as received.
pub type HeaderField = (HeaderName, HeaderValue);

/// Parses a header field from stored bytes. Returns `None` if the bytes are not a valid field.
pub fn parse(name: &str, value: &[u8]) -> Option<HeaderField> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
}

/// Returns true for a header that carries a credential. Such a header is never stored, shown or forwarded.
pub fn is_credential(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
}
