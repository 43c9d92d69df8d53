//! Tests the store of rejected deliveries on a simulated disk: its limits, and what a full, failing or damaged disk does to it and
//! to the answers of the gateway.

#[path = "common/disk.rs"]
mod disk;
#[path = "common/harness.rs"]
mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use disk::{SimDisk, Step};
use harness::{Harness, TestClock};
use hookhold::answer::Answer;
use hookhold::clock::{Clock, UnixMillis};
use hookhold::credentials::Credentials;
use hookhold::event::Delivery;
use hookhold::limits::AdminLimits;
use hookhold::outcome::Outcome;
use hookhold::rejections::{MAX_QUEUED, RejectedDelivery};
use hookhold::service::read_rejections;
use hookhold::source::{Source, SourceDefaults};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SIZE: u64 = 1 << 20;
const TOKEN: &str = "genuine-s3cret";
const HEADER: &str = "auth = \"token\"\ntoken = { from = \"header:X-Api-Key\" }\nevent = { id = \"json:/id\" }";
const FIELD: &str = "auth = \"token\"\ntoken = { from = \"json:/passcode\" }\nevent = { id = \"json:/id\" }";

fn source(name: &str, entry: &str) -> Source {
    let defaults = SourceDefaults {
        providers: Default::default(),
        public_url: None,
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: Duration::from_secs(8),
        window: Duration::from_secs(60),
    };
    harness::source(name, TOKEN, entry, &defaults)
}

fn build(disk: &SimDisk, clock: TestClock) -> Harness {
    let mut config = harness::config(vec![source("shop", HEADER), source("field", FIELD)]);
    config.admin.limits.keep_rejected = SIZE;
    Harness::build(config, disk.clone(), clock)
}

/// Stores a rejected delivery from the address with this number, as the gateway does.
fn reject(harness: &Harness, source: &str, outcome: Outcome, from: u8, body: usize) {
    let delivery = Delivery {
        method: Method::POST,
        target: format!("/hooks/{source}"),
        headers: HeaderMap::new(),
        body: Bytes::from(vec![b'x'; body]),
        remote: SocketAddr::from(([192, 0, 2, from], 1000)),
        received_at: harness.clock.now(),
    };
    harness.gateway.rejections().store(&source.into(), &Credentials::default(), &delivery, &Answer::plain(outcome));
}

/// Waits until the writer has finished with all rejections, and returns those on disk.
fn stored(harness: &Harness) -> Vec<RejectedDelivery> {
    harness.gateway.rejections().queue().flush(PATIENCE);
    read(&harness.disk)
}

fn read(disk: &SimDisk) -> Vec<RejectedDelivery> {
    let mut stored = Vec::new();
    read_rejections(disk.second_process(), |rejected| stored.push(rejected)).expect("the directory can be listed");
    stored
}

fn dropped(harness: &Harness, reason: &str) -> u64 {
    harness.metrics.rejections.dropped.with_label_values(&[reason]).get()
}

