//! Reads the option `public_url`, the URL that a provider calls. A provider that signs the URL uses the URL that the operator
//! entered in the provider's dashboard. A proxy can change `Host` and the forwarding headers, so hookhold never builds the
//! signed URL from these headers. It builds the URL from the configuration and the request line.

use http::Uri;

use crate::toml_value::Item;

/// Scheme, host, port and path prefix of the URL that a provider calls. The complete URL also contains the request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    as_written: String,
    other_port: String,
}

impl PublicUrl {
    /// Creates a `PublicUrl` from a string that [`read`] has accepted. Stores the URL as configured, and a second URL that
    /// differs only in the port (see [`PublicUrl::other_port`]).
    pub fn new(text: &str) -> PublicUrl {
        PublicUrl { as_written: text.to_owned(), other_port: other_port(text) }
    }

    /// Returns the configured URL without a trailing slash.
    pub fn as_written(&self) -> &str {
        &self.as_written
    }

    /// Returns the configured URL without its port. If the configured URL has no port, returns the URL with the scheme's
    /// default port.
    pub fn other_port(&self) -> &str {
        &self.other_port
    }
}

/// Reads the option `public_url` and removes trailing slashes. If the value is invalid, reports the mistake but still returns a
/// string, so that the caller does not report the option as missing.
pub fn read(item: Item) -> String {
    let Some(text) = item.clone().string_as(EXPECTED) else { return String::new() };
    let url = text.parse::<Uri>().unwrap_or_default();
    let is_http = matches!(url.scheme_str(), Some("https" | "http"));
    let is_bare = url.authority().is_some_and(|host| !host.as_str().contains('@')) && !text.contains(['?', '#']);
    if !(is_http && is_bare) {
        item.location.expected(EXPECTED, "an invalid string");
    }
    text.trim_end_matches('/').to_owned()
}

fn other_port(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // The colons inside the brackets of an IPv6 address do not start a port.
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    let port = authority[after_address..].find(':').map(|colon| after_address + colon);
    let default = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    match port {
        Some(colon) => format!("{scheme}://{}{prefix}", &authority[..colon]),
        None => format!("{scheme}://{authority}{default}{prefix}"),
    }
}

/// Description of a valid `public_url`, for error messages.
pub const EXPECTED: &str = "a URL such as \"https://hooks.example.com\" without query, fragment or user";

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
        ] {
            assert_eq!(PublicUrl::new(written).other_port(), other);
        }
    }
}
