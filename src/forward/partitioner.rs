//! Computes the partition in which Kafka stores a record: the hash of the record's key, modulo the number of partitions. librdkafka's
//! partitioner `murmur2_random` and the Java client compute the same partition.
//!
//! The hash is the 32-bit MurmurHash2 of `org.apache.kafka.common.utils.Utils.murmur2`, without its highest bit:
//! <https://github.com/apache/kafka/blob/4.0/clients/src/main/java/org/apache/kafka/common/utils/Utils.java>

use std::num::NonZeroU32;

/// Returns the partition of a record with this key in a topic with this number of partitions.
pub fn partition(key: &[u8], partitions: NonZeroU32) -> u32 {
    KeyHash::of(key).partition(partitions)
}

/// Hash of a record's key, from which the record's partition follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash(u32);

impl KeyHash {
    /// Computes the hash of `key`.
    pub(super) fn of(key: &[u8]) -> KeyHash {
        KeyHash(murmur2(key) & 0x7fff_ffff)
    }

    /// Returns the partition in a topic with this number of partitions.
    pub(super) fn partition(self, partitions: NonZeroU32) -> u32 {
        self.0 % partitions
    }
}

fn murmur2(bytes: &[u8]) -> u32 {
    let mix = |word: u32| {
        let word = word.wrapping_mul(MULTIPLIER);
        (word ^ (word >> 24)).wrapping_mul(MULTIPLIER)
    };
    let (words, rest) = bytes.as_chunks::<4>();
    let start = SEED ^ bytes.len() as u32;
    let mut hash = words.iter().fold(start, |hash, word| hash.wrapping_mul(MULTIPLIER) ^ mix(u32::from_le_bytes(*word)));
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

const MULTIPLIER: u32 = 0x5bd1_e995;
const SEED: u32 = 0x9747_b28c;

#[cfg(test)]
mod tests {
    use super::*;

    /// The first seven values are those of Kafka's own test, `UtilsTest.testMurmur2`, and of librdkafka's `unittest_murmur2`.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        let published = [
            ("21", -973932308_i32),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
            ("", 275646681),
            ("h\u{e9}llo \u{4e16}", 0xad8e_4c55_u32 as i32),
        ];
        for (key, hash) in published {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_the_hash_without_its_sign() {
        let of = |key: &str, partitions| partition(key.as_bytes(), NonZeroU32::new(partitions).expect("not zero"));
        assert_eq!((of("21", 1), of("21", 7)), (0, ((-973932308_i32 & 0x7fff_ffff) % 7) as u32));
    }
}
