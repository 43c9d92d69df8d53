//! Tests of the real binary on a machine whose wall clock jumps. A small library that the test preloads adds an offset to the
//! wall clock of the process. The clock of the machine does not change.

#[path = "common/audit.rs"]
mod audit;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/preload.rs"]
mod preload;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::source::Source;
use preload::{preload, set_offset};
use process::{Home, Line, Process, wait_until};

#[test]
fn a_year_ahead_for_a_moment_deletes_nothing_and_rejects_nothing_for_good() {
    let mut home = Home::new(&[("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0")], CONFIG);
    preload(&mut home);
    let source = fixture::source(&home, "stripe");
    let process = home.start();
    let hour = 60 * 60 * 1000;
    for number in 0..200 {
        assert_eq!(deliver(&home, &source, &id(number), 0), 200);
    }
    wait_until("several segments are sealed", || summaries(&home) >= 2);
    let (events, segments) = (stored(&home), ordinals(&home));
    assert_eq!(events, 200);

    set_offset(&home, YEAR_MS / 1000);
    assert_eq!(deliver(&home, &source, "evt_genuine", 0), 503, "hookhold cannot tell whose clock is wrong");
    assert_eq!(outcome(&process, "clock_jumped"), 1);
    // The background work deletes expired segments and keys before it seals the next segment.
    let sealed = summaries(&home);
    for number in 0.. {
        if summaries(&home) >= sealed + 2 {
            break;
        }
        assert_eq!(deliver(&home, &source, &format!("evt_ahead_{number}"), YEAR_MS), 200);
    }
    set_offset(&home, 0);
    wait_until("hookhold notices the correction", || process.metric("hookhold_clock_jumps_total") == Some(2.0));
    assert!(segments.is_subset(&ordinals(&home)), "no segment is deleted");
    for number in 0..200 {
        assert_eq!(deliver(&home, &source, &id(number), 0), 200);
    }
    assert_eq!(outcome(&process, "duplicate"), 200, "no key is deleted");
    assert_eq!(deliver(&home, &source, "evt_genuine", 0), 200, "the sender's retry");
    assert_eq!(home.log().matches("the wall clock has jumped").count(), 2);

    // A restart in the past: the ages of events and keys do not change.
    drop(process);
    set_offset(&home, -24 * hour / 1000);
    let process = home.start();
    assert_eq!(process.metric("hookhold_clock_jumps_total"), Some(1.0));
    assert_eq!(deliver(&home, &source, "evt_genuine", -24 * hour), 200);
    assert_eq!((outcome(&process, "duplicate"), outcome(&process, "stored")), (1, 0));
    assert_eq!(deliver(&home, &source, "evt_late", 0), 503);
    assert!(stored(&home) > 200);
    fixture::stop(process);
}

fn id(number: usize) -> String {
    format!("evt_{number}")
}

/// Sends a delivery that was signed when the sender's clock differed from the clock of the machine by this number of
/// milliseconds. Returns the status of the response.
fn deliver(home: &Home, source: &Arc<Source>, id: &str, offset_ms: i64) -> u16 {
    let signed_at = UnixMillis((SystemClock.now().0 as i64 + offset_ms) as u64);
    Line::open(home.hooks).ask(&load::request_at(source, id.to_owned(), signed_at)).status
}

fn outcome(process: &Process<'_>, outcome: &str) -> u64 {
    process.deliveries().get(&("stripe".to_owned(), outcome.to_owned())).copied().unwrap_or(0)
}

fn stored(home: &Home) -> usize {
    fixture::frames(home, "webhooks.stripe").len()
}

fn summaries(home: &Home) -> usize {
    names(home, ".topics").len()
}

/// Returns the ordinals of all segments. A rewritten segment has the ordinal of the segment that it replaces.
fn ordinals(home: &Home) -> BTreeSet<String> {
    names(home, ".seg").iter().map(|name| name.split('-').next().expect("the name of a segment").to_owned()).collect()
}

fn names(home: &Home, ending: &str) -> Vec<String> {
    let files = fs::read_dir(home.journal()).expect("the journal exists");
    let names = files.map(|file| file.expect("the journal can be listed").file_name().into_string().expect("a text"));
    names.filter(|name| name.ends_with(ending)).collect()
}

const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;
const CONFIG: &str = r#"
server.drain_delay = "0s"
journal.segment_size = "64 KiB"
journal.retain = "1h"

[sources.stripe]
provider = "stripe"
secrets = ["file:secret"]
topic = "webhooks.stripe"
"#;
