//! The URL under which a provider knows a source. A provider that signs it signs what its own dashboard says, so it comes
//! from the configuration and the request line, never from `Host` or a forwarding header.

use http::Uri;

use crate::toml_value::Item;

/// Scheme, host, port and path prefix as providers see them; a request target goes on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    as_written: String,
    other_port: String,
}

impl PublicUrl {
    /// Takes apart what [`read`] has accepted.
    pub fn new(text: &str) -> PublicUrl {
        PublicUrl { as_written: text.to_owned(), other_port: other_port(text) }
    }

    /// As it is configured, without a final slash.
    pub fn as_written(&self) -> &str {
        &self.as_written
    }

    /// With the scheme's own port where none is written, and without the port where one is.
    pub fn other_port(&self) -> &str {
        &self.other_port
    }
}

/// The value of a `public_url`, without a final slash. What is none is noted, and returned all the same: it is wrong, but not
/// missing.
pub fn read(item: Item) -> String {
    let Some(text) = item.clone().string_as(EXPECTED) else { return String::new() };
    let url = text.parse::<Uri>().unwrap_or_default();
    let web = matches!(url.scheme_str(), Some("https" | "http"));
    let bare = url.authority().is_some_and(|host| !host.as_str().contains('@')) && !text.contains(['?', '#']);
    if !(web && bare) {
        item.location.expected(EXPECTED, "another string");
    }
    text.trim_end_matches('/').to_owned()
}

fn other_port(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // The colons of an IPv6 address stand inside its brackets.
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    let port = authority[after_address..].find(':').map(|colon| after_address + colon);
    let own = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    match port {
        Some(colon) => format!("{scheme}://{}{prefix}", &authority[..colon]),
        None => format!("{scheme}://{authority}{own}{prefix}"),
    }
}

/// The form of a `public_url`.
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
