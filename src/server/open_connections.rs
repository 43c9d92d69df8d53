//! Limits the open connections of each address and of the whole server.
//!
//! A new connection never waits for an older one that has brought no genuine delivery. At the limit of its address, the first one
//! of such connections of the address makes room for it. At a limit of the server, the first one of the address with the most such
//! connections makes room. So neither one address nor many addresses can shut out a genuine sender by holding connections open.
//! The first ones are those whose clients have sent nothing, then the oldest ones. hookhold prefers a connection that waits for its
//! client to one that waits for hookhold.
//!
//! A quarter of `max_connections` is reserved for known-good addresses, for addresses in `allow_from` and for trusted proxies.
//! `max_connections_per_address` does not apply to them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection_slot::ConnectionSlot;
use super::log_sampler::LogSampler;
use crate::limits::ServerLimits;
use crate::metrics::Metrics;

/// The open connections, and the limits on their number.
pub(super) struct OpenConnections {
    limits: ConnectionLimits,
    table: Mutex<ConnectionTable>,
    /// Notified when a connection closes.
    closed: Notify,
    per_address: ClosedConnections,
    in_total: ClosedConnections,
}

/// Class of an address in the limits on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressClass {
    /// An address about which hookhold knows nothing good.
    Unknown,
    /// A known-good address, an address in `allow_from` or a trusted proxy.
    KnownGood,
}

#[derive(Clone, Copy)]
struct ConnectionLimits {
    total: usize,
    unknown: usize,
    per_address: usize,
    closing: usize,
}

#[derive(Default)]
struct ConnectionTable {
    senders: HashMap<IpAddr, SenderConnections>,
    /// Number of open connections that hookhold has not evicted, for each [`AddressClass`].
    open: [usize; 2],
    /// Number of evicted connections that have not yet closed.
    closing: usize,
    next_rank: u64,
    /// Addresses with evictable connections, for each [`AddressClass`]: number of these connections, lowest rank, address.
    evictable: [BTreeSet<(usize, Reverse<u64>, IpAddr)>; 2],
}

struct SenderConnections {
    class: AddressClass,
    open: usize,
    /// Connections that have brought no genuine delivery, by rank.
    evictable: BTreeMap<u64, Arc<ConnectionSlot>>,
}

/// Counter, log sampler and hint for one reason why hookhold closes connections to make room.
struct ClosedConnections {
    count: IntCounter,
    sampler: LogSampler,
    hint: &'static str,
}

/// Limit at which a new connection needs the place of another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReachedLimit {
    PerAddress,
    Unknown,
    Total,
}

impl OpenConnections {
    pub(super) fn new(limits: &ServerLimits, metrics: &Metrics) -> OpenConnections {
        let total = limits.max_connections;
        let limits = ConnectionLimits {
            total,
            unknown: total - total / RESERVED_PART,
            per_address: limits.max_connections_per_address,
            closing: (total / MAX_CLOSING_PART).max(1),
        };
        OpenConnections {
            limits,
            table: Mutex::default(),
            closed: Notify::new(),
            per_address: ClosedConnections::new(metrics, "per_address", TOO_MANY_PER_ADDRESS),
            in_total: ClosedConnections::new(metrics, "max_connections", TOO_MANY_IN_TOTAL),
        }
    }

    /// Waits until a new connection can have a place: there is a free one, or another connection can make room.
    pub(super) async fn room(&self) {
        while !self.has_room() {
            self.closed.notified().await;
        }
    }

    /// Returns true if a new connection can have a place.
    pub(super) fn has_room(&self) -> bool {
        let table = self.lock();
        let can_evict = table.evictable.iter().any(|addresses| !addresses.is_empty());
        (table.open_in_total() < self.limits.total || can_evict) && table.closing < self.limits.closing
    }

    /// Gives a place to a new connection from `address`, and evicts another connection if a limit is reached. Returns `None` if
    /// the address is at its limit and none of its connections can make room. If `is_protected` is true, hookhold never evicts the
    /// new connection.
    pub(super) fn admit(&self, address: IpAddr, class: AddressClass, is_protected: bool) -> Option<Arc<ConnectionSlot>> {
        let mut table = self.lock();
        table.set_class(address, class);
        let reached = table.reached_limit(&self.limits, address, class);
        let evicted = reached.map(|reached| match reached {
            ReachedLimit::PerAddress => table.evict_from(address),
            ReachedLimit::Unknown => table.evict(&[AddressClass::Unknown]),
            ReachedLimit::Total => table.evict(&[AddressClass::Unknown, AddressClass::KnownGood]),
        });
        let is_admitted = !(reached == Some(ReachedLimit::PerAddress) && evicted == Some(None));
        let slot = is_admitted.then(|| table.add(address, class, is_protected));
        drop(table);
        match reached {
            Some(ReachedLimit::PerAddress) => self.per_address.record(address),
            Some(ReachedLimit::Unknown | ReachedLimit::Total) => {
                evicted.flatten().into_iter().for_each(|from| self.in_total.record(from));
            }
            None => {}
        }
        slot
    }

