//! Reads the option `public_url`, the URL that a provider calls. A provider that signs the URL uses the URL that the operator
//! entered in the provider's dashboard. A proxy can change `Host` and the forwarding headers, so hookhold never builds the
//! signed URL from these headers. It builds the URL from the configuration and the request line.

use std::fmt;

use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::toml_value::Item;

/// Scheme, credentials, host, port and path prefix of the URL that a provider calls. The complete URL also contains the request
/// target. The password is a secret: `Display` and `Debug` mask it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl {
    as_written: BaseUrl,
    normalized: BaseUrl,
}

/// A URL with and without its port.
#[derive(Clone, PartialEq, Eq)]
struct BaseUrl {
    own: String,
    other_port: String,
}

impl PublicUrl {
    /// Creates a `PublicUrl` from a text that [`read`] has accepted. Stores the URL as configured and as a URL parser writes it,
    /// and for both a second URL that differs only in the port (see [`PublicUrl::other_port`]).
    pub fn new(text: &str) -> PublicUrl {
        let parts = UrlParts::of(text.trim_end_matches('/'));
        PublicUrl { as_written: parts.base(), normalized: parts.normalized().as_parts().base() }
    }

    /// Returns the configured URL without a trailing slash. It may contain a password: print the URL with `Display` instead.
    pub fn as_written(&self) -> &str {
        &self.as_written.own
    }

    /// Returns the configured URL without its port. If the configured URL has no port, returns the URL with the scheme's
    /// default port.
    pub fn other_port(&self) -> &str {
        &self.as_written.other_port
    }

    /// Returns the URL as the parser of the WHATWG URL standard writes it: scheme and host in lower case, no default port, and
    /// special characters percent-encoded. If `other_port` is true, adds or removes the port.
    pub fn normalized(&self, other_port: bool) -> &str {
        if other_port { &self.normalized.other_port } else { &self.normalized.own }
    }

    /// Returns the configured URL without a trailing slash and without user name and password.
    pub fn without_credentials(&self) -> String {
        UrlParts { credentials: "", ..UrlParts::of(self.as_written()) }.text()
    }

    /// Returns the user name and password with a trailing `@`, or an empty string.
    pub fn credentials(&self) -> &str {
        UrlParts::of(self.as_written()).credentials
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = UrlParts::of(self.as_written());
        match parts.credentials.split_once(':') {
            None => f.write_str(self.as_written()),
            Some((user, _)) => f.write_str(&UrlParts { credentials: &format!("{user}:{MASK}@"), ..parts }.text()),
        }
    }
}

impl fmt::Debug for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicUrl({self})")
    }
}

/// The parts of a URL. The texts of all parts joined are the URL.
#[derive(Clone, Copy)]
struct UrlParts<'u> {
    /// The scheme with `://`.
    scheme: &'u str,
    /// User name and password with `@`, or an empty string.
    credentials: &'u str,
    host: &'u str,
    /// The port with its colon, or an empty string.
    port: &'u str,
    path: &'u str,
}

impl<'u> UrlParts<'u> {
    fn of(text: &'u str) -> UrlParts<'u> {
        let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + 3));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (credentials, address) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        // The colons inside the brackets of an IPv6 address do not start a port.
        let after_address = address.rfind(']').map_or(0, |end| end + 1);
        let colon = address[after_address..].find(':').map_or(address.len(), |colon| after_address + colon);
        let (host, port) = address.split_at(colon);
        UrlParts { scheme, credentials, host, port, path }
    }

    fn text(&self) -> String {
        [self.scheme, self.credentials, self.host, self.port, self.path].concat()
    }

    fn default_port(&self) -> &'static str {
        if self.scheme.eq_ignore_ascii_case("https://") { ":443" } else { ":80" }
    }

    fn base(&self) -> BaseUrl {
        let other = if self.port.is_empty() { self.default_port() } else { "" };
        BaseUrl { own: self.text(), other_port: UrlParts { port: other, ..*self }.text() }
    }

    fn normalized(&self) -> NormalizedParts {
        let (user, password) = self.credentials.trim_end_matches('@').split_once(':').unwrap_or((self.credentials, ""));
        let user = encoded(user.trim_end_matches('@'), USER);
        let password = if password.is_empty() { String::new() } else { format!(":{}", encoded(password, USER)) };
        let credentials = user + &password;
        NormalizedParts {
            scheme: self.scheme.to_ascii_lowercase(),
            credentials: if credentials.is_empty() { credentials } else { credentials + "@" },
            host: self.host.to_ascii_lowercase(),
            port: if self.port == self.default_port() { String::new() } else { self.port.to_owned() },
            path: encoded(self.path, PATH),
        }
    }
}

