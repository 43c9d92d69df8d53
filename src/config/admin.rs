//! Reads `[admin]`, and checks that only a listener on a loopback address works without a token.

use std::net::{Ipv4Addr, SocketAddr};

use super::AdminConfig;
use crate::limits::AdminLimits;
use crate::secret::{self, Secret};
use crate::toml_value::{Item, TomlTable};

/// Reads the options of the section `[admin]`.
pub(super) fn read(t: &mut TomlTable) -> AdminConfig {
    let config = AdminConfig {
        listen: address(t, AdminConfig::default().listen),
        hosts: t.take_list("hosts").unwrap_or_default().into_iter().filter_map(host).collect(),
        token: t.take("token").and_then(token),
        limits: AdminLimits::take(t),
    };
    let is_loopback = config.listen.ip().to_canonical().is_loopback();
    if !is_loopback && config.token.is_none() && t.accepts(&["listen", "token"]) {
        let found = format_args!("{} and no token; set token = \"env:NAME\" or \"file:PATH\"", config.listen);
        t.expected("listen", "a loopback address such as 127.0.0.1:9464, or a token", found);
    }
    config
}

/// Reads the option `listen`.
pub(super) fn address(t: &mut TomlTable, default: SocketAddr) -> SocketAddr {
    t.take("listen").and_then(|item| item.parse(ADDRESS, |text| text.parse().ok())).unwrap_or(default)
}

/// Reads a name that the field `Host` may contain.
fn host(item: Item) -> Option<String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let is_name = |text: &str| (1..=MAX_HOST_BYTES).contains(&text.len()) && text.chars().all(is_plain);
    let name = item.parse(HOST, |text| is_name(text).then(|| text.to_ascii_lowercase()))?;
    match name.parse::<Ipv4Addr>() {
        Ok(_) => item.expected("a host name", "an IP address; remove it, because every IP address is allowed"),
        Err(_) => Some(name),
    }
}

fn token(item: Item) -> Option<Secret> {
    if item.is_table() {
        return item.unexpected("\"env:NAME\" or \"file:PATH\"");
    }
    let token = secret::read(item.clone())?;
    let is_usable =
        token.is_absent() || (token.bytes.iter().all(u8::is_ascii_graphic) && TOKEN_BYTES.contains(&token.bytes.len()));
    if is_usable { Some(token) } else { item.expected(TOKEN, "another text; write the output of `openssl rand -hex 32` to it") }
}

const ADDRESS: &str = "a string such as \"0.0.0.0:8080\" or \"[::]:8080\"";
const HOST: &str = "a host name without a port, such as \"hookhold.internal\"";
const TOKEN: &str = "a secret of 16 to 256 visible ASCII characters without spaces";
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=256;
/// Maximum length of a DNS name in bytes (RFC 1035, section 2.3.4).
const MAX_HOST_BYTES: usize = 253;
