//! Decides how hookhold treats a sender, from the earlier behaviour of its address.
//!
//! - An address is known good for [`KNOWN_GOOD_FOR`] after hookhold has stored a delivery from it. The limits of a single address do
//!   not apply to a known-good address, nor to an address that a source lists in `allow_from`, and a part of each limit of the
//!   server is reserved for them. An attacker can make a provider send rejected deliveries from the provider's own addresses, and
//!   all senders behind an untrusted proxy share one address, so rejections never count against a known-good address.
//! - An address with too many rejected deliveries is limited. Only deliveries that fail the verification, oversized requests and
//!   slow requests count. hookhold still verifies the deliveries of a limited address, but only in a turn of [`WorkTurns`]. A
//!   genuine delivery ends the limit.
//! - The answers to requests without a genuine delivery come later if an address exceeds the rate of [`pace`](super::pace).
//!
//! An ISP assigns at least a /64 to each IPv6 customer, so each /64 counts as one address. The number of addresses with open
//! connections or requests is limited by the number of connections. `max_addresses` limits the number of remembered addresses.
//! hookhold locks the table of addresses when a connection opens or closes, and for each request that a trusted proxy forwards.
//! Other requests use only atomics.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::Quota;
use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;

use super::connection_slot::ConnectionSlot;
use super::log_sampler::LogSampler;
use super::open_connections::{AddressClass, OpenConnections};
use super::remembered_senders::RememberedSenders;
use super::request_cost::max_requests_per_address;
use super::sender_record::SenderRecord;
use crate::address::sender_address;
use crate::in_flight::InFlightBudget;
use crate::limits::ServerLimits;
use crate::metrics::Metrics;
use crate::work_turns::WorkTurns;

/// Limits for each sender address, and the record of each address.
pub(super) struct SenderLimits {
    /// Limits on open connections.
    pub(super) connections: OpenConnections,
    /// Turns for the work of limited addresses.
    pub(super) turns: Arc<WorkTurns>,
    max_in_flight: usize,
    max_requests: usize,
    max_rejected: Quota,
    /// Zero point of the times in each [`SenderRecord`].
    pub(super) epoch: Instant,
    table: Mutex<SenderTable>,
    tracked: IntGauge,
    pub(super) limited: IntCounter,
    pub(super) limited_log: LogSampler,
    /// True if the file of known-good addresses is out of date.
    is_unsaved: AtomicBool,
}

struct SenderTable {
    /// Addresses with open connections or requests.
    active: HashMap<IpAddr, ActiveSender>,
    /// Addresses that hookhold remembers because of earlier rejections or genuine deliveries, although they have no
    /// open connection or request.
    remembered: RememberedSenders,
}

struct ActiveSender {
    record: Arc<SenderRecord>,
    guards: usize,
}

/// Guard that counts one open connection or request of an address until the guard is dropped.
pub(super) struct SenderGuard {
    pub(super) limits: Arc<SenderLimits>,
    pub(super) record: Arc<SenderRecord>,
    /// Place of the connection; `None` for a request that a trusted proxy forwards.
    pub(super) slot: Option<Arc<ConnectionSlot>>,
    /// True if a source lists the address in `allow_from`.
    pub(super) is_listed: bool,
}

impl SenderLimits {
    pub(super) fn new(limits: &ServerLimits, metrics: &Metrics) -> Arc<SenderLimits> {
        Arc::new(SenderLimits {
            connections: OpenConnections::new(limits, metrics),
            turns: WorkTurns::new(),
            max_in_flight: limits.max_in_flight_per_address,
            max_requests: max_requests_per_address(limits),
            max_rejected: limits.max_rejected_per_address.quota(),
            epoch: Instant::now(),
            table: Mutex::new(SenderTable { active: HashMap::new(), remembered: RememberedSenders::new(limits.max_addresses) }),
            tracked: metrics.server.addresses_tracked.clone(),
            limited: metrics.server.addresses_limited.clone(),
            limited_log: LogSampler::new(),
            is_unsaved: AtomicBool::new(false),
        })
    }

    /// Gives a place to a connection from this address, and returns a guard for the connection. Returns `None` if the address is
    /// at its connection limit and none of its connections can make room. `is_listed` is true if a source lists the address in
    /// `allow_from`.
    pub(super) fn connect(self: &Arc<SenderLimits>, from: IpAddr, is_listed: bool) -> Option<SenderGuard> {
        let mut guard = self.track(from, is_listed);
        let class = if guard.is_known_good(Instant::now()) { AddressClass::KnownGood } else { AddressClass::Unknown };
        guard.slot = Some(self.connections.admit(guard.record.address, class, false)?);
        Some(guard)
    }

