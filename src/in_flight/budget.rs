//! Limits on the memory of requests and on the number of requests under way, for the whole server or for one sender address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Limits on the memory of requests in bytes and on the number of requests under way, and the current values. Clones share the
/// values.
#[derive(Clone, Debug)]
pub struct InFlightBudget {
    max_bytes: usize,
    max_requests: usize,
    /// Number of bytes, plus [`ONE_REQUEST`] for each request under way. A request therefore costs one atomic operation.
    pub(super) used: Arc<AtomicU64>,
    /// Larger budget of which this budget is a part.
    whole: Option<Arc<InFlightBudget>>,
}

/// Used part of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetUse {
    /// Number of requests under way.
    pub requests: usize,
    /// Number of bytes.
    pub bytes: usize,
}

impl InFlightBudget {
    /// Creates a budget of `max_bytes` bytes that does not limit the number of requests.
    pub fn new(max_bytes: usize) -> InFlightBudget {
        InFlightBudget { max_bytes, max_requests: usize::MAX, used: Arc::default(), whole: None }
    }

    /// Limits the number of requests under way.
    pub fn with_max_requests(self, max_requests: usize) -> InFlightBudget {
        InFlightBudget { max_requests, ..self }
    }

    /// Creates a budget that is this budget without a `reserved`-th of its limits. Requests and bytes in the part also count in the
    /// whole budget.
    pub fn part_without(&self, reserved: usize) -> InFlightBudget {
        let part = InFlightBudget::new(self.max_bytes - self.max_bytes / reserved);
        let max_requests = self.max_requests - self.max_requests / reserved;
        InFlightBudget { whole: Some(Arc::new(self.clone())), ..part.with_max_requests(max_requests) }
    }

    /// Returns a budget that shares the values with this budget, but has no limit.
    pub fn without_limit(&self) -> InFlightBudget {
        InFlightBudget { max_bytes: usize::MAX, max_requests: usize::MAX, ..self.clone() }
    }

    /// Returns the budget of which this budget is a part.
    pub fn whole(&self) -> Option<&InFlightBudget> {
        self.whole.as_deref()
    }

    /// Returns the number of requests under way and the number of bytes.
    pub fn used(&self) -> BudgetUse {
        let used = self.used.load(Relaxed);
        BudgetUse { requests: (used / ONE_REQUEST) as usize, bytes: (used % ONE_REQUEST) as usize }
    }

    /// Returns true if the use exceeds a limit of this budget, without the `leaving` part of the use and without `free` bytes.
    pub fn is_exceeded(&self, leaving: BudgetUse, free: usize) -> bool {
        let BudgetUse { requests, bytes } = self.used();
        let is_over = |used: usize, leaving: usize, max: usize| used.saturating_sub(leaving) > max;
        is_over(bytes, leaving.bytes + free, self.max_bytes) || is_over(requests, leaving.requests, self.max_requests)
    }

    /// Returns true if more requests than permitted are under way, without the `leaving` ones.
    pub fn has_too_many_requests(&self, leaving: BudgetUse) -> bool {
        self.used().requests.saturating_sub(leaving.requests) > self.max_requests
    }

    /// Adds one request under way, and `bytes` for its head and its fixed cost. Returns false and adds nothing if the other
    /// requests use up the budget. Otherwise, the caller must call [`InFlightBudget::end_request`] or pass `bytes` to
    /// [`InFlightCharge::add_request`](super::InFlightCharge::add_request).
    pub fn start_request(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(ONE_REQUEST + bytes as u64, Relaxed);
        let is_within = self.is_within(before) && before / ONE_REQUEST < self.max_requests as u64;
        if is_within && self.whole().is_none_or(|whole| whole.start_request(bytes)) {
            return true;
        }
        self.used.fetch_sub(ONE_REQUEST + bytes as u64, Relaxed);
        false
    }

