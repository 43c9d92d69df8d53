//! Counts the bytes of request bodies in memory, and limits them for the whole server and for each sender address.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::outcome::Outcome;

/// Limit on the number of request-body bytes in memory, and the current number of these bytes. Clones share the number.
#[derive(Clone, Debug)]
pub struct InFlightBudget {
    limit: usize,
    used: Arc<AtomicUsize>,
}

impl InFlightBudget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> InFlightBudget {
        InFlightBudget { limit, used: Arc::default() }
    }

    /// Adds `bytes` to the number of request-body bytes in memory. Returns the previous number, and true if the new number
    /// exceeds the limit.
    fn add(&self, bytes: usize) -> (usize, bool) {
        let before = self.used.fetch_add(bytes, Relaxed);
        (before, before.saturating_add(bytes) > self.limit)
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// Number of body bytes that one request has charged to two in-flight budgets: the server's budget and the budget of the
/// sender's address. Dropping the charge releases these bytes in both budgets. hookhold rejects a request that exceeds a
/// budget. Exception: an address may send one large body beyond its budget if the total size of its other bodies in memory is
/// at most the size of the large body. Large bodies from one address therefore complete one at a time. While such a body is in
/// memory, another request that exceeds the address's budget gets the outcome `rate_limited`.
#[derive(Debug)]
pub struct InFlightCharge<'a> {
    server: &'a InFlightBudget,
    address: &'a InFlightBudget,
    /// Number of bytes that this charge releases.
    bytes: usize,
    received: usize,
    hashed: usize,
}

impl<'a> InFlightCharge<'a> {
    /// Creates a charge of 0 bytes.
    pub fn new(server: &'a InFlightBudget, address: &'a InFlightBudget) -> InFlightCharge<'a> {
        InFlightCharge { server, address, bytes: 0, received: 0, hashed: 0 }
    }

    /// Returns the number of body bytes that the request has charged so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Adds bytes that hookhold has hashed for the request. These bytes take no memory.
    pub fn add_work(&mut self, bytes: usize) {
        self.hashed += bytes;
    }

    /// Returns the work for the request: the number of bytes that hookhold has received or hashed, whichever is larger.
    pub fn work(&self) -> usize {
        self.received.max(self.hashed)
    }

    /// Charges `bytes` more. If this exceeds a budget, returns the outcome of the request. The charge nevertheless releases
    /// these bytes when it is dropped.
    pub fn add(&mut self, bytes: usize) -> Result<(), Outcome> {
        let before = self.bytes;
        self.bytes += bytes;
        self.received += bytes;
        add(self.server, self.address, before, bytes)
    }

    /// Moves the charged bytes to a charge that may outlive the request.
    pub fn detach(&mut self) -> DetachedCharge {
        let body = std::mem::take(&mut self.bytes);
        DetachedCharge { server: self.server.clone(), address: self.address.clone(), body, output: Cell::new(0) }
    }
}

impl Drop for InFlightCharge<'_> {
    fn drop(&mut self) {
        self.server.release(self.bytes);
        self.address.release(self.bytes);
    }
}

/// Charge for a body that hookhold still needs after the sender may have disconnected, and for the decompressed body. Dropping
/// the charge releases both.
#[derive(Debug)]
pub struct DetachedCharge {
    server: InFlightBudget,
    address: InFlightBudget,
    body: usize,
    output: Cell<usize>,
}

impl DetachedCharge {
    /// Charges `bytes` of the decompressed body. Returns false and charges nothing if this exceeds a budget.
    pub fn add_output(&self, bytes: usize) -> bool {
        let is_within = add(&self.server, &self.address, self.body + self.output.get(), bytes).is_ok();
        if is_within {
            self.output.set(self.output.get() + bytes);
        } else {
            self.release(bytes);
        }
        is_within
    }

    /// Releases the bytes of the decompressed body.
    pub fn release_output(&self) {
        self.release(self.output.take());
    }

    fn release(&self, bytes: usize) {
        self.server.release(bytes);
        self.address.release(bytes);
    }
}

impl Drop for DetachedCharge {
    fn drop(&mut self) {
        self.release(self.body + self.output.get());
    }
}

/// Adds `bytes` to both budgets. `own` is the number of bytes that the request has charged before.
fn add(server: &InFlightBudget, address: &InFlightBudget, own: usize, bytes: usize) -> Result<(), Outcome> {
    let (_, server_exceeded) = server.add(bytes);
    let (before, address_exceeded) = address.add(bytes);
    let is_largest = own >= before - own;
    match (address_exceeded && !is_largest, server_exceeded) {
        (true, _) => Err(Outcome::RateLimited),
        (_, true) => Err(Outcome::Overloaded),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_beyond_the_budget_is_rejected_and_returned() {
        let (server, [one, other]) = (InFlightBudget::new(10), [(); 2].map(|()| InFlightBudget::new(10)));
        let mut first = InFlightCharge::new(&server, &one);
        assert_eq!(first.add(6), Ok(()));
        let mut second = InFlightCharge::new(&server, &other);
        assert_eq!(second.add(5), Err(Outcome::Overloaded));
        drop(second);
        assert_eq!(first.add(4), Ok(()));
        drop(first);
        assert_eq!([server, one, other].map(|budget| budget.used.load(Relaxed)), [0; 3]);
    }

    #[test]
    fn only_the_largest_body_may_exceed_its_address_budget() {
        let (server, address) = (InFlightBudget::new(100), InFlightBudget::new(10));
        let mut first = InFlightCharge::new(&server, &address);
        assert_eq!((first.add(6), first.add(6)), (Ok(()), Ok(())));
        let mut second = InFlightCharge::new(&server, &address);
        assert_eq!(second.add(1), Err(Outcome::RateLimited));
        drop(second);
        assert_eq!(first.add(6), Ok(()));
    }

    #[test]
    fn a_detached_charge_outlives_the_request() {
        let (server, address) = (InFlightBudget::new(10), InFlightBudget::new(10));
        let used = || [&server, &address].map(|budget| budget.used.load(Relaxed));
        let mut request = InFlightCharge::new(&server, &address);
        assert_eq!(request.add(4), Ok(()));
        let detached = request.detach();
        assert_eq!((request.received(), used()), (4, [4, 4]));
        drop(request);
        assert_eq!(used(), [4, 4]);
        assert!(detached.add_output(6) && !detached.add_output(1));
        assert_eq!(used(), [10, 10], "a rejected charge charges nothing");
        detached.release_output();
        assert_eq!(used(), [4, 4]);
        assert!(detached.add_output(3));
        drop(detached);
        assert_eq!(used(), [0, 0]);
    }
}
