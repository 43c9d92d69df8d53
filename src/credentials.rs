//! Determines which parts of a request contain credentials, and removes them from everything that hookhold stores, shows or
//! forwards. hookhold stores the body of an event byte for byte, so a credential inside such a body stays there.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName};
use memchr::memmem;
use percent_encoding::percent_decode_str;

use crate::header_field::HeaderField;

/// The headers and query parameters in which the deliveries of one source carry credentials, in addition to the headers that
/// always contain credentials ([`is_credential`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    headers: Vec<HeaderName>,
    /// Decoded names of query parameters.
    parameters: Vec<String>,
    /// True if the body contains a credential.
    are_in_body: bool,
}

impl Credentials {
    /// Creates the list for these headers and these undecoded names of query parameters.
    pub fn new(headers: Vec<HeaderName>, parameters: &[&str]) -> Credentials {
        Credentials { headers, parameters: parameters.iter().map(|name| decoded(name)).collect(), are_in_body: false }
    }

    /// Adds the body to the list.
    pub fn with_body(self) -> Credentials {
        Credentials { are_in_body: true, ..self }
    }

    /// Returns true if the body of a delivery contains a credential.
    pub fn are_in_body(&self) -> bool {
        self.are_in_body
    }

    /// Returns true if a header field with this name contains a credential.
    pub fn include_header(&self, name: &HeaderName) -> bool {
        is_credential(name) || self.headers.contains(name)
    }

    /// Returns true if the query parameter with this undecoded name contains a credential. Ignores case, a second encoding, and
    /// punctuation around the name, because a sender that misspells the name still sends the credential.
    pub fn include_parameter(&self, name: &str) -> bool {
        if self.parameters.is_empty() {
            return false;
        }
        let (once, twice) = (decoded(name), decoded(&decoded(name)));
        let bare = |name: &str| name.trim_matches(|letter: char| !letter.is_alphanumeric()).to_owned();
        let is_same = |own: &String| own.eq_ignore_ascii_case(&once) || bare(own).eq_ignore_ascii_case(&bare(&twice));
        self.parameters.iter().any(is_same)
    }

    /// Returns the position at which a credential begins in a part of a query between two `&`, or `None` if the part contains no
    /// credential. Some senders separate parameters with `;`.
    fn place_of_value(&self, pair: &str) -> Option<usize> {
        let mut start = 0;
        pair.split(';').find_map(|part| {
            let value = part.split_once('=').filter(|(name, value)| !value.is_empty() && self.include_parameter(name));
            let place = value.map(|(name, _)| start + name.len() + 1);
            start += part.len() + 1;
            place
        })
    }

    /// Returns the header fields of a request without those that contain a credential. A proxy may copy a token or the request
    /// target into another header, such as `X-Original-URL`, so this function also omits every header field whose value
    /// contains the text of a credential.
    pub fn remaining_headers(&self, headers: &HeaderMap, target: &str) -> Vec<HeaderField> {
        let texts = self.texts(headers, target);
        let is_copy = |value: &[u8]| texts.iter().any(|text| memmem::find(value, text).is_some());
        let mut remaining = Vec::with_capacity(headers.len());
        let harmless = headers.iter().filter(|(name, value)| !self.include_header(name) && !is_copy(value.as_bytes()));
        remaining.extend(harmless.map(|(name, value)| (name.clone(), value.clone())));
        remaining
    }

    /// Returns the request target with [`PLACEHOLDER`] instead of the value of each query parameter that contains a credential,
    /// and instead of user and password in a target in absolute form.
    pub fn redact<'a>(&self, target: &'a str) -> Cow<'a, str> {
        let without_user = redact_user(target);
        let Some((path, query)) = without_user.split_once('?').filter(|_| !self.parameters.is_empty()) else {
            return without_user;
        };
        let redacted = |pair: &str| match self.place_of_value(pair) {
            Some(place) => format!("{}{PLACEHOLDER}", &pair[..place]),
            None => pair.to_owned(),
        };
        let pairs: Vec<String> = query.split('&').map(redacted).collect();
        format!("{path}?{}", pairs.join("&")).into()
    }

    /// Returns the texts of the credentials in a request, for finding copies of them. Omits texts that are too short to
    /// identify a copy.
    fn texts(&self, headers: &HeaderMap, target: &str) -> Vec<Vec<u8>> {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for value in self.headers.iter().flat_map(|name| headers.get_all(name)) {
            // A copy may lack the scheme in front of the token, such as `Bearer`.
            let token = value.as_bytes().splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default();
            texts.extend([value.as_bytes().to_vec(), token.to_vec()]);
        }
        let query = if self.parameters.is_empty() { None } else { target.split_once('?').map(|(_, query)| query) };
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        for value in pairs.filter_map(|pair| Some(&pair[self.place_of_value(pair)?..])) {
            texts.push(value.as_bytes().to_vec());
            texts.push(percent_decode_str(value).collect());
        }
        texts.retain(|text| text.len() >= MIN_COPIED);
        texts
    }
}

