//! Reserves free TCP ports for processes that a test starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Reserves a free TCP port and returns its address. Before a test uses a TCP port, this function binds the UDP port with the
/// same number. No other test can therefore use the TCP port while the returned UDP socket exists. The port is outside the
/// kernel's range for outgoing connections. Inside this range, the kernel could assign the port to a sender's connection while
/// the gateway is down.
pub fn reserve() -> (SocketAddr, UdpSocket) {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..32_000)));
        if let (Ok(reserved), Ok(_free)) = (UdpSocket::bind(address), TcpListener::bind(address)) {
            return (address, reserved);
        }
    }
}
