//! Which peers speak for others, and whose address counts then.
//!
//! Only what a trusted proxy says is believed: the PROXY header it begins a connection with, and what it has added to
//! `X-Forwarded-For`. That list grows to the right, and its left part is whatever the sender made up; so it is read from the
//! right, over every hop that is trusted itself, and the first other one is the client. From any other peer neither changes
//! anything.

use std::io;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The networks in which trusted proxies are.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    networks: Vec<IpNet>,
    announce: bool,
}

impl Proxies {
    /// Trusts peers in `networks`. When they `announce`, each of their connections must begin with a PROXY v2 header.
    pub fn new(networks: Vec<IpNet>, announce: bool) -> Proxies {
        Proxies { networks, announce }
    }

    /// True when what this peer says about others is believed.
    pub(super) fn trust(&self, peer: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// True when this peer begins its connections with a PROXY header.
    pub(super) fn announce(&self, peer: IpAddr) -> bool {
        self.announce && self.trust(peer)
    }

    /// The client that a request of a trusted `peer` is for: the rightmost hop that is not trusted, without a port where the
    /// proxy gives none. What cannot be read ends the search at the hop before it.
    pub(super) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
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

/// An IPv4 address that was carried in an IPv6 one, as itself.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:443`. Each hop by itself: what the sender
/// made up may be any bytes.
fn hop_address(hop: &[u8]) -> Option<SocketAddr> {
    let hop = str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    address.or_else(|_| hop.parse()).ok().map(plain)
}

/// Reads the PROXY v2 header that the peer begins with, and nothing after it. `None`: the proxy speaks for itself, as in its
/// health checks. `began` is set once a byte has come.
pub(super) async fn read_header(stream: &mut TcpStream, began: &mut bool) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; FIXED_PART];
    header[0] = stream.read_u8().await?;
    *began = true;
    stream.read_exact(&mut header[1..]).await?;
    if !header.starts_with(PROTOCOL_PREFIX) {
        return Err(invalid("a trusted proxy did not begin with a PROXY v2 header, which proxy_protocol asks for"));
    }
    let rest = usize::from(u16::from_be_bytes([header[FIXED_PART - 2], header[FIXED_PART - 1]]));
    if rest > HEADER_LIMIT {
        return Err(invalid("the PROXY header is too long"));
    }
    header.resize(FIXED_PART + rest, 0);
    stream.read_exact(&mut header[FIXED_PART..]).await?;
    let header = Header::try_from(&header[..]).map_err(|_| invalid("the PROXY header is malformed"))?;
    Ok(match header.addresses {
        _ if header.command == Command::Local => None,
        Addresses::IPv4(from) => Some((from.source_address, from.source_port).into()),
        Addresses::IPv6(from) => Some(plain((from.source_address, from.source_port).into())),
        Addresses::Unspecified | Addresses::Unix(_) => None,
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Signature, version, family and length (the specification of the PROXY protocol, section 2.2).
const FIXED_PART: usize = 16;

/// Bytes of addresses and additions in a PROXY header. Addresses take 36; proxies add a few hundred at most.
const HEADER_LIMIT: usize = 4096;

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
    fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
        for (lines, wanted) in [
            (&[][..], "10.0.0.1:999"),
            (&["192.0.2.7"], "192.0.2.7:0"),
            (&["6.6.6.6, 192.0.2.7, 10.2.3.4"], "192.0.2.7:0"),
            (&["6.6.6.6", "192.0.2.7:4711,10.2.3.4"], "192.0.2.7:4711"),
            (&["192.0.2.7", "[2001:db8::5]:80, 10.2.3.4"], "192.0.2.7:0"),
            (&["[2a00::7]"], "[2a00::7]:0"),
            (&["::ffff:192.0.2.7"], "192.0.2.7:0"),
            (&["10.9.9.9, 10.2.3.4"], "10.9.9.9:0"),
        ] {
            assert_eq!(client(lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_ends_the_search() {
        assert_eq!(client(&["6.6.6.6, unknown, 10.2.3.4"]), "10.2.3.4:0");
        assert_eq!(client(&[""]), "10.0.0.1:999");
        assert_eq!(client(&["6.6.6.6, , 10.2.3.4"]), "10.2.3.4:0");
        assert_eq!(client(&["6.6.6.6, \u{e9}, 10.2.3.4"]), "10.2.3.4:0");
    }

    #[test]
    fn what_a_sender_makes_up_does_not_hide_its_address() {
        assert_eq!(client(&["\u{e9}, 192.0.2.7, 10.2.3.4"]), "192.0.2.7:0");
        assert_eq!(client(&["\u{e9}", "\u{e9}\u{e9}, 192.0.2.7"]), "192.0.2.7:0");
    }
}
