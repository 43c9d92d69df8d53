//! Defines the name, default, range and meaning of every limit in `[server]`, `[admin]`, `[journal]` and `[dedupe]`.
//!
//! The room `config` fills the structs in this file from the configuration. The other rooms use the structs directly, so no
//! limit has a second definition. A test compares the limits with `config/hookhold.toml`, which also states the reason for each
//! limit. The room `config` checks that the limits are consistent with each other.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::toml_value::{Item, TomlTable};
use crate::units::{Rate, bytes_text, duration_text};

/// Declares the limits of one section of the configuration. The default of an option may depend on the values of options
/// declared above it.
macro_rules! limits {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $option:ident: $value:ty = $limit:expr;)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $option: $value,)*
        }

        impl $name {
            /// Removes the options of this struct from `section`, and returns the values of the options. Reports invalid
            /// options. An absent or invalid option gets its default.
            pub fn take(section: &mut TomlTable) -> $name {
                $(let $option: $value = $limit.take(section, stringify!($option));)*
                $name { $($option),* }
            }

            /// Returns the key, the default and the range of each option as text, in declaration order.
            pub fn list() -> Vec<LimitText> {
                let mut list = Vec::new();
                $(
                    let limit: Limit<$value> = $limit;
                    list.push(limit.text(stringify!($option)));
                    #[allow(unused_variables, reason = "only some defaults depend on another option")]
                    let $option = limit.default;
                )*
                list
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $(let $option: $value = $limit.default;)*
                $name { $($option),* }
            }
        }
    };
}

limits! {
    /// Limits of the listener for deliveries. The section `[server]` is flat, so this struct has one field per option.
    ServerLimits {
        /// Maximum size of a request body in bytes, for a source whose configuration and recipe set no limit.
        max_body: usize = bytes(5 * MIB, KIB..=256 * MIB);
        /// Maximum time from the first byte of a request to its response. The deadline of a source may be shorter.
        request_deadline: Duration = duration(8 * SECOND, SECOND / 10..=10 * MINUTE);
        /// Time for which hookhold continues to accept deliveries after SIGTERM, so that load balancers can remove the
        /// instance.
        drain_delay: Duration = duration(5 * SECOND, Duration::ZERO..=10 * MINUTE);
        /// Time from the end of `drain_delay` until the server closes the connections that are still open.
        drain_deadline: Duration = duration(20 * SECOND, SECOND..=HOUR);
        /// Maximum number of open connections. A quarter of them is reserved for known-good addresses. At the limit, a connection
        /// that has brought no genuine delivery makes room for a new one: one whose client has sent nothing, or else the oldest one.
        max_connections: usize = count(10_000, 1..=1_000_000);
        /// Maximum number of open connections from one address that is not known good. At the limit, a connection of the address makes
        /// room for a new one: one whose client has sent nothing, or else the oldest one.
        max_connections_per_address: usize = count(2_500, 1..=1_000_000);
        /// Maximum number of requests under way at any time, over all connections. A quarter is reserved for known-good addresses.
        /// A further request gets the outcome `overloaded`, unless the oldest request with an unfinished body, or with a wait for a
        /// turn, makes room for it. One address that is not known good may have at most half of the rest.
        max_requests: usize = count(10_000, 16..=500_000);
        /// Maximum total size of the requests in memory at any time, in bytes: bodies, heads, and a fixed cost of 16 KiB for each
        /// request. Includes the buffers of connections that have grown. A quarter is reserved for known-good addresses.
        max_in_flight: usize = bytes(256 * MIB, MIB..=TIB);
        /// Maximum total size of the requests from one address in memory at any time, in bytes, unless the address is known good.
        /// Exceptions: bodies of at most 64 KiB, and one large body if the total size of the other requests of its address in memory
        /// is at most the size of the large one.
        max_in_flight_per_address: usize = bytes(64 * MIB, MIB..=TIB);
        /// Maximum rate of rejected deliveries from one address. Above this rate, the server verifies the deliveries of the
        /// address, and performs its TLS handshakes, in at most a tenth of a processor core. Genuine deliveries never count towards
        /// the rate.
        max_rejected_per_address: Rate = rate("600/m");
        /// Maximum number of addresses that the server remembers after their last connection has closed. The server forgets the
        /// least recently used address first.
        max_addresses: usize = count(65_536, 1..=10_000_000);
        /// Minimum transfer rate of an incomplete request, in bytes per second.
        min_rate: u64 = bytes(KIB, 1..=MIB);
        /// Time from the first byte of a request until `min_rate` applies.
        min_rate_after: Duration = duration(2 * SECOND, SECOND / 10..=10 * MINUTE);
        /// Maximum size of a request head in bytes. The head is the request line and the header fields.
        max_header_size: usize = bytes(32 * KIB, 8 * KIB..=MIB);
        /// Maximum number of header fields in one request.
        max_headers: usize = count(100, 16..=1_000);
        /// Maximum time for which a connection of an unknown sender stays open without a request.
        idle_timeout: Duration = duration(75 * SECOND, SECOND..=HOUR);
        /// Maximum time for which a connection of a trusted proxy, or of an address that has sent a genuine delivery, stays
        /// open without a request. A request is lost if a proxy sends it on a connection that the server has closed. The
        /// default is longer than the idle timeout of the connection pools of common proxies, of which Google's is the
        /// longest with 600 s.
        trusted_idle_timeout: Duration = duration(idle_timeout.max(620 * SECOND), SECOND..=HOUR);
        /// Maximum time from the start of a connection until its PROXY header and its TLS handshake are complete.
        handshake_timeout: Duration = duration(10 * SECOND, SECOND / 10..=MINUTE);
        /// Maximum number of concurrent HTTP/2 requests on one connection.
        max_streams: usize = count(100, 1..=10_000);
    }
}

