//! Reserves free TCP ports for processes that a test starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Reserves a free TCP port. Returns the address of the port, and a UDP socket that is bound to the UDP port with the same
/// number. While this socket exists, no other call of this function can bind the same UDP port, so no other test gets the same
/// TCP port. The TCP port is outside the kernel's range for outgoing connections. Inside this range, the kernel could assign
/// the port to a sender's connection while the gateway is down.
pub fn reserve() -> (SocketAddr, UdpSocket) {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..32_000)));
        if let (Ok(reserved), Ok(_free)) = (UdpSocket::bind(address), TcpListener::bind(address)) {
            return (address, reserved);
        }
    }
}
