//! Maps an IP address to the address that identifies its sender in limits and in log sampling.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the address that identifies a sender. An IPv4 address is returned unchanged. For an IPv6 address, the first
/// address of its /64 is returned, because a single customer of a network provider has at least a /64.
pub fn sender_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}
