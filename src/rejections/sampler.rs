//! Decides which rejected deliveries hookhold stores. Unknown senders cause most of them, so each sender, and each group of all
//! rejections with the same source and outcome, may store only a few at once and a few a minute. A flood from one address
//! therefore does not use up the allowance of the other addresses, and a flood in one group does not affect the other groups.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Allowances of all groups.
#[derive(Default)]
pub(super) struct RejectionSampler {
    groups: BTreeMap<(Arc<str>, &'static str), GroupAllowance>,
}

/// Allowance of all rejections with the same source and outcome, and of each sender among them.
#[derive(Default)]
struct GroupAllowance {
    all: Allowance,
    /// Senders whose allowance is not complete. The group's allowance limits their number.
    senders: HashMap<IpAddr, Allowance>,
    /// Number of rejections that were not admitted since the last admitted one.
    sampled_out: u64,
}

/// An allowance of a number of rejections, which one more refills after each interval.
#[derive(Clone, Copy, Default)]
struct Allowance {
    /// Time at which the allowance is complete again.
    complete_at: Duration,
}

impl RejectionSampler {
    /// Uses up the allowances for one rejection at `now`. Returns the number of rejections of the group that were sampled out
    /// before this one; `None` if an allowance is used up, so that this one is sampled out.
    pub(super) fn admit(&mut self, source: &Arc<str>, outcome: &'static str, sender: IpAddr, now: Duration) -> Option<u64> {
        let group = self.groups.entry((source.clone(), outcome)).or_default();
        group.senders.retain(|_, allowance| allowance.complete_at > now);
        let own = group.senders.get(&sender).copied().unwrap_or_default().after_one(now, MAX_PER_SENDER, SENDER_INTERVAL);
        let all = group.all.after_one(now, MAX_PER_GROUP, GROUP_INTERVAL);
        let (Some(own), Some(all)) = (own, all) else {
            group.sampled_out += 1;
            return None;
        };
        group.senders.insert(sender, own);
        group.all = all;
        Some(std::mem::take(&mut group.sampled_out))
    }
}

impl Allowance {
    /// Returns the allowance after one rejection, or `None` if it is used up.
    fn after_one(self, now: Duration, most: u32, interval: Duration) -> Option<Allowance> {
        let complete_at = self.complete_at.max(now) + interval;
        (complete_at <= now + interval * most).then_some(Allowance { complete_at })
    }
}

/// Number of rejections with the same sender address, source and outcome that hookhold stores at once.
pub const MAX_PER_SENDER: u32 = 4;
/// Number of rejections with the same source and outcome that hookhold stores at once.
pub const MAX_PER_GROUP: u32 = 64;
/// Time after which a sender may store one more rejection.
pub const SENDER_INTERVAL: Duration = Duration::from_secs(30);
/// Time after which a group may store one more rejection.
pub const GROUP_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn admitted(sampler: &mut RejectionSampler, outcome: &'static str, last: u8, now: Duration) -> bool {
        sampler.admit(&"shop".into(), outcome, [192, 0, 2, last].into(), now).is_some()
    }

    #[test]
    fn each_sender_and_each_group_has_its_own_limit() {
        let mut sampler = RejectionSampler::default();
        let of_one = (0..1000).filter(|_| admitted(&mut sampler, "a", 1, START)).count();
        assert_eq!(of_one, MAX_PER_SENDER as usize);
        assert!(admitted(&mut sampler, "a", 2, START), "another sender has an allowance of its own");
        let of_all = (3..=255).filter(|last| admitted(&mut sampler, "a", *last, START)).count();
        assert_eq!(of_all, MAX_PER_GROUP as usize - 5);
        assert!(admitted(&mut sampler, "b", 1, START), "another outcome has an allowance of its own");
    }

    #[test]
    fn an_allowance_refills_and_counts_what_was_sampled_out() {
        let mut sampler = RejectionSampler::default();
        for _ in 0..10 {
            admitted(&mut sampler, "a", 1, START);
        }
        let later = START + SENDER_INTERVAL;
        assert!(!admitted(&mut sampler, "a", 1, later - Duration::from_millis(1)));
        assert_eq!(sampler.admit(&"shop".into(), "a", [192, 0, 2, 1].into(), later), Some(7));
        assert!(!admitted(&mut sampler, "a", 1, later));
    }

    #[test]
    fn the_memory_for_senders_is_bounded() {
        let mut sampler = RejectionSampler::default();
        for number in 0..100_000u32 {
            let now = START + Duration::from_millis(u64::from(number));
            sampler.admit(&"shop".into(), "a", number.to_be_bytes().into(), now);
        }
        let senders = sampler.groups.values().map(|group| group.senders.len()).sum::<usize>();
        assert!(senders <= MAX_PER_GROUP as usize, "{senders}");
    }
}