limits! {
    /// Limits of the admin listener.
    AdminLimits {
        /// Maximum size of the files with rejected deliveries, in bytes. `hookhold doctor` can explain the rejected deliveries in
        /// these files. If the value is 0, hookhold stores no rejected deliveries.
        keep_rejected: u64 = bytes(64 * MIB, 0..=GIB);
        /// Time for which hookhold stores a rejected delivery.
        keep_rejected_for: Duration = duration(7 * DAY, SECOND..=366 * DAY);
        /// Maximum size of the body that hookhold stores with a rejected delivery, in bytes.
        keep_rejected_bodies: usize = bytes(256 * KIB, 0..=4 * MIB);
    }
}

limits! {
    /// Limits of the journal. All sizes are in bytes.
    JournalLimits {
        /// Maximum total size of all segments.
        max_size: u64 = bytes(20 * GIB, MIB..=256 * TIB);
        /// Time for which a forwarded event stays available for replay.
        retain: Duration = duration(3 * DAY, SECOND..=366 * DAY);
        /// Size of one segment. An event larger than a segment gets a segment of its own.
        segment_size: u64 = bytes(64 * MIB, 64 * KIB..=GIB);
        /// Maximum backlog of one topic. The backlog consists of the segment bytes that hookhold cannot delete because Kafka
        /// has not acknowledged all events of the topic.
        max_backlog: u64 = bytes(max_size / 2, 64 * KIB..=256 * TIB);
        /// Maximum space of all parked events: events that Kafka has rejected because of the event itself. If there is no room, such
        /// an event blocks its topic.
        max_parked: u64 = bytes(GIB, 0..=256 * TIB);
    }
}

limits! {
    /// Limits of deduplication.
    DedupeLimits {
        /// Time for which hookhold recognises duplicates of an event, counted from the first delivery of the event. A source
        /// has a longer window if its provider retries for longer.
        window: Duration = duration(7 * DAY, SECOND..=366 * DAY);
        /// Maximum number of keys from key files that hookhold caches in memory. The keys of unsealed segments are always in
        /// memory.
        hot_keys: u64 = count(1_000_000, 1_000..=1_000_000_000);
        /// Maximum total size of all key files, in bytes.
        max_disk: u64 = bytes(10 * GIB, MIB..=256 * TIB);
    }
}

/// Key, default and range of one limit as text, in the notation of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitText {
    /// Key of the option within its section.
    pub key: &'static str,
    /// Default of the option as a TOML value.
    pub default: String,
    /// Range of valid values, such as `1 KiB to 256 MiB`.
    pub range: String,
}

/// Default and range of one option, and the function that reads its value from the configuration.
struct Limit<T> {
    default: T,
    default_text: String,
    range: String,
    read: Box<dyn Fn(Item) -> Option<T>>,
}

impl<T> Limit<T> {
    fn take(self, section: &mut TomlTable, key: &str) -> T {
        section.take(key).and_then(self.read).unwrap_or(self.default)
    }

    fn text(&self, key: &'static str) -> LimitText {
        LimitText { key, default: self.default_text.clone(), range: self.range.clone() }
    }
}

fn count<T: TryFrom<u64>>(default: u64, range: RangeInclusive<u64>) -> Limit<T> {
    Limit {
        default: fit(default).expect("the default fits its type"),
        default_text: default.to_string(),
        range: between(range.start(), range.end()),
        read: Box::new(move |item| fit(item.integer(range.clone())?)),
    }
}

fn bytes<T: TryFrom<u64>>(default: u64, range: RangeInclusive<u64>) -> Limit<T> {
    Limit {
        default: fit(default).expect("the default fits its type"),
        default_text: quoted(bytes_text(default)),
        range: between(bytes_text(*range.start()), bytes_text(*range.end())),
        read: Box::new(move |item| fit(item.bytes(range.clone())?)),
    }
}

fn duration(default: Duration, range: RangeInclusive<Duration>) -> Limit<Duration> {
    Limit {
        default,
        default_text: quoted(duration_text(default)),
        range: between(duration_text(*range.start()), duration_text(*range.end())),
        read: Box::new(move |item| item.duration(range.clone())),
    }
}

fn rate(default: &str) -> Limit<Rate> {
    Limit {
        default: Rate::parse(default).expect("the default is a rate"),
        default_text: quoted(default),
        range: between("1/h", format_args!("{}/s", Rate::MOST)),
        read: Box::new(Item::rate),
    }
}

fn fit<T: TryFrom<u64>>(number: u64) -> Option<T> {
    T::try_from(number).ok()
}

fn between(low: impl Display, high: impl Display) -> String {
    format!("{low} to {high}")
}

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
