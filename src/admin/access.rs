//! Decides which requests the admin listener answers, from the header fields `Host` and `Authorization`.
//!
//! A web page can make a browser on the same network send requests to this listener. If the page's DNS name resolves to the
//! listener's address, the browser treats the pages of both as one origin, and the page could read every response (DNS
//! rebinding). Such a request has the page's name in `Host`. The listener therefore rejects every name that is not configured.
//! An IP address needs no configuration, because it cannot be rebound.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Version};
use subtle::ConstantTimeEq;

use crate::log::escaped;
use crate::secret::Secret;

/// Handle to the rules by which the admin listener answers requests. A clone is cheap and refers to the same rules.
#[derive(Clone)]
pub struct AdminAccess(Arc<ArcSwap<AccessRules>>);

struct AccessRules {
    /// Names that `Host` may contain, in lower case, in addition to `localhost` and IP addresses.
    hosts: Vec<String>,
    /// Token of each client; `None` if every client may read every page.
    token: Option<Secret>,
}

/// Part of the pages that a client may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessLevel {
    /// Every page.
    Full,
    /// The status of `/livez` and `/readyz`. The text explains why the client may not read the other pages.
    Status(&'static str),
}

impl AdminAccess {
    /// Creates the rules for a listener. `hosts` contains the names that `Host` may contain, in lower case, in addition to
    /// `localhost` and IP addresses. If `token` is `None`, every client may read every page.
    pub fn new(hosts: Vec<String>, token: Option<Secret>) -> AdminAccess {
        AdminAccess(Arc::new(ArcSwap::from_pointee(AccessRules { hosts, token })))
    }

    /// Replaces the rules for all later requests.
    pub fn replace(&self, hosts: Vec<String>, token: Option<Secret>) {
        self.0.store(Arc::new(AccessRules { hosts, token }));
    }

    /// Returns an error text if the listener must reject the request because of its `Host`.
    pub(super) fn check_host(&self, head: &Parts) -> Result<(), String> {
        let rules = self.0.load();
        let found = match host_fields(&head.headers)[..] {
            [] if head.version <= Version::HTTP_10 => None,
            [] => return Err(rejected_host("none")),
            [host] => Some(host),
            _ => return Err(rejected_host("several fields")),
        };
        let target = head.uri.authority().map(Authority::as_str);
        match found.into_iter().chain(target).find(|host| !rules.allows(host)) {
            Some(host) => Err(rejected_host(&escaped(host))),
            None => Ok(()),
        }
    }

    /// Returns the part of the pages that the sender of a request may read. Compares tokens in constant time.
    pub(super) fn level(&self, headers: &HeaderMap) -> AccessLevel {
        let rules = self.0.load();
        let Some(token) = &rules.token else { return AccessLevel::Full };
        match bearer_token(headers) {
            None => AccessLevel::Status(TOKEN_MISSING),
            Some(sent) if bool::from(sent.ct_eq(&token.bytes)) => AccessLevel::Full,
            Some(_) => AccessLevel::Status(TOKEN_WRONG),
        }
    }
}

impl AccessRules {
    fn allows(&self, host: &str) -> bool {
        let Some(authority) = host.parse::<Authority>().ok().filter(|_| !host.contains('@')) else { return false };
        let name = authority.host();
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = name.parse::<Ipv4Addr>().is_ok() || address.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
        is_address || name.eq_ignore_ascii_case("localhost") || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Returns the values of all `Host` fields. A value that is not text becomes an empty string, which no rule allows.
fn host_fields(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or_default()).collect()
}

/// Returns the token of the only `Authorization` field, or `None` if there is no such field or it has another scheme.
fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, None) = (fields.next()?.as_bytes(), fields.next()) else { return None };
    let (scheme, token) = field.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim_ascii())
}

fn rejected_host(found: &str) -> String {
    format!("host: expected an IP address, \"localhost\" or a name in admin.hosts, found {found}; add the name to admin.hosts\n")
}

const BEARER: &[u8] = b"Bearer ";
const TOKEN_MISSING: &str = "authorization: expected \"Bearer TOKEN\", found none; send the token of [admin] token\n";
const TOKEN_WRONG: &str = "authorization: expected the token of [admin] token, found another one; correct the token\n";

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check(version: Version, uri: &str, hosts: &[&str]) -> Result<(), String> {
        let mut request = Request::get(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        AdminAccess::new(vec!["hooks.internal".into()], None).check_host(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn host_is_an_address_or_a_configured_name() {
        let good = ["127.0.0.1", "10.0.0.7:9464", "[::1]:9464", "[fe80::1]", "localhost", "LOCALHOST:1", "Hooks.Internal:9464"];
        for host in good {
            assert_eq!(check(Version::HTTP_11, "/metrics", &[host]), Ok(()), "{host}");
        }
        let bad = [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "2130706433",
            "0x7f.1",
            "a@127.0.0.1",
            "::1",
            "hooks.internal.",
            "[::1",
        ];
        for host in bad {
            assert!(check(Version::HTTP_11, "/metrics", &[host]).is_err(), "{host}");
        }
    }

    #[test]
    fn exactly_one_host_is_required_since_http_1_1() {
        assert!(check(Version::HTTP_11, "/metrics", &[]).is_err());
        assert_eq!(check(Version::HTTP_10, "/readyz", &[]), Ok(()), "a health check of HAProxy");
        assert!(check(Version::HTTP_10, "/readyz", &["evil.example"]).is_err());
        assert!(check(Version::HTTP_11, "/metrics", &["localhost", "localhost"]).is_err());
        assert!(check(Version::HTTP_11, "http://evil.example/metrics", &["localhost"]).is_err());
    }

    #[test]
    fn only_the_configured_token_gives_full_access() {
        let access = AdminAccess::new(Vec::new(), Some(Secret::new("token", "0123456789abcdef")));
        let level = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, field.parse().expect("a header value"));
            }
            access.level(&headers)
        };
        assert_eq!(level(&["Bearer 0123456789abcdef"]), AccessLevel::Full);
        assert_eq!(level(&["bearer  0123456789abcdef "]), AccessLevel::Full);
        for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer "] {
            assert_eq!(level(&[wrong]), AccessLevel::Status(TOKEN_WRONG), "{wrong}");
        }
        for missing in [&[][..], &["Basic 0123456789abcdef"], &["Bear"], &["Bearer 0123456789abcdef"; 2]] {
            assert_eq!(level(missing), AccessLevel::Status(TOKEN_MISSING), "{missing:?}");
        }
        access.replace(Vec::new(), Some(Secret::new("token", "fedcba9876543210")));
        assert_eq!(level(&["Bearer 0123456789abcdef"]), AccessLevel::Status(TOKEN_WRONG));
        access.replace(Vec::new(), None);
        assert_eq!(level(&[]), AccessLevel::Full);
    }
}