/// Returns true if a header field with this name contains a credential at every source.
pub fn is_credential(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
}

fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// Replaces user and password in a request target in absolute form, such as `http://user:password@host/path`.
fn redact_user(target: &str) -> Cow<'_, str> {
    if target.starts_with('/') {
        return Cow::Borrowed(target);
    }
    let authority = target.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '?']));
    let found = authority.and_then(|(scheme, rest)| {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let at = rest[..end].rfind('@')?;
        Some(format!("{scheme}://{PLACEHOLDER}{}", &rest[at..]).into())
    });
    found.unwrap_or(Cow::Borrowed(target))
}

/// Text that replaces a credential in a request target.
pub const PLACEHOLDER: &str = "REDACTED";
/// Minimum length of a credential, in bytes, for which hookhold searches other headers for copies. A shorter text could occur
/// in a header by coincidence.
const MIN_COPIED: usize = 8;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn credentials() -> Credentials {
        Credentials::new(vec![HeaderName::from_static("x-api-key")], &["token", "a%20b"])
    }

    #[test]
    fn a_request_target_keeps_everything_but_its_credentials() {
        for (target, redacted) in [
            ("/hooks/a", "/hooks/a"),
            ("/hooks/a?", "/hooks/a?"),
            ("/hooks/a?token=s3cret", "/hooks/a?token=REDACTED"),
            ("/hooks/a?x=1&token=s3cret&y=%20&token=other", "/hooks/a?x=1&token=REDACTED&y=%20&token=REDACTED"),
            ("/hooks/a?to%6ben=s3cret&a%20b=s3cret", "/hooks/a?to%6ben=REDACTED&a%20b=REDACTED"),
            ("/hooks/a?token=s3=cret?token=x", "/hooks/a?token=REDACTED"),
            ("/hooks/a?token=&token&tokens=y", "/hooks/a?token=&token&tokens=y"),
            ("/hooks/a?%2574oken=x&token%5b%5d=x", "/hooks/a?%2574oken=REDACTED&token%5b%5d=REDACTED"),
            ("/hooks/a??token=x&+token%20=x", "/hooks/a??token=REDACTED&+token%20=REDACTED"),
            ("/hooks/a?Token=x&TO%4BEN=y", "/hooks/a?Token=REDACTED&TO%4BEN=REDACTED"),
            ("/hooks/a?x=1;token=s3cret;y=2&z=3", "/hooks/a?x=1;token=REDACTED&z=3"),
            ("/hooks/a?%ff=1&token=\u{fc}", "/hooks/a?%ff=1&token=REDACTED"),
            ("http://u:p@host/hooks/a?token=s", "http://REDACTED@host/hooks/a?token=REDACTED"),
            ("http://u:p@q@host", "http://REDACTED@host"),
            ("http://host/a@b", "http://host/a@b"),
            ("/hooks/a?back=http://u:p@host/", "/hooks/a?back=http://u:p@host/"),
        ] {
            assert_eq!(credentials().redact(target), redacted);
        }
        assert_eq!(Credentials::default().redact("/a?token=s"), "/a?token=s");
    }

    #[test]
    fn no_header_contains_a_credential_or_its_copy() {
        let fields = [
            ("x-api-key", "k-123456789"),
            ("x-api-key", "Bearer k-987654321"),
            ("authorization", "Basic eA=="),
            ("x-original-url", "/hooks/a?token=t%2D12345678"),
            ("x-decoded-url", "/hooks/a?token=t-12345678"),
            ("x-forwarded-key", "k-987654321"),
            ("x-request-id", "k-1234"),
        ];
        let fields = fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers = HeaderMap::from_iter(fields);
        let names = |credentials: &Credentials| -> Vec<String> {
            let remaining = credentials.remaining_headers(&headers, "/hooks/a?token=t%2D12345678");
            remaining.iter().map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(names(&credentials()), ["x-request-id"]);
        assert_eq!(names(&Credentials::default()).len(), 6, "only Authorization is always a credential");
    }

    #[test]
    fn a_short_token_removes_no_unrelated_header() {
        let fields = [("x-api-key", "1"), ("content-length", "11")];
        let fields = fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let remaining = credentials().remaining_headers(&HeaderMap::from_iter(fields), "/hooks/a");
        assert_eq!(remaining.len(), 1);
    }
}
