//! Saves the known-good addresses to a file, so that a restart does not forget them.
//!
//! The file is only an aid: hookhold starts without it, and ignores a damaged file. hookhold saves the file at most once per
//! [`SAVE_INTERVAL`], and only if an address has newly become known good or has been known good for much longer than the file says.
//!
//! ```text
//! 0        8      12     16
//! +--------+------+------+----------------------------------------------+---
//! |hookgood| crc  |count | IPv6 address, 16 B · end, Unix milliseconds  | …
//! +--------+------+------+----------------------------------------------+---
//! ```

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::sender_limits::{KNOWN_GOOD_FOR, SenderLimits};
use crate::clock::{Clock, UnixMillis};

/// File that stores the known-good addresses between two runs of the server. The methods block the thread.
pub trait KnownSendersFile: Send + Sync {
    /// Reads at most `max` bytes of the file.
    fn read(&self, max: usize) -> io::Result<Vec<u8>>;
    /// Replaces the content of the file.
    fn write(&self, content: &[u8]) -> io::Result<()>;
}

/// Known-good addresses of a server, and the file that stores them.
pub(super) struct KnownSenders {
    pub(super) limits: Arc<SenderLimits>,
    pub(super) file: Arc<dyn KnownSendersFile>,
    pub(super) clock: Arc<dyn Clock>,
}

impl KnownSenders {
    /// Reads the file. If this fails, the server knows no address.
    pub(super) async fn restore(&self) {
        let file = self.file.clone();
        let Ok(read) = spawn_blocking(move || file.read(MAX_FILE_BYTES)).await else { return };
        let now = self.clock.now();
        match read.map(|content| decode(&content, now)) {
            Ok(Some(known_good)) => {
                tracing::info!(addresses = known_good.len(), "restored the addresses of known senders");
                self.limits.restore(known_good);
            }
            Ok(None) => tracing::warn!("{DAMAGED}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "{DAMAGED}"),
        }
    }

    /// Saves the file whenever it is out of date. Never returns.
    pub(super) async fn save_changes(&self) {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_save: Option<Instant> = None;
        loop {
            checks.tick().await;
            if last_save.is_none_or(|at| at.elapsed() >= SAVE_INTERVAL) && self.limits.is_unsaved() {
                last_save = Some(Instant::now());
                self.save().await;
            }
        }
    }

    /// Saves the file if it is out of date, but waits no longer than [`LAST_SAVE_TIMEOUT`].
    pub(super) async fn save_at_end(&self) {
        if self.limits.is_unsaved() && timeout(LAST_SAVE_TIMEOUT, self.save()).await.is_err() {
            tracing::warn!("saving the addresses of known senders timed out; check the disk");
        }
    }

    async fn save(&self) {
        let content = encode(self.limits.known_good(Instant::now()), self.clock.now());
        let file = self.file.clone();
        if let Ok(Err(error)) = spawn_blocking(move || file.write(&content)).await {
            self.limits.set_unsaved();
            tracing::warn!(%error, "cannot save the addresses of known senders, so a restart forgets them; check the disk");
        }
    }
}

/// Encodes addresses, each with the time for which it stays known good. Omits the addresses with the least time if there are more
/// than [`MAX_SAVED`].
fn encode(mut known_good: Vec<(IpAddr, Duration)>, now: UnixMillis) -> Vec<u8> {
    known_good.sort_unstable_by(|(_, one), (_, other)| other.cmp(one));
    known_good.truncate(MAX_SAVED);
    let mut content = [&MAGIC[..], &[0; 4], &(known_good.len() as u32).to_le_bytes()].concat();
    for (address, rest) in known_good {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let until = now.0.saturating_add(rest.as_millis() as u64);
        content.extend_from_slice(&address.octets());
        content.extend_from_slice(&until.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&content[CHECKED_FROM..]);
    content[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    content
}

/// Decodes the addresses that are still known good at `now`. Returns `None` if the file is damaged.
fn decode(content: &[u8], now: UnixMillis) -> Option<Vec<(IpAddr, Duration)>> {
    let (magic, rest) = content.split_first_chunk::<8>()?;
    let (checksum, checked) = rest.split_first_chunk::<4>()?;
    let (count, entries) = checked.split_first_chunk::<4>()?;
    let is_valid = magic == MAGIC && crc32c::crc32c(checked) == u32::from_le_bytes(*checksum);
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if !is_valid || !rest.is_empty() || entries.len() != u32::from_le_bytes(*count) as usize {
        return None;
    }
    let known_good = entries.iter().filter_map(|entry| {
        let (address, until) = entry.split_first_chunk::<16>()?;
        let until = u64::from_le_bytes(until.try_into().ok()?);
        // If the wall clock was wrong, an address stays known good for no longer than after a new delivery.
        let rest = Duration::from_millis(UnixMillis(until).since(now)).min(KNOWN_GOOD_FOR);
        (!rest.is_zero()).then_some((Ipv6Addr::from(*address).to_canonical(), rest))
    });
    Some(known_good.collect())
}

const MAGIC: &[u8; 8] = b"hookgood";
/// Offset of the bytes that the checksum covers.
const CHECKED_FROM: usize = 12;
const ENTRY_BYTES: usize = 24;
/// Maximum number of addresses in the file.
const MAX_SAVED: usize = 4096;
const MAX_FILE_BYTES: usize = 16 + MAX_SAVED * ENTRY_BYTES;

/// Minimum time between two saves.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum duration of the last save.
const LAST_SAVE_TIMEOUT: Duration = Duration::from_secs(1);

const DAMAGED: &str = "addresses of known senders: expected a valid file in the journal's directory, found a damaged one; hookhold \
                       continues without it and writes it again";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn known_good(count: u32) -> Vec<(IpAddr, Duration)> {
        (0..count).map(|n| (Ipv6Addr::from_bits(u128::from(n) << 64).into(), Duration::from_secs(u64::from(n) + 1))).collect()
    }

    #[test]
    fn addresses_survive_and_expire_at_the_same_time() {
        let saved = vec![("192.0.2.1".parse().expect("an address"), Duration::from_secs(60)), known_good(2)[1]];
        let content = encode(saved.clone(), NOW);
        assert_eq!(decode(&content, NOW), Some(saved));
        let later = |seconds: u64| decode(&content, UnixMillis(NOW.0 + seconds * 1000)).expect("an intact file");
        assert_eq!(later(2).iter().map(|(_, rest)| rest.as_secs()).collect::<Vec<_>>(), [58]);
        assert!(later(60).is_empty());
        let earlier = decode(&content, UnixMillis(0)).expect("an intact file");
        assert!(earlier.iter().all(|(_, rest)| *rest == KNOWN_GOOD_FOR), "the clock was wrong");
    }

    #[test]
    fn the_file_is_limited_to_the_latest_addresses() {
        let content = encode(known_good(MAX_SAVED as u32 + 10), NOW);
        assert_eq!(content.len(), MAX_FILE_BYTES);
        let decoded = decode(&content, NOW).expect("an intact file");
        assert_eq!(decoded.iter().map(|(_, rest)| rest.as_secs()).min(), Some(11));
    }

    #[test]
    fn every_damage_of_the_file_is_found() {
        let content = encode(known_good(3), NOW);
        for length in 0..content.len() {
            assert_eq!(decode(&content[..length], NOW), None, "cut after {length} bytes");
        }
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged, NOW), None, "byte {at}");
        }
        assert_eq!(decode(&[&content[..], &[0; ENTRY_BYTES]].concat(), NOW), None);
    }
}
