//! Sorted ranges of sequences that neither overlap nor touch each other.

use std::ops::Range;

/// Inserts a range, and merges it with the ranges that it overlaps or touches.
pub(crate) fn insert(ranges: &mut Vec<Range<u64>>, added: Range<u64>) {
    let from = ranges.partition_point(|range| range.end < added.start);
    let to = ranges.partition_point(|range| range.start <= added.end);
    let start = ranges[from..to].first().map_or(added.start, |range| range.start.min(added.start));
    let end = ranges[from..to].last().map_or(added.end, |range| range.end.max(added.end));
    ranges.splice(from..to, std::iter::once(start..end));
}

/// Returns the number of sequences in all ranges.
pub(super) fn len(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Returns true if a range contains `seq`.
pub(super) fn contain(ranges: &[Range<u64>], seq: u64) -> bool {
    find(ranges, seq).is_some_and(|range| range.start <= seq)
}

/// Returns true if one range contains all sequences of `other`.
pub(super) fn cover(ranges: &[Range<u64>], other: &Range<u64>) -> bool {
    find(ranges, other.start).is_some_and(|range| range.start <= other.start && other.end <= range.end)
}

/// Returns the first range that ends after `seq`.
fn find(ranges: &[Range<u64>], seq: u64) -> Option<&Range<u64>> {
    ranges.get(ranges.partition_point(|range| range.end <= seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ranges_agree_with_a_plain_set() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let (mut ranges, mut model) = (Vec::new(), [false; 64]);
            for _ in 0..rng.usize(1..20) {
                let start = rng.usize(..60);
                let added = start..(start + rng.usize(1..5));
                let is_new = model[added.clone()].contains(&false);
                assert_eq!(cover(&ranges, &(added.start as u64..added.end as u64)), !is_new);
                insert(&mut ranges, added.start as u64..added.end as u64);
                model[added].fill(true);
            }
            assert!((0..64).all(|seq| contain(&ranges, seq as u64) == model[seq]));
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
        }
    }
}
