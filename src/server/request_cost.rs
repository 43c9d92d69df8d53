//! Fixed cost of a request, and the numbers of requests that fit into the limits of the server.

use super::open_connections::RESERVED_PART;
use crate::limits::ServerLimits;

/// Returns the number of requests under way that fit into all limits of the server.
pub(super) fn max_requests(limits: &ServerLimits) -> usize {
    limits.max_requests.min(limits.max_in_flight / REQUEST_BYTES)
}

/// Returns the maximum number of requests from one address that is not known good: half of those that are not reserved, but at
/// least [`MIN_REQUESTS_PER_ADDRESS`].
pub(super) fn max_requests_per_address(limits: &ServerLimits) -> usize {
    let max_requests = max_requests(limits);
    ((max_requests - max_requests / RESERVED_PART) / 2).max(MIN_REQUESTS_PER_ADDRESS)
}

/// Fixed cost of a request: its tasks, its state in hyper and h2, and the read buffers that the pieces of its head and body occupy.
pub(super) const REQUEST_BYTES: usize = 16 * 1024;

/// Half of the requests that are not reserved if `max_requests` has its smallest value.
const MIN_REQUESTS_PER_ADDRESS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_half_of_the_requests_that_are_not_reserved() {
        let limits = ServerLimits::default();
        assert_eq!((max_requests(&limits), max_requests_per_address(&limits)), (10_000, 3_750));
        let limits = ServerLimits { max_in_flight: 8 << 20, ..limits };
        assert_eq!((max_requests(&limits), max_requests_per_address(&limits)), (512, 192), "the memory is the tighter limit");
        let limits = ServerLimits { max_requests: 16, ..limits };
        assert_eq!(max_requests_per_address(&limits), 6);
    }
}
