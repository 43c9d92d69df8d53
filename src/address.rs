//! Groups addresses into senders for limits and sampling.

use std::net::{IpAddr, Ipv6Addr};

/// Who counts as one sender: an IPv4 address, or the /64 that a single IPv6 customer has at least.
pub fn sender(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}
