//! Fuzz targets of the headers in which a proxy names the client. Each target compares hookhold's result with a model.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use hookhold::server::{Proxies, read_proxy_header};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, ReadBuf};

/// Reads the PROXY header at the start of a connection. The first byte is the size of the pieces in which the bytes arrive.
pub fn proxy_header(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let mut stream = Pieces { rest: bytes, size: usize::from(first).max(1) };
    let mut has_started = false;
    let result = {
        let mut read = pin!(read_proxy_header(&mut stream, &mut has_started));
        match read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result.map_err(|error| error.kind()),
            Poll::Pending => panic!("the reader waits although all bytes have arrived"),
        }
    };
    assert_eq!(has_started, !bytes.is_empty());
    let expected = client_in(bytes);
    assert_eq!(result, expected.map(|(client, _)| client));
    if let Ok((_, size)) = expected {
        assert_eq!(stream.rest.len(), bytes.len() - size, "the reader must leave the bytes after the header");
    }
}

/// Returns the client that the PROXY header names, and the size of the header (PROXY protocol specification, section 2.2).
fn client_in(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), io::ErrorKind> {
    let (fixed, rest) = bytes.split_first_chunk::<16>().ok_or(io::ErrorKind::UnexpectedEof)?;
    let size = usize::from(fixed[14]) * 256 + usize::from(fixed[15]);
    if fixed[..12] != *b"\r\n\r\n\0\r\nQUIT\n" || size > MAX_EXTENSIONS {
        return Err(io::ErrorKind::InvalidData);
    }
    let variable = rest.get(..size).ok_or(io::ErrorKind::UnexpectedEof)?;
    let client = match (fixed[12], fixed[13] >> 4, fixed[13] & 15) {
        // LOCAL: the receiver ignores the addresses.
        (0x20, ..) => None,
        (0x21, 0..=3, 3..) | (0x21, 4.., _) => return Err(io::ErrorKind::InvalidData),
        (0x21, 0, _) => None,
        (0x21, 1, _) => {
            let part = variable.get(..12).ok_or(io::ErrorKind::InvalidData)?;
            Some((<[u8; 4]>::try_from(&part[..4]).expect("four bytes"), port(&part[8..])).into())
        }
        (0x21, 2, _) => {
            let part = variable.get(..36).ok_or(io::ErrorKind::InvalidData)?;
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(&part[..16]).expect("16 bytes"));
            let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
            Some(SocketAddr::new(address, port(&part[32..])))
        }
        (0x21, _, _) => variable.get(..216).map(|_| None).ok_or(io::ErrorKind::InvalidData)?,
        _ => return Err(io::ErrorKind::InvalidData),
    };
    Ok((client, 16 + size))
}

fn port(bytes: &[u8]) -> u16 {
    u16::from(bytes[0]) << 8 | u16::from(bytes[1])
}

/// Finds the client in `X-Forwarded-For`. Each line is one header field.
pub fn forwarded_for(data: &[u8]) {
    let networks = TRUSTED.iter().map(|network| network.parse().expect("a network")).collect();
    let proxies = Proxies::new(networks, false);
    let fields: Vec<HeaderValue> =
        data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let client = |fields: &[HeaderValue]| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("x-forwarded-for", field.clone());
        }
        proxies.client(PEER, &headers)
    };
    let found = client(&fields);
    let (expected, is_certain) = forwarded_client(&fields);
    assert_eq!(found, expected);
    // A sender can add entries only on the left.
    let forged = HeaderValue::from_static("203.0.113.66");
    let with_forged = client(&[&[forged], &fields[..]].concat());
    let forged_client = if is_certain { expected } else { SocketAddr::from(([203, 0, 113, 66], 0)) };
    assert_eq!(with_forged, forged_client, "a forged entry changes the client");
}

/// Returns the client and true, or the leftmost entry and false if all entries are trusted proxies.
fn forwarded_client(fields: &[HeaderValue]) -> (SocketAddr, bool) {
    let list = fields.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..]);
    let mut client = PEER;
    if fields.is_empty() {
        return (client, false);
    }
    for entry in list.split(|byte| *byte == b',').rev() {
        let Some(address) = entry_address(entry) else { return (client, true) };
        client = address;
        let is_trusted = match client.ip() {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.segments()[..2] == [0x2001, 0xdb8],
        };
        if !is_trusted {
            return (client, true);
        }
    }
    (client, false)
}

/// Parses an entry in one of the forms `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:443`.
fn entry_address(entry: &[u8]) -> Option<SocketAddr> {
    let start = entry.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let end = entry.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'))?;
    let text = str::from_utf8(&entry[start..=end]).ok()?;
    let (host, port) = match (text.strip_prefix('['), text.matches(':').count()) {
        (Some(rest), _) => {
            let (host, after) = rest.split_once(']')?;
            (host.parse::<Ipv6Addr>().ok()?.into(), if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        (None, 1) => {
            let (host, port) = text.split_once(':')?;
            (host.parse::<std::net::Ipv4Addr>().ok()?.into(), Some(port))
        }
        (None, _) => (text.parse::<IpAddr>().ok()?, None),
    };
    let port = match port {
        None => 0,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        Some(_) => return None,
    };
    Some(SocketAddr::new(host.to_canonical(), port))
}

/// Stream that contains bytes and returns them in pieces.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (piece, rest) = self.rest.split_at(self.size.min(self.rest.len()).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// Maximum size of the variable part of a PROXY header.
const MAX_EXTENSIONS: usize = 4096;
/// Networks of the trusted proxies.
const TRUSTED: [&str; 2] = ["10.0.0.0/8", "2001:db8::/32"];
/// Address of the proxy that has opened the connection.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 999);
