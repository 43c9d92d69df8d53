//! Remembers addresses without an open connection or request, up to a maximum number.
//!
//! The addresses of attackers must not push out known-good addresses, nor the reverse. If there are too many addresses, hookhold
//! therefore forgets the least recently used address that is not known good, as long as a quarter of the places remains for such
//! addresses.

use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;

use lru::LruCache;

use super::open_connections::RESERVED_PART;
use super::sender_record::SenderRecord;

type Records = LruCache<IpAddr, Arc<SenderRecord>, RandomState>;

/// Records of the addresses that have neither an open connection nor a request.
pub(super) struct RememberedSenders {
    max: usize,
    known_good: Records,
    others: Records,
}

impl RememberedSenders {
    /// Creates a memory for at most `max` addresses.
    pub(super) fn new(max: usize) -> RememberedSenders {
        let records = || LruCache::unbounded_with_hasher(RandomState::new());
        RememberedSenders { max, known_good: records(), others: records() }
    }

    /// Removes the record of an address and returns it.
    pub(super) fn take(&mut self, address: IpAddr) -> Option<Arc<SenderRecord>> {
        self.known_good.pop(&address).or_else(|| self.others.pop(&address))
    }

    /// Adds a record, and forgets another one if there are too many.
    pub(super) fn add(&mut self, record: Arc<SenderRecord>, is_known_good: bool) {
        let records = if is_known_good { &mut self.known_good } else { &mut self.others };
        records.push(record.address, record);
        while self.len() > self.max {
            let has_own_part = self.others.len() > self.max / RESERVED_PART || self.known_good.is_empty();
            if has_own_part {
                self.others.pop_lru()
            } else {
                self.known_good.pop_lru()
            };
        }
    }

    /// Returns the records that were known good when they were added.
    pub(super) fn known_good(&self) -> impl Iterator<Item = &Arc<SenderRecord>> {
        self.known_good.iter().map(|(_, record)| record)
    }

    pub(super) fn len(&self) -> usize {
        self.known_good.len() + self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_flight::InFlightBudget;
    use crate::limits::ServerLimits;

    #[test]
    fn neither_kind_of_address_pushes_out_the_last_quarter_of_the_other() {
        let quota = ServerLimits::default().max_rejected_per_address.quota();
        let record = |number: u16| {
            let [high, low] = number.to_be_bytes();
            Arc::new(SenderRecord::new(IpAddr::from([10, 0, high, low]), InFlightBudget::new(1), quota))
        };
        let mut senders = RememberedSenders::new(8);
        for number in 0..100 {
            senders.add(record(number), number < 50);
        }
        assert_eq!((senders.known_good.len(), senders.others.len()), (6, 2));
        for number in 100..200 {
            senders.add(record(number), false);
        }
        assert_eq!((senders.known_good.len(), senders.others.len()), (6, 2), "known-good addresses stay");
        for number in 200..300 {
            senders.add(record(number), true);
        }
        assert_eq!((senders.known_good.len(), senders.others.len()), (6, 2));
        assert!(senders.take(record(199).address).is_some() && senders.take(record(299).address).is_some());
        assert!(senders.take(record(197).address).is_none() && senders.take(record(293).address).is_none());
    }
}