/// Sends a delivery with this token and id, and returns the status of the response.
async fn send(harness: &Harness, source: &str, token: &str, id: &str) -> String {
    let body = format!("{{\"id\":\"{id}\",\"passcode\":\"{token}\"}}");
    let head = format!("POST /hooks/{source} HTTP/1.1\r\nhost: h\r\nx-api-key: {token}\r\nconnection: close\r\n");
    let mut connection = TcpStream::connect(harness.address()).await.expect("the listener is open");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    connection.write_all(request.as_bytes()).await.expect("writable");
    let mut response = String::new();
    connection.read_to_string(&mut response).await.expect("the server closes without a reset");
    response.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_flood_stays_within_the_limit_and_leaves_other_groups() {
    let disk = SimDisk::default();
    let harness = build(&disk, TestClock::System);
    reject(&harness, "quiet", Outcome::TimestampStale, 1, 9);
    for source in ["loud", "louder"] {
        (0..64).for_each(|from| reject(&harness, source, Outcome::SignatureMismatch, from, 60_000));
        let stored = stored(&harness);
        let size: usize = disk.names(".rejected").iter().filter_map(|name| disk.len(name)).sum();
        assert!(size as u64 <= SIZE && size as u64 > SIZE / 2, "{size}");
        assert_eq!(size as i64, harness.metrics.rejections.bytes.get());
        let of = |source: &str| stored.iter().filter(|rejected| *rejected.source == *source).count();
        assert_eq!(of("quiet"), 1, "the flood has replaced the rejection of another source");
        assert!(of(source) > 4, "{}", of(source));
    }
    let of_loud = read(&disk).iter().filter(|rejected| *rejected.source == *"loud").count();
    assert!((1..=5).contains(&of_loud), "a few of the newest ones outlive the second flood: {of_loud}");
}

#[test]
fn one_sender_does_not_use_up_the_room_of_the_others() {
    let disk = SimDisk::default();
    let harness = build(&disk, TestClock::System);
    (0..1000).for_each(|_| reject(&harness, "shop", Outcome::SignatureMismatch, 1, 9));
    reject(&harness, "shop", Outcome::SignatureMismatch, 2, 9);
    let senders: Vec<u8> = stored(&harness)
        .iter()
        .map(|rejected| match rejected.remote {
            SocketAddr::V4(remote) => remote.ip().octets()[3],
            SocketAddr::V6(remote) => panic!("{remote}"),
        })
        .collect();
    assert_eq!(senders, [1, 1, 1, 1, 2]);
    assert_eq!(dropped(&harness, "sampled"), 996);
    assert_eq!(stored(&harness)[4].sampled_out, 996);
}

#[test]
fn rejections_survive_a_stop_and_a_kill_in_few_files() {
    let disk = SimDisk::default();
    let mut harness = build(&disk, TestClock::System);
    for round in 1..=20 {
        reject(&harness, "shop", Outcome::SignatureMismatch, round, 9);
        if round % 2 == 0 {
            assert_eq!(stored(&harness).len(), usize::from(round));
            harness = harness.killed();
        } else {
            harness = harness.restarted();
            assert_eq!(read(&disk).len(), usize::from(round), "a clean stop writes the waiting rejections");
        }
        assert!(disk.names(".rejected").len() <= 2, "{:?}", disk.names(".rejected"));
    }
}

#[test]
fn expired_rejections_are_deleted() {
    let disk = SimDisk::default();
    let harness = build(&disk, TestClock::stopped_at(UnixMillis(1_800_000_000_000)));
    reject(&harness, "shop", Outcome::SignatureMismatch, 1, 9);
    assert_eq!(stored(&harness).len(), 1);
    let limits = |days: u64| AdminLimits {
        keep_rejected: SIZE,
        keep_rejected_for: Duration::from_secs(days * 86_400),
        ..AdminLimits::default()
    };
    harness.clock.advance(Duration::from_secs(6 * 86_400));
    harness.gateway.rejections().set_limits(limits(8));
    reject(&harness, "shop", Outcome::TooLarge, 1, 9);
    assert_eq!(stored(&harness).len(), 2, "nothing has expired");
    harness.clock.advance(Duration::from_secs(3 * 86_400));
    harness.gateway.rejections().set_limits(limits(7));
    disk.wait_for(|names| names.iter().filter(|name| name.ends_with(".rejected")).count() == 1);
    let outcomes: Vec<Outcome> = read(&disk).iter().map(|rejected| rejected.outcome).collect();
    assert_eq!(outcomes, [Outcome::TooLarge]);
    harness.gateway.rejections().set_limits(AdminLimits { keep_rejected: 0, ..limits(7) });
    disk.wait_for(|names| !names.iter().any(|name| name.ends_with(".rejected")));
}

#[tokio::test]
async fn a_full_disk_fails_no_answer_and_later_rejections_are_stored() {
    let disk = SimDisk::default();
    let mut harness = build(&disk, TestClock::stopped_at(UnixMillis(1_800_000_000_000)));
    harness.serve();
    assert_eq!(send(&harness, "shop", TOKEN, "1").await, "200");
    disk.set_limit(disk.used());
    for id in 0..10 {
        assert_eq!(send(&harness, "shop", "another", &id.to_string()).await, "401");
    }
    assert_eq!(send(&harness, "shop", TOKEN, "2").await, "200");
    assert!(stored(&harness).is_empty());
    assert_eq!(dropped(&harness, "write_failed"), 4);
    disk.set_limit(u64::MAX);
    harness.clock.advance(Duration::from_secs(60));
    reject(&harness, "shop", Outcome::SignatureMismatch, 1, 9);
    assert_eq!(stored(&harness).len(), 1);
}

#[tokio::test]
async fn a_disk_that_hangs_delays_no_answer() {
    let disk = SimDisk::default();
    let mut harness = build(&disk, TestClock::System);
    harness.serve();
    let gate = disk.hold(Step::Write, ".rejected");
    assert_eq!(send(&harness, "shop", "another", "1").await, "401");
    let outcomes = [
        Outcome::SignatureMissing,
        Outcome::SignatureMalformed,
        Outcome::TimestampStale,
        Outcome::TimestampFuture,
        Outcome::TooLarge,
    ];
    for outcome in outcomes {
        (0..64).for_each(|from| reject(&harness, "shop", outcome, from, 9));
    }
    assert!(dropped(&harness, "queue_full") >= outcomes.len() as u64 * 64 - MAX_QUEUED as u64 - 1);
    assert_eq!(send(&harness, "shop", "another", "2").await, "401");
    assert_eq!(send(&harness, "shop", TOKEN, "3").await, "200");
    drop(gate);
    assert!(stored(&harness).len() >= MAX_QUEUED, "the rejections in the queue are stored");
}

#[tokio::test]
async fn a_failing_disk_fails_no_answer() {
    let disk = SimDisk::default();
    let mut harness = build(&disk, TestClock::stopped_at(UnixMillis(1_800_000_000_000)));
    harness.serve();
    for (number, step) in [Step::Create, Step::Write, Step::Open, Step::Remove].into_iter().enumerate() {
        disk.fail(step, ".rejected", std::io::ErrorKind::Other, 1);
        assert_eq!(send(&harness, "shop", "another", "1").await, "401");
        assert_eq!(send(&harness, "shop", TOKEN, &format!("event {number}")).await, "200");
        stored(&harness);
        disk.clear_faults();
        harness.clock.advance(Duration::from_secs(60));
    }
    reject(&harness, "shop", Outcome::TooLarge, 1, 9);
    assert!(stored(&harness).iter().any(|rejected| rejected.outcome == Outcome::TooLarge));
}

#[test]
fn nothing_is_written_while_the_journals_reserve_is_missing() {
    let disk = SimDisk::default();
    let harness = build(&disk, TestClock::System);
    disk.remove_file("reserve");
    reject(&harness, "shop", Outcome::SignatureMismatch, 1, 9);
    assert!(stored(&harness).is_empty() && disk.names(".rejected").is_empty());
    assert_eq!(dropped(&harness, "write_failed"), 1);
}

#[test]
fn damaged_files_are_skipped_and_stop_no_start() {
    let disk = SimDisk::default();
    let harness = build(&disk, TestClock::System);
    (1..=4).for_each(|from| reject(&harness, "shop", Outcome::SignatureMismatch, from, 9));
    assert_eq!(stored(&harness).len(), 4);
    let (first, ordinal) = (disk.names(".rejected").remove(0), "0000000009");
    let whole = disk.bytes(&first);
    let harness = harness.restarted_after(|_| {
        let damaged: Vec<u8> = whole.iter().enumerate().map(|(at, byte)| if at == 40 { byte ^ 1 } else { *byte }).collect();
        for (number, content) in [&b""[..], b"HKREJ001", b"garbage", &[0xff; 5000], &whole[..whole.len() / 2]].iter().enumerate()
        {
            disk.put_file(&format!("{:010}.rejected", number + 2), content);
        }
        disk.put_file(&format!("{ordinal}.rejected"), &damaged);
        disk.put_file(&first, &damaged);
    });
    reject(&harness, "shop", Outcome::TooLarge, 5, 9);
    let outcomes: Vec<Outcome> = stored(&harness).iter().map(|rejected| rejected.outcome).collect();
    assert!(outcomes.contains(&Outcome::TooLarge), "{outcomes:?}");
    let intact = outcomes.iter().filter(|outcome| **outcome == Outcome::SignatureMismatch).count();
    assert!((3..=4).contains(&intact), "{outcomes:?}");
}

#[tokio::test]
async fn a_token_in_a_body_is_never_written_with_a_rejection() {
    let disk = SimDisk::default();
    let mut harness = build(&disk, TestClock::System);
    harness.serve();
    assert_eq!(send(&harness, "field", "other-s3cret", "1").await, "401");
    assert_eq!(send(&harness, "shop", "other-s3cret", "2").await, "401");
    let stored = stored(&harness);
    assert_eq!(stored.len(), 2);
    let of_field = stored.iter().find(|rejected| *rejected.source == *"field").expect("a rejection");
    let request = String::from_utf8_lossy(&of_field.request);
    assert!(request.ends_with("\r\n\r\n") && !request.contains("passcode"), "{request}");
    let head =
        |rejected: &RejectedDelivery| String::from_utf8_lossy(&rejected.request).split("\r\n\r\n").next().map(str::to_owned);
    let of_shop = stored.iter().find(|rejected| *rejected.source == *"shop").and_then(head).expect("a head");
    assert!(!of_shop.contains("s3cret") && of_shop.contains("content-length"), "{of_shop}");
}

/// Maximum time to wait for the writer. The limit exists only to end a stuck test.
const PATIENCE: Duration = Duration::from_secs(60);
