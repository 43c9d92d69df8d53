//! Finds the address of a sender whose requests pass through proxies.
//!
//! Only a trusted proxy can name the sender's address, either in the PROXY header at the start of its connection
//! ([`read_proxy_header`](super::proxy_header::read_proxy_header)) or in the entry that it appends to `X-Forwarded-For`.
//! hookhold accepts neither header from any other peer. Each proxy appends its entry at the right end of the list, so a
//! sender can forge only entries to the left of the proxies' entries. hookhold therefore reads the list from the right
//! and skips the addresses of trusted proxies. The first remaining address is the client's address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// Set of networks that contain the trusted proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    networks: Vec<IpNet>,
    proxy_protocol: bool,
}

impl Proxies {
    /// Creates the set of trusted proxies: all peers in `networks`. If `proxy_protocol` is true, each connection from
    /// these peers must start with a PROXY v2 header.
    pub fn new(networks: Vec<IpNet>, proxy_protocol: bool) -> Proxies {
        Proxies { networks, proxy_protocol }
    }

    /// Returns true if this peer is a trusted proxy.
    pub(super) fn trust(&self, peer: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Returns true if each connection from this peer must start with a PROXY header.
    pub(super) fn must_send_header(&self, peer: IpAddr) -> bool {
        self.proxy_protocol && self.trust(peer)
    }

    /// Returns the address of the client whose request the trusted proxy `peer` forwards. The address is in the rightmost
    /// `X-Forwarded-For` entry that does not name a trusted proxy, or in the leftmost entry if all entries name trusted
    /// proxies. The port is 0 if the entry has no port. If an entry is unreadable, the search stops, and the function returns
    /// the address to the right of that entry, or `peer` if that entry is the rightmost one.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let mut client = peer;
        for line in headers.get_all("x-forwarded-for").iter().rev() {
            for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
                let Some(address) = hop_address(hop) else { return client };
                client = address;
                if !self.trust(client.ip()) {
                    return client;
                }
            }
        }
        client
    }
}

/// Converts an IPv4-mapped IPv6 address into an IPv4 address. Leaves other addresses unchanged.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Parses `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:443`; returns `None` for any
/// other input. The input is a byte slice, because a forged `X-Forwarded-For` entry may be invalid UTF-8.
fn hop_address(hop: &[u8]) -> Option<SocketAddr> {
    // The scope of an address has a meaning only on the machine of the proxy.
    let hop = str::from_utf8(hop.trim_ascii()).ok().filter(|hop| !hop.contains('%'))?;
    let address = match hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(bare) => SocketAddr::new(bare.parse::<Ipv6Addr>().ok()?.into(), 0),
        None => hop.parse().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| hop.parse()).ok()?,
    };
    Some(canonical(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(lines: &[&str]) -> String {
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()], false);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        proxies.client("10.0.0.1:999".parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_hop() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1:999"),
            (&["192.0.2.7"], "192.0.2.7:0"),
            (&["6.6.6.6, 192.0.2.7, 10.2.3.4"], "192.0.2.7:0"),
            (&["6.6.6.6", "192.0.2.7:4711,10.2.3.4"], "192.0.2.7:4711"),
            (&["192.0.2.7", "[2001:db8::5]:80, 10.2.3.4"], "192.0.2.7:0"),
            (&["[2a00::7]"], "[2a00::7]:0"),
            (&["::ffff:192.0.2.7"], "192.0.2.7:0"),
            (&["10.9.9.9, 10.2.3.4"], "10.9.9.9:0"),
        ] {
            assert_eq!(client(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn an_unreadable_hop_ends_the_search_for_the_client() {
        assert_eq!(client(&["6.6.6.6, unknown, 10.2.3.4"]), "10.2.3.4:0");
        assert_eq!(client(&[""]), "10.0.0.1:999");
        assert_eq!(client(&["6.6.6.6, , 10.2.3.4"]), "10.2.3.4:0");
        assert_eq!(client(&["6.6.6.6, \u{e9}, 10.2.3.4"]), "10.2.3.4:0");
        for hop in ["[192.0.2.7]", "[fe80::1%5]:80", "[fe80::1%0]:80", "\u{3000}192.0.2.7", "192.0.2.7:", "[2a00::7]80"] {
            assert_eq!(client(&[hop, "10.2.3.4"]), "10.2.3.4:0", "{hop}");
        }
    }

    #[test]
    fn made_up_hops_do_not_hide_the_senders_address() {
        assert_eq!(client(&["\u{e9}, 192.0.2.7, 10.2.3.4"]), "192.0.2.7:0");
        assert_eq!(client(&["\u{e9}", "\u{e9}\u{e9}, 192.0.2.7"]), "192.0.2.7:0");
    }
}
