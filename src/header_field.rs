//! Defines the type of a stored header field. [`crate::credentials`] determines which header fields hookhold stores.

use http::{HeaderName, HeaderValue};

/// Name and value of a header field. The name is in lower case, and the value is exactly as received.
pub type HeaderField = (HeaderName, HeaderValue);

/// Parses the name and the value of a stored header field. Returns `None` if the name or the value is invalid.
pub fn parse(name: &str, value: &[u8]) -> Option<HeaderField> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
}
