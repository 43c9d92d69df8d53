//! Counts the memory that requests take, and limits it for the whole server and for each sender address. The memory consists of
//! the bodies, of the heads with a fixed cost for each request, and of the buffers of connections that have grown. Also limits
//! the number of requests under way.

mod budget;

use std::cell::Cell;

use crate::outcome::Outcome;

pub use budget::{BudgetUse, InFlightBudget, RequestMemory};

/// Number of bytes that one request has charged to two in-flight budgets: the server's budget and the budget of the
/// sender's address. Dropping the charge releases these bytes in both budgets. hookhold rejects a request that exceeds a
/// budget. The head of a request counts only against the other requests, so that a body as large as the budget fits. Exception:
/// an address may send one large body beyond its budget if the total size of its other requests in memory is at most the size of
/// the large one. Large bodies from one address therefore complete one at a time. While such a body is in memory, another request
/// that exceeds the address's budget gets the outcome `rate_limited`.
#[derive(Debug)]
pub struct InFlightCharge<'a> {
    server: &'a InFlightBudget,
    address: &'a InFlightBudget,
    /// Memory that this charge releases.
    memory: RequestMemory,
    received: usize,
    hashed: usize,
}

impl<'a> InFlightCharge<'a> {
    /// Creates a charge of 0 bytes.
    pub fn new(server: &'a InFlightBudget, address: &'a InFlightBudget) -> InFlightCharge<'a> {
        InFlightCharge { server, address, memory: RequestMemory::default(), received: 0, hashed: 0 }
    }

    /// Takes over a request that [`InFlightBudget::start_request`] has added to the server's budget, and charges the request and its
    /// `bytes`, which must not be 0, to the address. If too many requests of the address are under way, returns the outcome of the
    /// request. The charge releases the request and the bytes when it is dropped.
    pub fn add_request(&mut self, bytes: usize) -> Result<(), Outcome> {
        self.memory.head = bytes;
        self.address.start_request_beyond(bytes);
        if self.address.has_too_many_requests(BudgetUse::default()) { Err(Outcome::RateLimited) } else { Ok(()) }
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

    /// Charges `bytes` of the body. If this exceeds a budget, returns the outcome of the request. The charge nevertheless
    /// releases these bytes when it is dropped.
    pub fn add(&mut self, bytes: usize) -> Result<(), Outcome> {
        let own = self.memory;
        self.memory.body += bytes;
        self.received += bytes;
        add(self.server, self.address, own, bytes)
    }

    /// Returns the budget of the server, or its part for unknown senders.
    pub fn server(&self) -> &InFlightBudget {
        self.server
    }

    /// Returns the budget of the sender's address.
    pub fn address(&self) -> &InFlightBudget {
        self.address
    }

    /// Returns the charged memory.
    pub fn memory(&self) -> RequestMemory {
        self.memory
    }

    /// Releases the charge. The caller has dropped the body, and answers the request at once.
    pub fn release(&mut self) {
        std::mem::take(&mut self.memory).release(self.server, self.address);
    }

    /// Releases the charge except for at most `fixed` bytes of the head. The caller has dropped the head and the body.
    pub fn shrink(&mut self, fixed: usize) {
        let rest = RequestMemory { head: self.memory.head.min(fixed), body: 0 };
        let released = self.memory.bytes() - rest.bytes();
        self.memory = rest;
        self.server.release(released);
        self.address.release(released);
    }

    /// Moves the charged bytes to a charge that may outlive the request.
    pub fn detach(&mut self) -> DetachedCharge {
        let memory = std::mem::take(&mut self.memory);
        DetachedCharge { server: self.server.clone(), address: self.address.clone(), memory, output: Cell::new(0) }
    }
}

impl Drop for InFlightCharge<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Charge for a request that hookhold still needs after the sender may have disconnected, and for the decompressed body. Dropping
/// the charge releases both.
#[derive(Debug)]
pub struct DetachedCharge {
    server: InFlightBudget,
    address: InFlightBudget,
    memory: RequestMemory,
    output: Cell<usize>,
}

impl DetachedCharge {
    /// Charges `bytes` of the decompressed body. Returns false and charges nothing if this exceeds a budget.
    pub fn add_output(&self, bytes: usize) -> bool {
        let own = RequestMemory { body: self.memory.body + self.output.get(), ..self.memory };
        let is_within = add(&self.server, &self.address, own, bytes).is_ok();
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
        self.release(self.output.get());
        self.memory.release(&self.server, &self.address);
    }
}

/// Charge for memory that changes in size and belongs to no single request, such as the buffers of a connection. Dropping the
/// charge releases the memory.
#[derive(Debug)]
pub struct ResizableCharge {
    server: InFlightBudget,
    address: InFlightBudget,
    bytes: usize,
}

impl ResizableCharge {
    /// Creates a charge of 0 bytes.
    pub fn new(server: &InFlightBudget, address: &InFlightBudget) -> ResizableCharge {
        ResizableCharge { server: server.clone(), address: address.clone(), bytes: 0 }
    }

