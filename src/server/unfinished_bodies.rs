//! Evicts unfinished request bodies from memory if a new body exceeds an in-flight budget.
//!
//! A client that sends a body slowly, or stops in the middle of it, occupies memory for up to the deadline of its request. Such
//! bodies must not shut out a genuine delivery. If an address exceeds its own budget, its oldest unfinished body makes room. If the
//! server's budget is exceeded, the oldest unfinished body of the address with the most bytes in memory makes room. A request whose
//! body hookhold evicts gets the outcome `rate_limited`. A complete body counts as unfinished only while it waits for the turn of a
//! limited address. Any other complete body is never evicted, because hookhold is about to verify it.
//!
//! The head of a request and the memory of a connection need room in the same way, as does a place among the requests under way.
//! An evicted request also releases its head and its place.
//!
//! A body of at most [`MAX_SMALL_BODY`] bytes does not need room in the budget of its address: the server's budget suffices.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::in_flight::{BudgetUse, InFlightBudget, InFlightCharge, RequestMemory};
use crate::outcome::Outcome;
use crate::work_turns::MAX_SMALL_BODY;

/// All bodies that are being received and have not arrived together with their request head, and all that wait for a turn.
#[derive(Default)]
pub(super) struct UnfinishedBodies(Mutex<BodyTable>);

#[derive(Default)]
struct BodyTable {
    senders: HashMap<IpAddr, SenderBodies>,
    next_number: u64,
    /// Evicted requests that are still charged to the part of the server's budget for unknown senders.
    leaving_unknown: BudgetUse,
    /// Evicted requests that are still charged to the server's budget.
    leaving: BudgetUse,
}

struct SenderBodies {
    budget: InFlightBudget,
    /// Evicted requests that are still charged to the budget of the address.
    leaving: BudgetUse,
    /// Unfinished bodies, oldest first.
    bodies: BTreeMap<u64, Arc<UnfinishedBody>>,
}

/// State of one unfinished body.
struct UnfinishedBody {
    /// Number of bytes that are charged for the request.
    bytes: AtomicUsize,
    /// Number of bytes at the time of the eviction.
    leaving: AtomicUsize,
    /// Number of requests under way for which the request is counted: 1, or 0 if its head is not charged.
    requests: usize,
    /// True if the body is charged to the part of the server's budget for unknown senders.
    is_unknown: bool,
    is_evicted: AtomicBool,
    evicted: Notify,
}

/// Guard that lists a body as unfinished until the guard is dropped. The owner must first release the charge of an evicted body.
pub(super) struct BodyGuard<'a> {
    all: &'a UnfinishedBodies,
    address: IpAddr,
    number: u64,
    body: Arc<UnfinishedBody>,
}