    /// Gives a place to a connection from a trusted proxy, and returns a guard for the connection.
    pub(super) fn connect_proxy(self: &Arc<SenderLimits>, from: IpAddr) -> SenderGuard {
        let mut guard = self.track(from, true);
        guard.slot = self.connections.admit(guard.record.address, AddressClass::KnownGood, true);
        guard
    }

    /// Returns a guard for a request that a trusted proxy forwards for this address.
    pub(super) fn track(self: &Arc<SenderLimits>, from: IpAddr, is_listed: bool) -> SenderGuard {
        let address = sender_address(from);
        let mut table = self.lock();
        let SenderTable { active, remembered } = &mut *table;
        let active = active.entry(address).or_insert_with(|| {
            let new = || Arc::new(SenderRecord::new(address, self.budget(), self.max_rejected));
            ActiveSender { record: remembered.take(address).unwrap_or_else(new), guards: 0 }
        });
        active.guards += 1;
        let record = active.record.clone();
        self.update_gauge(&table);
        SenderGuard { limits: self.clone(), record, slot: None, is_listed }
    }

    fn leave(&self, record: &Arc<SenderRecord>) {
        let mut table = self.lock();
        let SenderTable { active, remembered } = &mut *table;
        let Some(sender) = active.get_mut(&record.address) else { return };
        sender.guards -= 1;
        if sender.guards > 0 {
            return;
        }
        active.remove(&record.address);
        let now_ms = self.millis(Instant::now());
        if record.is_relevant(now_ms) {
            remembered.add(record.clone(), record.is_known_good(now_ms));
        }
        self.update_gauge(&table);
    }

    /// Returns each known-good address, and the time for which it stays known good. Notes that the caller saves them.
    pub(super) fn known_good(&self, now: Instant) -> Vec<(IpAddr, Duration)> {
        self.is_unsaved.store(false, Relaxed);
        let (now_ms, table) = (self.millis(now), self.lock());
        let records = table.active.values().map(|sender| &sender.record).chain(table.remembered.known_good());
        let known_good = records.filter(|record| record.is_known_good(now_ms)).map(|record| {
            let until_ms = record.known_good_until_ms();
            record.set_saved(until_ms);
            (record.address, Duration::from_millis(until_ms - now_ms))
        });
        known_good.collect()
    }

    /// Makes addresses known good that were known good before the start, each for the rest of its time.
    pub(super) fn restore(&self, known_good: impl IntoIterator<Item = (IpAddr, Duration)>) {
        let (now_ms, mut table) = (self.millis(Instant::now()), self.lock());
        for (from, rest) in known_good {
            let address = sender_address(from);
            if table.active.contains_key(&address) {
                continue;
            }
            let record = SenderRecord::new(address, self.budget(), self.max_rejected);
            let until_ms = now_ms + rest.min(KNOWN_GOOD_FOR).as_millis() as u64;
            record.set_saved(until_ms);
            record.set_known_good(until_ms);
            table.remembered.add(Arc::new(record), true);
        }
        self.update_gauge(&table);
    }

    /// Returns true if the file of known-good addresses is out of date.
    pub(super) fn is_unsaved(&self) -> bool {
        self.is_unsaved.load(Relaxed)
    }

    /// Notes that the file of known-good addresses is out of date.
    pub(super) fn set_unsaved(&self) {
        if !self.is_unsaved() {
            self.is_unsaved.store(true, Relaxed);
        }
    }

    /// Returns a new in-flight budget for one address.
    fn budget(&self) -> InFlightBudget {
        InFlightBudget::new(self.max_in_flight).with_max_requests(self.max_requests)
    }

    fn update_gauge(&self, table: &SenderTable) {
        self.tracked.set((table.active.len() + table.remembered.len()) as i64);
    }

    /// Returns the time from the epoch to `moment`, in milliseconds.
    pub(super) fn millis(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.epoch).as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, SenderTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SenderGuard {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            self.limits.connections.release(slot);
        }
        self.limits.leave(&self.record);
    }
}

/// Time for which a genuine delivery makes its address known good. This time is longer than the usual pauses between
/// the deliveries of a small account.
pub(super) const KNOWN_GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);
