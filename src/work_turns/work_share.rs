//! Queue of one kind of work for limited addresses, and its share of processor time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{WorkKind, WorkTurn};

/// Waiting work of one kind, and the processor time that it may take.
pub(super) struct WorkShare {
    kind: WorkKind,
    /// Waiting work of each address, oldest first.
    pub(super) waiting: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<WorkTurn>>>,
    /// Addresses with waiting work. The first one gets the next turn.
    pub(super) rotation: VecDeque<IpAddr>,
    pub(super) waiting_count: usize,
    next_ticket: u64,
    pub(super) running: usize,
    /// Processor time that this kind of work may take now, in nanoseconds. Negative after expensive work.
    balance_ns: i64,
    /// Time at which the balance was correct.
    updated_at: Instant,
}

/// Result of the attempt to start the next piece of waiting work.
pub(super) enum NextTurn {
    Starts(oneshot::Sender<WorkTurn>),
    /// The share permits the next turn at this time.
    At(Instant),
    /// No work is waiting, or the end of a running turn starts the next one.
    None,
}

impl WorkShare {
    pub(super) fn new(kind: WorkKind) -> WorkShare {
        WorkShare {
            kind,
            waiting: HashMap::new(),
            rotation: VecDeque::new(),
            waiting_count: 0,
            next_ticket: 0,
            running: 0,
            balance_ns: kind.percent() * MAX_SAVED_NS / 100,
            updated_at: Instant::now(),
        }
    }

    /// Adds waiting work and returns its ticket, or `None` if too much work is waiting.
    pub(super) fn add(&mut self, address: IpAddr, sender: oneshot::Sender<WorkTurn>) -> Option<u64> {
        if self.waiting_count >= MAX_WAITING {
            return None;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting_count += 1;
        let waiting = self.waiting.entry(address).or_default();
        if waiting.is_empty() {
            self.rotation.push_back(address);
        }
        waiting.insert(ticket, sender);
        Some(ticket)
    }

    pub(super) fn remove(&mut self, address: IpAddr, ticket: u64) {
        let Some(waiting) = self.waiting.get_mut(&address) else { return };
        self.waiting_count -= usize::from(waiting.remove(&ticket).is_some());
        if waiting.is_empty() {
            self.waiting.remove(&address);
            self.rotation.retain(|other| *other != address);
        }
    }

    pub(super) fn remove_all(&mut self, address: IpAddr) {
        if let Some(waiting) = self.waiting.remove(&address) {
            self.waiting_count -= waiting.len();
            self.rotation.retain(|other| *other != address);
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> NextTurn {
        self.update_balance(now);
        if self.rotation.is_empty() || self.running >= self.kind.max_turns() {
            return NextTurn::None;
        }
        if self.balance_ns <= 0 {
            let missing_ns = (1 - self.balance_ns).unsigned_abs() * 100 / self.kind.percent().unsigned_abs();
            return NextTurn::At(now + Duration::from_nanos(missing_ns));
        }
        let Some(address) = self.rotation.pop_front() else { return NextTurn::None };
        let Some(waiting) = self.waiting.get_mut(&address) else { return NextTurn::None };
        let Some((_, sender)) = waiting.pop_first() else { return NextTurn::None };
        self.waiting_count -= 1;
        match waiting.is_empty() {
            true => drop(self.waiting.remove(&address)),
            false => self.rotation.push_back(address),
        }
        self.running += 1;
        self.balance_ns -= self.kind.estimate_ns();
        NextTurn::Starts(sender)
    }

    pub(super) fn end_turn(&mut self, cost_ns: i64) {
        self.running -= 1;
        self.balance_ns = self.balance_ns.saturating_add(self.kind.estimate_ns()).saturating_sub(cost_ns);
        self.update_balance(Instant::now());
    }

    fn update_balance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.updated_at).as_nanos();
        let gained = i64::try_from(passed).unwrap_or(i64::MAX).saturating_mul(self.kind.percent()) / 100;
        self.balance_ns = self.balance_ns.saturating_add(gained).min(self.kind.percent() * MAX_SAVED_NS / 100);
        self.updated_at = self.updated_at.max(now);
    }
}

/// Maximum number of pieces of work of one kind that wait. The bodies of all of them also count in `max_in_flight`.
pub(super) const MAX_WAITING: usize = 65_536;

/// Period whose share of processor time hookhold saves while no work is waiting, in nanoseconds.
const MAX_SAVED_NS: i64 = 1_000_000_000;
