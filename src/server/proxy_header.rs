//! Reads the PROXY header with which a trusted proxy names the client of a connection (PROXY protocol, version 2).

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Header, PROTOCOL_PREFIX};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::proxies::canonical;

/// Reads the PROXY v2 header at the start of a connection, and leaves the bytes after the header unread. Returns the
/// client's address; `None` if the header names no client, for example in a health check by the proxy itself. Sets
/// `has_started` when the first byte has arrived. The error is `InvalidData` if the header is malformed, and `UnexpectedEof`
/// if the connection ends within the header.
pub async fn read_proxy_header<S>(stream: &mut S, has_started: &mut bool) -> io::Result<Option<SocketAddr>>
where
    S: AsyncRead + Unpin,
{
    let mut header = vec![0; FIXED_PART_BYTES];
    header[0] = stream.read_u8().await?;
    *has_started = true;
    stream.read_exact(&mut header[1..]).await?;
    if !header.starts_with(PROTOCOL_PREFIX) {
        return Err(invalid(HEADER_MISSING));
    }
    let rest = usize::from(u16::from_be_bytes([header[FIXED_PART_BYTES - 2], header[FIXED_PART_BYTES - 1]]));
    if rest > MAX_VARIABLE_PART_BYTES {
        let most = MAX_VARIABLE_PART_BYTES;
        let what =
            format!("PROXY header: expected at most {most} bytes after the fixed part, found {rest}; send fewer extensions");
        return Err(invalid(what));
    }
    header.resize(FIXED_PART_BYTES + rest, 0);
    stream.read_exact(&mut header[FIXED_PART_BYTES..]).await?;
    // The receiver must ignore the address family and the addresses of a connection that the proxy opens for itself.
    if header[VERSION_AND_COMMAND] == VERSION_2_LOCAL {
        return Ok(None);
    }
    let header = Header::try_from(&header[..]).map_err(|_| invalid(HEADER_MALFORMED))?;
    Ok(match header.addresses {
        Addresses::IPv4(from) => Some((from.source_address, from.source_port).into()),
        Addresses::IPv6(from) => Some(canonical((from.source_address, from.source_port).into())),
        Addresses::Unspecified | Addresses::Unix(_) => None,
    })
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

const HEADER_MISSING: &str =
    "PROXY header: expected version 2, found none; enable PROXY protocol v2 in the proxy, or set proxy_protocol = false";
const HEADER_MALFORMED: &str =
    "PROXY header: expected valid fields of version 2, found malformed ones; enable PROXY protocol v2 in the proxy";

/// Length of the fixed part of a PROXY v2 header, in bytes: signature, version, family and length field (PROXY protocol
/// specification, section 2.2).
const FIXED_PART_BYTES: usize = 16;

/// Position of the byte with the version and the command.
const VERSION_AND_COMMAND: usize = 12;
/// Version 2 and the command LOCAL.
const VERSION_2_LOCAL: u8 = 0x20;

/// Maximum length of the variable part of a PROXY v2 header (addresses and extensions), in bytes. Addresses take 36
/// bytes; the extensions that common proxies send take a few hundred bytes at most.
const MAX_VARIABLE_PART_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    async fn client(version_and_command: u8, family: u8, addresses: &[u8]) -> Result<Option<SocketAddr>, io::ErrorKind> {
        let length = (addresses.len() as u16).to_be_bytes();
        let header = [PROTOCOL_PREFIX, &[version_and_command, family], &length, addresses].concat();
        read_proxy_header(&mut &header[..], &mut false).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_local_connection_is_accepted_whatever_its_addresses_are() {
        for (family, addresses) in [(0, &[][..]), (0x11, &[1; 12]), (0x21, &[1; 12]), (0x41, &[1; 5]), (0xff, &[])] {
            assert_eq!(client(VERSION_2_LOCAL, family, addresses).await, Ok(None), "{family:#x}");
        }
        assert_eq!(client(0x21, 0x41, &[1; 5]).await, Err(io::ErrorKind::InvalidData));
        assert_eq!(client(0x21, 0x11, &[1; 12]).await, Ok(Some(SocketAddr::from(([1, 1, 1, 1], 257)))));
    }
}