    /// Evicts one connection, because the process has no free file descriptor for a new one.
    pub(super) fn evict_one(&self) {
        let evicted = self.lock().evict(&[AddressClass::Unknown, AddressClass::KnownGood]);
        evicted.into_iter().for_each(|from| self.in_total.record(from));
    }

    /// Protects a connection from eviction, because it has brought a genuine delivery. The address is known good from now on.
    pub(super) fn protect(&self, slot: &ConnectionSlot) {
        let mut table = self.lock();
        table.set_class(slot.address, AddressClass::KnownGood);
        if !slot.is_evicted() {
            slot.protect();
            table.update(slot.address, |sender| drop(sender.evictable.remove(&slot.rank())));
        }
    }

    /// Makes a connection the newest one, because it has waited for hookhold and not for its client.
    pub(super) fn renew(&self, slot: &Arc<ConnectionSlot>) {
        let mut table = self.lock();
        if slot.is_evicted() || slot.is_protected() {
            return;
        }
        table.renew_rank(slot);
    }

    /// Frees the place of a connection that has closed.
    pub(super) fn release(&self, slot: &ConnectionSlot) {
        let mut table = self.lock();
        if slot.is_evicted() {
            table.closing -= 1;
        } else {
            table.update(slot.address, |sender| {
                sender.evictable.remove(&slot.rank());
                sender.open -= 1;
            });
        }
        drop(table);
        self.closed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionTable {
    fn open_in_total(&self) -> usize {
        self.open.iter().sum()
    }

    fn reached_limit(&self, limits: &ConnectionLimits, address: IpAddr, class: AddressClass) -> Option<ReachedLimit> {
        let is_unknown = class == AddressClass::Unknown;
        let from_address = self.senders.get(&address).map_or(0, |sender| sender.open);
        if is_unknown && from_address >= limits.per_address {
            Some(ReachedLimit::PerAddress)
        } else if is_unknown && self.open[class as usize] >= limits.unknown {
            Some(ReachedLimit::Unknown)
        } else if self.open_in_total() >= limits.total {
            Some(ReachedLimit::Total)
        } else {
            None
        }
    }

    fn add(&mut self, address: IpAddr, class: AddressClass, is_protected: bool) -> Arc<ConnectionSlot> {
        let slot = Arc::new(ConnectionSlot::new(self.next_rank(false), address));
        self.senders.entry(address).or_insert_with(|| SenderConnections { class, open: 0, evictable: BTreeMap::new() });
        self.update(address, |sender| {
            sender.open += 1;
            if is_protected {
                slot.protect();
            } else {
                sender.evictable.insert(slot.rank(), slot.clone());
            }
        });
        slot
    }

    /// Returns the rank of a connection that is the newest one now. `has_sent` is true if its client has sent something.
    fn next_rank(&mut self, has_sent: bool) -> u64 {
        self.next_rank += 1;
        if has_sent { RANK_OF_SENT | self.next_rank } else { self.next_rank }
    }

    /// Makes an evictable connection the newest one of its address.
    fn renew_rank(&mut self, slot: &Arc<ConnectionSlot>) {
        let rank = self.next_rank(slot.has_sent());
        self.update(slot.address, |sender| {
            sender.evictable.remove(&slot.rank());
            slot.set_rank(rank);
            sender.evictable.insert(rank, slot.clone());
        });
    }

    /// Corrects the ranks of the connections of an address whose clients have sent something since their ranks were given.
    fn rank_senders(&mut self, address: IpAddr) {
        let Some(sender) = self.senders.get(&address) else { return };
        let silent = sender.evictable.range(..RANK_OF_SENT).take(MAX_COMPARED).map(|(_, slot)| slot);
        let have_sent: Vec<_> = silent.filter(|slot| slot.has_sent()).cloned().collect();
        have_sent.iter().for_each(|slot| self.renew_rank(slot));
    }

    fn set_class(&mut self, address: IpAddr, class: AddressClass) {
        self.update(address, |sender| sender.class = class);
    }

    /// Changes the connections of an address, and updates the numbers and orders that depend on them.
    fn update(&mut self, address: IpAddr, change: impl FnOnce(&mut SenderConnections)) {
        let Some(sender) = self.senders.get_mut(&address) else { return };
        if let Some(place) = sender.place(address) {
            self.evictable[sender.class as usize].remove(&place);
        }
        self.open[sender.class as usize] -= sender.open;
        change(sender);
        self.open[sender.class as usize] += sender.open;
        if let Some(place) = sender.place(address) {
            self.evictable[sender.class as usize].insert(place);
        }
        if sender.open == 0 {
            self.senders.remove(&address);
        }
    }

    /// Evicts a connection of the address with the most evictable connections among the addresses of these classes, and returns
    /// this address.
    fn evict(&mut self, classes: &[AddressClass]) -> Option<IpAddr> {
        let most = classes.iter().filter_map(|class| self.evictable[*class as usize].last()).max();
        let (.., address) = *most?;
        self.evict_from(address)
    }

    /// Evicts the connection of an address with the lowest rank, and returns the address. Prefers a connection that waits for its
    /// client.
    fn evict_from(&mut self, address: IpAddr) -> Option<IpAddr> {
        self.rank_senders(address);
        let first = || self.senders.get(&address)?.evictable.values().next();
        let waits_for_client = |slot: &&Arc<ConnectionSlot>| !slot.is_waiting();
        let preferred = self.senders.get(&address)?.evictable.values().take(MAX_COMPARED).find(waits_for_client);
        let slot = preferred.or_else(first)?.clone();
        slot.evict();
        self.closing += 1;
        self.update(address, |sender| {
            sender.evictable.remove(&slot.rank());
            sender.open -= 1;
        });
        Some(address)
    }
}

impl SenderConnections {
    /// Returns the place of an address in the order of the addresses with evictable connections.
    fn place(&self, address: IpAddr) -> Option<(usize, Reverse<u64>, IpAddr)> {
        let (lowest, _) = self.evictable.first_key_value()?;
        Some((self.evictable.len(), Reverse(*lowest), address))
    }
}

impl ClosedConnections {
    fn new(metrics: &Metrics, cause: &str, hint: &'static str) -> ClosedConnections {
        let count = metrics.server.connections_rejected.with_label_values(&[cause]);
        ClosedConnections { count, sampler: LogSampler::new(), hint }
    }

    fn record(&self, address: IpAddr) {
        self.count.inc();
        if let Some(suppressed) = self.sampler.admit(Instant::now()) {
            tracing::warn!(%address, suppressed, hint = self.hint, "connection closed to make room");
        }
    }
}

/// A limit of the server reserves a part with this divisor for known-good addresses.
pub(super) const RESERVED_PART: usize = 4;

/// Divisor of `max_connections` for the maximum number of evicted connections that have not yet closed.
const MAX_CLOSING_PART: usize = 8;

/// Lowest rank of a connection whose client has sent something.
const RANK_OF_SENT: u64 = 1 << 63;

/// Maximum number of the connections with the lowest ranks among which hookhold prefers one that waits for its client.
const MAX_COMPARED: usize = 64;

const TOO_MANY_PER_ADDRESS: &str = "open connections: expected at most max_connections_per_address from an unknown address, found more; \
                                    add your own proxy to trusted_proxies";
const TOO_MANY_IN_TOTAL: &str =
    "open connections: expected at most max_connections, of which a quarter is reserved, found more; raise max_connections";

#[cfg(test)]
mod tests {
    use super::*;
    use AddressClass::{KnownGood, Unknown};

    fn connections(max_connections: usize, max_connections_per_address: usize) -> OpenConnections {
        let limits = ServerLimits { max_connections, max_connections_per_address, ..ServerLimits::default() };
        OpenConnections::new(&limits, &Metrics::new())
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn open(connections: &OpenConnections, from: u8, class: AddressClass, count: usize) -> Vec<Arc<ConnectionSlot>> {
        (0..count).map(|_| connections.admit(address(from), class, false).expect("it has a place")).collect()
    }

    fn evicted(slots: &[Arc<ConnectionSlot>]) -> Vec<usize> {
        (0..slots.len()).filter(|index| slots[*index].is_evicted()).collect()
    }

    #[test]
    fn the_oldest_connection_of_an_address_makes_room() {
        let connections = connections(100, 3);
        let mut slots = open(&connections, 1, Unknown, 3);
        let waiting = slots[0].wait();
        let newer = open(&connections, 1, Unknown, 2);
        assert_eq!(evicted(&slots), [1, 2], "a connection that waits for hookhold is not preferred");
        let also_waiting: Vec<_> = newer.iter().map(|slot| slot.wait()).collect();
        let newest = open(&connections, 1, Unknown, 1);
        assert_eq!((evicted(&slots), evicted(&newer)), (vec![0, 1, 2], vec![]));
        drop((waiting, also_waiting));
        slots.extend(newer.into_iter().chain(newest));
        slots.iter().for_each(|slot| connections.release(slot));
        let table = connections.lock();
        assert!(table.senders.is_empty() && table.evictable.iter().all(BTreeSet::is_empty));
        assert_eq!((table.open, table.closing), ([0, 0], 0));
    }

    #[test]
    fn the_time_in_which_a_connection_waits_for_hookhold_does_not_count() {
        let connections = connections(100, 3);
        let slots = open(&connections, 1, Unknown, 3);
        connections.renew(&slots[0]);
        let newer = open(&connections, 1, Unknown, 2);
        assert_eq!((evicted(&slots), evicted(&newer)), (vec![1, 2], vec![]));
        connections.renew(&slots[1]);
        slots.iter().chain(&newer).for_each(|slot| connections.release(slot));
        assert!(connections.lock().senders.is_empty());
    }

    #[test]
    fn silent_connections_make_room_before_those_whose_clients_have_sent_something() {
        let connections = connections(100, 3);
        let slots = open(&connections, 1, Unknown, 3);
        slots[0].note_sent();
        slots[2].note_sent();
        let newer = open(&connections, 1, Unknown, 1);
        assert_eq!((evicted(&slots), evicted(&newer)), (vec![1], vec![]));
        newer[0].note_sent();
        let newest = open(&connections, 1, Unknown, 2);
        assert_eq!((evicted(&slots), evicted(&newer), evicted(&newest)), (vec![0, 1], vec![], vec![0]));
        slots.iter().chain(&newer).chain(&newest).for_each(|slot| connections.release(slot));
        assert!(connections.lock().senders.is_empty());
    }

    #[test]
    fn a_connection_with_a_genuine_delivery_is_never_evicted() {
        let connections = connections(4, 2);
        let genuine = open(&connections, 1, Unknown, 2);
        genuine.iter().for_each(|slot| connections.protect(slot));
        let others = open(&connections, 1, KnownGood, 2);
        assert!(evicted(&others).is_empty(), "a known-good address has no limit of its own");
        let newest = open(&connections, 1, KnownGood, 2);
        assert_eq!((evicted(&genuine), evicted(&others), evicted(&newest)), (vec![], vec![0, 1], vec![]));
        newest.iter().for_each(|slot| connections.protect(slot));
        others.iter().for_each(|slot| connections.release(slot));
        assert!(!connections.has_room(), "no connection can make room");
        connections.release(&genuine[0]);
        assert!(connections.has_room());
    }

    #[test]
    fn a_quarter_of_the_places_is_reserved_for_known_good_addresses() {
        let connections = connections(8, 100);
        let unknown = [open(&connections, 1, Unknown, 4), open(&connections, 2, Unknown, 2)];
        let newest = open(&connections, 3, Unknown, 1);
        assert_eq!(evicted(&unknown[0]), [0], "the address with the most connections loses its oldest one");
        let known_good = open(&connections, 4, KnownGood, 2);
        assert_eq!((evicted(&unknown[0]).len(), evicted(&unknown[1]).len(), evicted(&newest).len()), (1, 0, 0));
        let more = open(&connections, 4, KnownGood, 3);
        assert_eq!(evicted(&unknown[0]), [0, 1], "no class is preferred");
        assert_eq!((evicted(&known_good), evicted(&more)), (vec![0, 1], vec![]), "then it has the most connections itself");
    }

    #[tokio::test]
    async fn a_closed_connection_makes_room() {
        let connections = connections(1, 100);
        let slot = connections.admit(address(1), KnownGood, true).expect("it has a place");
        let (room, ()) = tokio::join!(connections.room(), async { connections.release(&slot) });
        assert_eq!((room, connections.has_room()), ((), true));
        let first = open(&connections, 1, Unknown, 1);
        let second = open(&connections, 1, Unknown, 1);
        assert!(!connections.has_room(), "the evicted connection has not closed");
        connections.release(&first[0]);
        assert!(connections.has_room() && evicted(&second).is_empty());
    }
}