    /// Adds one request under way like [`InFlightBudget::start_request`], although the budget may be used up.
    pub fn start_request_beyond(&self, bytes: usize) {
        self.used.fetch_add(ONE_REQUEST + bytes as u64, Relaxed);
        if let Some(whole) = self.whole() {
            whole.start_request_beyond(bytes);
        }
    }

    /// Releases a request under way and its `bytes`.
    pub fn end_request(&self, bytes: usize) {
        self.release_use(BudgetUse { requests: 1, bytes });
    }

    /// Adds `bytes` to the number of bytes. Returns the previous number, and true if the new number exceeds the limit without the
    /// `free` bytes in it.
    pub(super) fn add(&self, bytes: usize, free: usize) -> (usize, bool) {
        let before = self.used.fetch_add(bytes as u64, Relaxed);
        ((before % ONE_REQUEST) as usize, !self.is_within(before + bytes as u64 - free as u64))
    }

    /// Adds `bytes` to this budget and to the whole budget. `own` is the memory that the request has charged before. Returns true if
    /// this exceeds a limit. The largest request in a part may exceed the limit of the part.
    pub(super) fn exceeds_with(&self, own: RequestMemory, bytes: usize) -> bool {
        let (before, exceeded) = self.add(bytes, own.head);
        let Some(whole) = self.whole() else { return exceeded };
        whole.exceeds_with(own, bytes) || (exceeded && !own.is_largest(before))
    }

    pub(super) fn release(&self, bytes: usize) {
        self.release_use(BudgetUse { requests: 0, bytes });
    }

    pub(super) fn release_use(&self, released: BudgetUse) {
        self.used.fetch_sub(released.requests as u64 * ONE_REQUEST + released.bytes as u64, Relaxed);
        if let Some(whole) = self.whole() {
            whole.release_use(released);
        }
    }

    fn is_within(&self, used: u64) -> bool {
        used % ONE_REQUEST <= self.max_bytes as u64
    }
}

/// Memory of one request, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestMemory {
    /// Memory of the head with the fixed cost of a request; 0 if the server's budget does not count the request as under way.
    pub head: usize,
    /// Memory of the body, or of a connection.
    pub body: usize,
}

impl RequestMemory {
    /// Returns the number of bytes.
    pub fn bytes(self) -> usize {
        self.head + self.body
    }

    /// Returns true if this memory is at least as large as the rest of the `used` bytes.
    pub fn is_largest(self, used: usize) -> bool {
        self.bytes() >= used.saturating_sub(self.bytes())
    }

    /// Returns the part of the server's budget that the request uses.
    pub fn budget_use(self) -> BudgetUse {
        BudgetUse { requests: usize::from(self.head > 0), bytes: self.bytes() }
    }

    pub(super) fn release(self, server: &InFlightBudget, address: &InFlightBudget) {
        server.release_use(self.budget_use());
        address.release_use(self.budget_use());
    }
}

/// One request in [`InFlightBudget::used`]. The lower bits contain the number of bytes, whose limit is at most 1 TiB. The rest
/// leaves room for the bytes that other threads have added beyond the limit and not yet released.
const ONE_REQUEST: u64 = 1 << 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_requests_and_heads_is_reserved() {
        let whole = InFlightBudget::new(100).with_max_requests(8);
        let part = whole.part_without(4);
        assert_eq!([(); 7].map(|()| part.start_request(1)), [true, true, true, true, true, true, false]);
        assert_eq!([(); 3].map(|()| whole.start_request(1)), [true, true, false], "two requests are reserved");
        (0..6).for_each(|_| part.end_request(1));
        assert!(part.start_request(80) && !part.start_request(1), "the other head uses more than 75 bytes");
        assert!(whole.start_request(1));
        part.end_request(80);
        (0..3).for_each(|_| whole.end_request(1));
        assert_eq!([whole, part].map(|budget| budget.used()), [BudgetUse::default(); 2]);
    }
}
