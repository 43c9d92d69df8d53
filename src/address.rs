//! Maps an IP address to the address that identifies the sender in limits and in log sampling.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the address that identifies a sender. For IPv4, this is the sender's own address. For IPv6, this is the first
/// address of the sender's /64 network, because a single customer of a network provider has at least a /64 network and can
/// send from any address in this network.
pub fn sender_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}
