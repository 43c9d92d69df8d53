//! Groups addresses into senders, for limits and for sampling.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the address that represents a sender: an IPv4 address itself, or the first address of an IPv6 /64, because a
/// single customer gets at least a /64.
pub fn sender_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}