/// The parts of a URL as a URL parser writes them.
struct NormalizedParts {
    scheme: String,
    credentials: String,
    host: String,
    port: String,
    path: String,
}

impl NormalizedParts {
    fn as_parts(&self) -> UrlParts<'_> {
        let NormalizedParts { scheme, credentials, host, port, path } = self;
        UrlParts { scheme, credentials, host, port, path }
    }
}

fn encoded(text: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(text, set).to_string()
}

/// Reads the option `public_url` and removes trailing slashes. If the value is invalid, reports the mistake but still returns a
/// URL, so that the caller does not report the option as missing. A message never contains the value, because the value may
/// contain a password.
pub fn read(item: Item) -> PublicUrl {
    let Some(text) = item.clone().string_as(EXPECTED) else { return PublicUrl::new("") };
    let url = text.parse::<Uri>().unwrap_or_default();
    let is_http = matches!(url.scheme_str(), Some("https" | "http"));
    let has_host = url.host().is_some_and(|host| !host.is_empty());
    if !(is_http && has_host) || text.contains(['?', '#']) {
        item.location.expected(EXPECTED, "an invalid string");
    }
    PublicUrl::new(&text)
}

/// Description of a valid `public_url`, for error messages.
pub const EXPECTED: &str = "a URL such as \"https://hooks.example.com\" without query or fragment";
/// Text that replaces a password in output.
const MASK: &str = "***";
/// The characters that a URL parser escapes in a query whose scheme is http or https
/// (<https://url.spec.whatwg.org/#special-query-percent-encode-set>).
pub(crate) const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'\'');
/// The characters that a URL parser escapes in a path.
pub(crate) const PATH: &AsciiSet = &QUERY.remove(b'\'').add(b'?').add(b'`').add(b'{').add(b'}');
/// The characters that a URL parser escapes in a user name or password.
const USER: &AsciiSet =
    &PATH.add(b'/').add(b':').add(b';').add(b'=').add(b'@').add(b'[').add(b'\\').add(b']').add(b'^').add(b'|');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_port_adds_or_removes_the_port() {
        for (written, other) in [
            ("https://a.example", "https://a.example:443"),
            ("http://a.example/in", "http://a.example:80/in"),
            ("https://a.example:443", "https://a.example"),
            ("https://a.example:8443/in/b:c", "https://a.example/in/b:c"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]"),
            ("https://user:pass@a.example", "https://user:pass@a.example:443"),
            ("https://user:8443@a.example:8443/in", "https://user:8443@a.example/in"),
            ("https://user@[2001:db8::1]", "https://user@[2001:db8::1]:443"),
        ] {
            assert_eq!(PublicUrl::new(written).other_port(), other);
        }
    }

    #[test]
    fn a_normalized_url_is_written_like_a_browsers() {
        // node -p 'new URL(URL).toString()'
        for (written, normalized, other) in [
            ("https://A.example", "https://a.example", "https://a.example:443"),
            ("HTTPS://a.example:443/In", "https://a.example/In", "https://a.example:443/In"),
            ("http://a.example:8080", "http://a.example:8080", "http://a.example"),
            ("https://us'er:p|{ss@a.example", "https://us'er:p%7C%7Bss@a.example", "https://us'er:p%7C%7Bss@a.example:443"),
            ("https://user:@a.example", "https://user@a.example", "https://user@a.example:443"),
            ("https://a.example/in'{é", "https://a.example/in'%7B%C3%A9", "https://a.example:443/in'%7B%C3%A9"),
        ] {
            let url = PublicUrl::new(written);
            assert_eq!((url.normalized(false), url.normalized(true)), (normalized, other), "{written}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        for (written, shown) in [
            ("https://user:pass@a.example:8443/in", "https://user:***@a.example:8443/in"),
            ("https://user:p@ss@a.example", "https://user:***@a.example"),
            ("https://:pass@a.example", "https://:***@a.example"),
            ("https://user@a.example", "https://user@a.example"),
            ("https://a.example", "https://a.example"),
        ] {
            let url = PublicUrl::new(written);
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), format!("PublicUrl({shown})")));
        }
    }
}