impl UnfinishedBodies {
    /// Lists a body that is charged to `charge` as unfinished.
    pub(super) fn add(&self, address: IpAddr, charge: &InFlightCharge<'_>) -> BodyGuard<'_> {
        let mut table = self.lock();
        let number = table.next_number;
        table.next_number += 1;
        let body = Arc::new(UnfinishedBody {
            bytes: AtomicUsize::new(charge.memory().bytes()),
            leaving: AtomicUsize::new(0),
            requests: charge.memory().budget_use().requests,
            is_unknown: charge.server().whole().is_some(),
            is_evicted: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        let new = || SenderBodies { budget: charge.address().clone(), leaving: BudgetUse::default(), bodies: BTreeMap::new() };
        table.senders.entry(address).or_insert_with(new).bodies.insert(number, body.clone());
        BodyGuard { all: self, address, number, body }
    }

    /// Makes room for a body whose charge has exceeded a budget. `own` is the guard of this body, if it has one. Evicts older bodies
    /// as necessary. If they do not suffice, the error is the outcome of the request. Returns true if the evicted bodies are still in
    /// memory, so that the caller must not read on.
    pub(super) fn make_room(
        &self,
        address: IpAddr,
        charge: &InFlightCharge<'_>,
        own: Option<&BodyGuard<'_>>,
    ) -> Result<bool, Outcome> {
        self.make_room_for(address, charge.memory(), (charge.server(), charge.address()), own)
    }

    /// Makes room for `memory` of this address that has exceeded one of the two budgets: of the server, and of the address.
    pub(super) fn make_room_for(
        &self,
        address: IpAddr,
        memory: RequestMemory,
        (server, of_address): (&InFlightBudget, &InFlightBudget),
        own: Option<&BodyGuard<'_>>,
    ) -> Result<bool, Outcome> {
        let mut table = self.lock();
        // An evicted body may receive a piece before its task notices the eviction. It must not evict a newer body.
        if own.is_some_and(|guard| guard.body.is_evicted()) {
            return Err(Outcome::RateLimited);
        }
        let own = own.map(|guard| guard.number);
        if memory.body > MAX_SMALL_BODY && !memory.is_largest(of_address.used().bytes) {
            table.make_room_for_body(address, memory, of_address, own)?;
        }
        table.make_room_in_server(address, memory, server, own)?;
        let (none, leaving) = (BudgetUse::default(), table.leaving_from(address));
        let exceeds_server = server.is_exceeded(none, 0) || server.whole().is_some_and(|whole| whole.is_exceeded(none, 0));
        let exceeds_address = memory.body > MAX_SMALL_BODY && of_address.is_exceeded(none, 0);
        Ok((exceeds_server && table.leaving != none) || (exceeds_address && leaving != none))
    }

    /// Makes room for a new request of an address that has too many requests under way.
    pub(super) fn make_room_in_address(&self, address: IpAddr, budget: &InFlightBudget) -> Result<(), Outcome> {
        let mut table = self.lock();
        while budget.has_too_many_requests(table.leaving_from(address)) {
            if !table.evict_from(address, None) {
                return Err(Outcome::RateLimited);
            }
        }
        Ok(())
    }

    /// Makes room in the server's budget for a new request that has exceeded it with its head.
    pub(super) fn make_room_for_request(&self, address: IpAddr, head: usize, server: &InFlightBudget) -> Result<(), Outcome> {
        self.lock().make_room_in_server(address, RequestMemory { head, body: 0 }, server, None)
    }

    fn lock(&self) -> MutexGuard<'_, BodyTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyTable {
    fn leaving_from(&self, address: IpAddr) -> BudgetUse {
        self.senders.get(&address).map_or(BudgetUse::default(), |sender| sender.leaving)
    }

    /// Evicts bodies of the address until its budget suffices.
    fn make_room_for_body(
        &mut self,
        address: IpAddr,
        memory: RequestMemory,
        budget: &InFlightBudget,
        own: Option<u64>,
    ) -> Result<(), Outcome> {
        while budget.is_exceeded(self.leaving_from(address), memory.head) {
            if !self.evict_from(address, own) {
                return Err(Outcome::RateLimited);
            }
        }
        Ok(())
    }

    /// Returns true if the server's budget is exceeded, or its part for unknown senders. The largest request may exceed the part.
    fn is_server_exceeded(&self, memory: RequestMemory, server: &InFlightBudget) -> bool {
        match server.whole() {
            None => server.is_exceeded(self.leaving, memory.head),
            Some(whole) => {
                let is_largest = memory.body > 0 && memory.is_largest(server.used().bytes);
                let exceeds_part = !is_largest && server.is_exceeded(self.leaving_unknown, memory.head);
                exceeds_part || whole.is_exceeded(self.leaving, memory.head)
            }
        }
    }

    /// Evicts bodies of the addresses with the most bytes in memory. Stops with an error at the address of the request.
    fn make_room_in_server(
        &mut self,
        address: IpAddr,
        memory: RequestMemory,
        server: &InFlightBudget,
        own: Option<u64>,
    ) -> Result<(), Outcome> {
        if !self.is_server_exceeded(memory, server) {
            return Ok(());
        }
        let mut senders: Vec<(usize, IpAddr)> =
            self.senders.iter().map(|(address, sender)| (sender.staying(), *address)).collect();
        senders.sort_unstable_by(|one, other| other.cmp(one));
        for (_, from) in senders {
            while self.evict_from(from, own) {
                if !self.is_server_exceeded(memory, server) {
                    return Ok(());
                }
            }
            if from == address {
                break;
            }
        }
        Err(Outcome::Overloaded)
    }

    /// Evicts the oldest unfinished body of an address. Returns false if there is none, or if its number is `own`: the body for which
    /// the caller makes room must make room itself.
    fn evict_from(&mut self, address: IpAddr, own: Option<u64>) -> bool {
        let Some(sender) = self.senders.get_mut(&address) else { return false };
        let oldest = sender.bodies.iter().find(|(_, body)| !body.is_evicted());
        let Some((_, body)) = oldest.filter(|(number, _)| Some(**number) != own) else { return false };
        body.leaving.store(body.bytes.load(SeqCst), SeqCst);
        body.is_evicted.store(true, SeqCst);
        body.evicted.notify_one();
        let leaving = body.leaving();
        add(&mut sender.leaving, leaving);
        add(&mut self.leaving, leaving);
        if body.is_unknown {
            add(&mut self.leaving_unknown, leaving);
        }
        true
    }
}

impl SenderBodies {
    /// Returns the number of bytes of the address without its evicted bodies.
    fn staying(&self) -> usize {
        self.budget.used().bytes.saturating_sub(self.leaving.bytes)
    }
}

impl UnfinishedBody {
    fn is_evicted(&self) -> bool {
        self.is_evicted.load(SeqCst)
    }

    /// Returns the use of the budgets that ends when the evicted request has released its charge.
    fn leaving(&self) -> BudgetUse {
        match self.is_evicted() {
            true => BudgetUse { requests: self.requests, bytes: self.leaving.load(SeqCst) },
            false => BudgetUse::default(),
        }
    }
}

fn add(sum: &mut BudgetUse, other: BudgetUse) {
    *sum = BudgetUse { requests: sum.requests + other.requests, bytes: sum.bytes + other.bytes };
}

fn subtract(sum: &mut BudgetUse, other: BudgetUse) {
    *sum = BudgetUse { requests: sum.requests - other.requests, bytes: sum.bytes - other.bytes };
}

impl BodyGuard<'_> {
    /// Sets the number of bytes that are charged for the request. Returns an error with the outcome of the request if hookhold has
    /// evicted the body.
    pub(super) fn set_bytes(&self, bytes: usize) -> Result<(), Outcome> {
        self.body.bytes.store(bytes, SeqCst);
        if self.body.is_evicted() { Err(Outcome::RateLimited) } else { Ok(()) }
    }

    /// Waits until hookhold evicts the body.
    pub(super) async fn evicted(&self) {
        self.body.evicted.notified().await;
    }
}

impl Drop for BodyGuard<'_> {
    fn drop(&mut self) {
        let mut table = self.all.lock();
        let leaving = self.body.leaving();
        subtract(&mut table.leaving, leaving);
        if self.body.is_unknown {
            subtract(&mut table.leaving_unknown, leaving);
        }
        let Some(sender) = table.senders.get_mut(&self.address) else { return };
        subtract(&mut sender.leaving, leaving);
        sender.bodies.remove(&self.number);
        if sender.bodies.is_empty() {
            table.senders.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 2 * MAX_SMALL_BODY;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Charges `bytes`, and makes room if necessary.
    fn charge(
        bodies: &UnfinishedBodies,
        from: u8,
        charge: &mut InFlightCharge<'_>,
        bytes: usize,
        own: Option<&BodyGuard<'_>>,
    ) -> Result<(), Outcome> {
        charge.add(bytes).or_else(|_| bodies.make_room(address(from), charge, own).map(drop))
    }

    #[test]
    fn the_oldest_unfinished_body_of_an_address_makes_room() {
        let (bodies, server) = (UnfinishedBodies::default(), InFlightBudget::new(100 * LARGE));
        let budget = InFlightBudget::new(3 * LARGE);
        let mut charges: Vec<_> = (0..4).map(|_| InFlightCharge::new(&server, &budget)).collect();
        let guards: Vec<_> = charges[..3]
            .iter_mut()
            .map(|charge| {
                charge.add(LARGE).expect("the budget suffices");
                bodies.add(address(1), charge)
            })
            .collect();
        assert_eq!(charge(&bodies, 1, &mut charges[3], LARGE, None), Ok(()));
        assert_eq!(guards[0].set_bytes(LARGE), Err(Outcome::RateLimited));
        assert_eq!(bodies.make_room(address(1), &charges[3], None), Ok(true), "the evicted body is still in memory");
        let mut small = InFlightCharge::new(&server, &budget);
        assert_eq!(charge(&bodies, 1, &mut small, MAX_SMALL_BODY, None), Ok(()), "a small body always fits");
        assert!(guards[1..].iter().all(|guard| guard.set_bytes(LARGE).is_ok()), "and evicts no other body");
        drop(small);
        charges[0].release();
        assert_eq!(bodies.make_room(address(1), &charges[3], None), Ok(false));
        drop(guards);
        let mut next = InFlightCharge::new(&server, &budget);
        assert_eq!(charge(&bodies, 1, &mut next, LARGE, None), Err(Outcome::RateLimited), "the other bodies are complete");
        drop((charges, next));
        let table = bodies.lock();
        assert!(table.senders.is_empty() && [table.leaving, table.leaving_unknown] == [BudgetUse::default(); 2]);
    }

    #[test]
    fn an_evicted_body_evicts_no_newer_one() {
        let (bodies, server) = (UnfinishedBodies::default(), InFlightBudget::new(100 * LARGE));
        let budget = InFlightBudget::new(2 * LARGE);
        let [mut older, mut newer, mut newest] = [(); 3].map(|()| InFlightCharge::new(&server, &budget));
        older.add(LARGE).expect("the budget suffices");
        let older_guard = bodies.add(address(1), &older);
        newer.add(LARGE).expect("the budget suffices");
        let newer_guard = bodies.add(address(1), &newer);
        assert_eq!(charge(&bodies, 1, &mut newest, LARGE / 10 * 9, None), Ok(()), "the oldest body makes room");
        assert_eq!(charge(&bodies, 1, &mut older, LARGE / 5, Some(&older_guard)), Err(Outcome::RateLimited));
        assert_eq!(newer_guard.set_bytes(LARGE), Ok(()), "and evicts no other body");
    }

    #[test]
    fn the_oldest_unfinished_body_evicts_no_newer_one() {
        let (bodies, server) = (UnfinishedBodies::default(), InFlightBudget::new(100 * LARGE));
        let budget = InFlightBudget::new(3 * LARGE);
        let [mut older, mut newer] = [(); 2].map(|()| InFlightCharge::new(&server, &budget));
        older.add(LARGE).expect("the budget suffices");
        newer.add(2 * LARGE).expect("the budget suffices");
        let [own, other] = [&older, &newer].map(|charge| bodies.add(address(1), charge));
        assert_eq!(charge(&bodies, 1, &mut older, 1, Some(&own)), Err(Outcome::RateLimited));
        assert!(other.set_bytes(2 * LARGE).is_ok() && own.set_bytes(LARGE).is_ok());
        assert_eq!(charge(&bodies, 1, &mut newer, LARGE, Some(&other)), Ok(()), "the largest body may exceed the budget");
    }

    #[test]
    fn the_address_with_the_most_bytes_makes_room_in_the_server() {
        let bodies = UnfinishedBodies::default();
        let whole = InFlightBudget::new(8 * LARGE);
        let unknown = whole.part_without(4);
        let budgets = [(); 3].map(|()| InFlightBudget::new(100 * LARGE));
        let mut charges: Vec<_> = (0..6).map(|number| InFlightCharge::new(&unknown, &budgets[number % 3 % 2])).collect();
        let guards: Vec<_> = (0..6)
            .map(|number| {
                charges[number].add(LARGE).expect("the budget suffices");
                bodies.add(address((number % 3 % 2) as u8), &charges[number])
            })
            .collect();
        let mut newcomer = InFlightCharge::new(&unknown, &budgets[2]);
        assert_eq!(charge(&bodies, 2, &mut newcomer, 1, None), Ok(()));
        let evicted = || (0..6).filter(|number| guards[*number].set_bytes(LARGE).is_err()).collect::<Vec<_>>();
        assert_eq!(evicted(), [0], "the oldest body of the address with four bodies");
        assert_eq!(charge(&bodies, 2, &mut newcomer, LARGE - 1, None), Ok(()));
        assert_eq!(evicted(), [0], "its bytes count only once");
        let mut known_good = InFlightCharge::new(&whole, &budgets[2]);
        assert_eq!(charge(&bodies, 2, &mut known_good, 2 * LARGE, None), Ok(()));
        assert_eq!(evicted(), [0], "a quarter is reserved for known-good addresses");
    }

    #[test]
    fn the_address_with_the_most_bytes_evicts_no_other_address() {
        let (bodies, server) = (UnfinishedBodies::default(), InFlightBudget::new(4 * LARGE));
        let budgets = [(); 2].map(|()| InFlightBudget::new(100 * LARGE));
        let (mut large, mut small) = (InFlightCharge::new(&server, &budgets[0]), InFlightCharge::new(&server, &budgets[1]));
        small.add(LARGE).expect("the budget suffices");
        let other = bodies.add(address(1), &small);
        large.add(3 * LARGE).expect("the budget suffices");
        let own = bodies.add(address(0), &large);
        assert_eq!(charge(&bodies, 0, &mut large, 1, Some(&own)), Err(Outcome::Overloaded));
        assert!(other.set_bytes(LARGE).is_ok() && own.set_bytes(3 * LARGE).is_ok());
    }
    #[test]
    fn the_oldest_unfinished_body_makes_room_for_a_request() {
        let bodies = UnfinishedBodies::default();
        let (server, budget) = (InFlightBudget::new(100 * LARGE).with_max_requests(2), InFlightBudget::new(LARGE));
        let mut charges = [(); 2].map(|()| {
            assert!(server.start_request(100));
            InFlightCharge::new(&server, &budget)
        });
        charges.iter_mut().for_each(|charge| charge.add_request(100).expect("the budget suffices"));
        let guard = bodies.add(address(1), &charges[0]);
        assert!(!server.start_request(100), "two requests are under way");
        for expected in [Ok(()), Err(Outcome::Overloaded)] {
            server.start_request_beyond(100);
            assert_eq!(bodies.make_room_for_request(address(2), 100, &server), expected);
        }
        assert_eq!(guard.set_bytes(100), Err(Outcome::RateLimited));
        charges[0].release();
        drop(guard);
        (0..2).for_each(|_| server.end_request(100));
        assert!(server.start_request(100));
        server.end_request(100);
    }

    #[test]
    fn the_oldest_unfinished_body_of_an_address_makes_room_for_its_request() {
        let bodies = UnfinishedBodies::default();
        let (server, budget) = (InFlightBudget::new(100 * LARGE), InFlightBudget::new(LARGE).with_max_requests(2));
        let mut charges = [(); 4].map(|()| {
            assert!(server.start_request(100));
            InFlightCharge::new(&server, &budget)
        });
        let [oldest, complete, newer, newest] = &mut charges;
        assert_eq!((oldest.add_request(100), complete.add_request(100)), (Ok(()), Ok(())));
        let guard = bodies.add(address(1), oldest);
        assert_eq!(newer.add_request(100), Err(Outcome::RateLimited));
        assert_eq!(bodies.make_room_in_address(address(1), &budget), Ok(()));
        assert_eq!(guard.set_bytes(100), Err(Outcome::RateLimited));
        assert!(newest.add_request(100).is_err() && bodies.make_room_in_address(address(1), &budget).is_err());
        drop(charges);
        drop(guard);
        assert_eq!([server, budget].map(|budget| budget.used()), [BudgetUse::default(); 2]);
    }
}
