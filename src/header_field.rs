//! Defines the type of a stored header field, and determines which header fields carry credentials. hookhold never stores
//! header fields that carry credentials.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue};

/// Name and value of a header field. The name is in lower case, and the value is exactly as received.
pub type HeaderField = (HeaderName, HeaderValue);

/// Parses the name and the value of a stored header field. Returns `None` if the name or the value is invalid.
pub fn parse(name: &str, value: &[u8]) -> Option<HeaderField> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
}

/// Returns true if a header field with this name carries a credential. hookhold never stores, shows or forwards such a
/// header field.
pub fn is_credential(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
}