    /// Returns the number of bytes that are charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges `bytes` in total. If this exceeds a budget, changes nothing and returns the outcome of the requests that need the
    /// memory.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Outcome> {
        let Some(added) = bytes.checked_sub(self.bytes) else {
            self.release(self.bytes - bytes);
            self.bytes = bytes;
            return Ok(());
        };
        match add(&self.server, &self.address, RequestMemory { head: 0, body: self.bytes }, added) {
            Ok(()) => self.bytes = bytes,
            Err(outcome) => {
                self.release(added);
                return Err(outcome);
            }
        }
        Ok(())
    }

    /// Charges `bytes` in total, although this may exceed a budget.
    pub fn resize_beyond(&mut self, bytes: usize) {
        if let Err(_exceeded) = self.resize(bytes) {
            let _ = add(&self.server, &self.address, RequestMemory { head: 0, body: self.bytes }, bytes - self.bytes);
            self.bytes = bytes;
        }
    }

    /// Returns the two budgets: of the server, and of the address.
    pub fn budgets(&self) -> (&InFlightBudget, &InFlightBudget) {
        (&self.server, &self.address)
    }

    fn release(&self, bytes: usize) {
        self.server.release(bytes);
        self.address.release(bytes);
    }
}

impl Drop for ResizableCharge {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

/// Adds `bytes` to both budgets. `own` is the memory that the request has charged before.
fn add(server: &InFlightBudget, address: &InFlightBudget, own: RequestMemory, bytes: usize) -> Result<(), Outcome> {
    let server_exceeded = server.exceeds_with(own, bytes);
    let (before, address_exceeded) = address.add(bytes, own.head);
    match (address_exceeded && !own.is_largest(before), server_exceeded) {
        (true, _) => Err(Outcome::RateLimited),
        (_, true) => Err(Outcome::Overloaded),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

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
    fn a_part_of_a_budget_leaves_the_rest_to_the_whole() {
        let whole = InFlightBudget::new(12);
        let (part, [one, other]) = (whole.part_without(4), [(); 2].map(|()| InFlightBudget::new(100)));
        let mut unknown = [&one, &other].map(|address| InFlightCharge::new(&part, address));
        assert_eq!((unknown[0].add(5), unknown[1].add(4)), (Ok(()), Ok(())));
        assert_eq!(
            (unknown[1].add(1), unknown[0].add(1)),
            (Err(Outcome::Overloaded), Ok(())),
            "only the largest body may exceed it"
        );
        let mut trusted = InFlightCharge::new(&whole, &one);
        assert_eq!((trusted.add(1), trusted.add(1)), (Ok(()), Err(Outcome::Overloaded)));
        drop((unknown, trusted));
        assert_eq!([whole, part, one, other].map(|budget| budget.used()), [BudgetUse::default(); 4]);
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

    #[test]
    fn requests_under_way_are_limited_in_number_and_in_bytes() {
        let (server, address) = (InFlightBudget::new(100).with_max_requests(2), InFlightBudget::new(1000));
        assert_eq!([(); 3].map(|()| server.start_request(10)), [true, true, false], "two requests are under way");
        server.end_request(10);
        let mut charge = InFlightCharge::new(&server, &address);
        assert_eq!((charge.add_request(10), charge.add(100)), (Ok(()), Ok(())), "a head does not count against its own body");
        assert!(!server.start_request(10), "the other request uses more than 100 bytes");
        let detached = charge.detach();
        drop(charge);
        assert!(!server.start_request(10), "the detached charge still counts the bytes");
        drop(detached);
        assert!(server.start_request(10));
        server.end_request(10);
        assert_eq!([server, address].map(|budget| budget.used.load(Relaxed)), [0; 2]);
    }

    #[test]
    fn the_requests_and_heads_count_towards_their_address() {
        let (server, address) = (InFlightBudget::new(1000), InFlightBudget::new(100).with_max_requests(2));
        let mut charges = [(); 3].map(|()| InFlightCharge::new(&server, &address));
        let results = charges.each_mut().map(|charge| {
            assert!(server.start_request(60));
            charge.add_request(60)
        });
        assert_eq!(results, [Ok(()), Ok(()), Err(Outcome::RateLimited)], "the third request is one too many");
        assert_eq!(charges[0].add(1), Err(Outcome::RateLimited), "three heads use more than 100 bytes");
        drop(charges);
        assert_eq!([server, address].map(|budget| budget.used.load(Relaxed)), [0; 2]);
    }

    #[test]
    fn a_resized_charge_counts_its_latest_size() {
        let (server, address) = (InFlightBudget::new(10), InFlightBudget::new(10));
        let mut other = ResizableCharge::new(&server, &address);
        assert_eq!(other.resize(2), Ok(()));
        let mut charge = ResizableCharge::new(&server, &InFlightBudget::new(100));
        assert_eq!([5, 9, 8, 1, 9].map(|size| charge.resize(size).is_ok()), [true, false, true, true, false]);
        assert_eq!((charge.bytes(), server.used.load(Relaxed)), (1, 3));
        drop((charge, other));
        assert_eq!([server, address].map(|budget| budget.used.load(Relaxed)), [0; 2]);
    }
}
