//! Measures the time in which the verifier checks one delivery of 2 KiB, as a ratio to the bare HMAC of the same bytes.
//!
//! Command: `cargo bench --bench proof [-- ROUNDS]`, 30 rounds by default. A round measures in turns of a few milliseconds: the
//! bare HMAC, the proof alone, and the whole verification, which also builds the event with its id, type, ordering key and
//! time.

#[path = "durable/median.rs"]
mod median;

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use hookhold::clock::UnixMillis;
use hookhold::event::Delivery;
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::Verifier;
use hookhold::verify::sign::{SampleOptions, sign};
use median::Median;
use sha1::Sha1;
use sha2::Sha256;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(30);
    println!("{rounds} rounds of {} turns each; ratio to the bare HMAC, median and interval", TURNS);
    for provider in ["stripe", "github", "standard-webhooks", "twilio"] {
        let case = Case::new(provider);
        let (proofs, wholes): (Vec<f64>, Vec<f64>) = (0..rounds).map(|_| case.round()).unzip();
        println!("{provider:>18}: proof {}, whole verification {}", text(&proofs), text(&wholes));
    }
}

/// One delivery, the verifier that checks it, and the content of its HMAC.
struct Case {
    verifier: Verifier,
    delivery: Delivery,
    content: Vec<u8>,
    is_sha1: bool,
}

impl Case {
    fn new(provider: &str) -> Case {
        let source = source(provider);
        let body = if provider == "twilio" { form() } else { json() };
        let now = UnixMillis(1_790_000_000_000);
        let options = SampleOptions { id: "evt_0000000000000001".into(), event_type: None, key: None, now, tamper: None };
        let sample = sign(&source, Some(body), &options).expect("the source has a secret");
        let (target, headers, body) = (sample.target, sample.headers, sample.body);
        let remote = (Ipv4Addr::LOCALHOST, 1).into();
        // The signed content has the length of the body, apart from a few bytes for an id, a time or the URL.
        let content = vec![b'x'; body.len()];
        let delivery = Delivery { method: sample.method, target, headers, body, remote, received_at: now };
        Case { verifier: Verifier::new(source), delivery, content, is_sha1: provider == "twilio" }
    }

    /// Returns the time of the proof and the time of the whole verification, each divided by the time of the bare HMAC.
    fn round(&self) -> (f64, f64) {
        let (mut bare, mut proof, mut whole) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..TURNS {
            bare += self.bare();
            proof += turn(|| self.verifier.check_proof(black_box(&self.delivery)).is_ok());
            whole += turn(|| self.verifier.verify(black_box(&self.delivery)).is_ok());
        }
        (proof.as_secs_f64() / bare.as_secs_f64(), whole.as_secs_f64() / bare.as_secs_f64())
    }

    fn bare(&self) -> Duration {
        let start = Instant::now();
        let (sha1, sha256) = (Hmac::<Sha1>::new_from_slice(b"secret"), Hmac::<Sha256>::new_from_slice(b"secret"));
        let (sha1, sha256) = (sha1.expect("any length"), sha256.expect("any length"));
        for _ in 0..TURN {
            if self.is_sha1 {
                black_box(sha1.clone().chain_update(black_box(&self.content)).finalize().into_bytes());
            } else {
                black_box(sha256.clone().chain_update(black_box(&self.content)).finalize().into_bytes());
            }
        }
        start.elapsed()
    }
}

/// Returns the time of one turn of verifications.
fn turn(verifies: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    for _ in 0..TURN {
        assert!(black_box(verifies()), "the sample is genuine");
    }
    start.elapsed()
}

fn source(provider: &str) -> Source {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("secret");
    std::fs::File::create(&path).and_then(|mut file| file.write_all(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).expect("a file");
    let secret = format!("file:{}", path.display());
    let entry = format!("provider = {provider:?}\nsecrets = [{secret:?}]\npublic_url = \"https://hooks.example.com\"\n");
    let defaults = SourceDefaults {
        providers: Default::default(),
        public_url: None,
        topic: "webhooks".into(),
        max_body: 5 << 20,
        request_deadline: Duration::from_secs(8),
        window: Duration::from_secs(86_400),
    };
    let compile = |table, diagnostics: &Diagnostics| Source::compile("bench", table, &defaults, diagnostics);
    let source = TomlTable::read("bench", &entry, compile).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    source.expect("a source without errors is usable")
}

/// Returns a JSON body of 2 KiB with an id, a type and some nested values.
fn json() -> Bytes {
    let start = "{\"id\":\"evt_0000000000000001\",\"type\":\"invoice.paid\",\"data\":{\"object\":{\"id\":\"in_1\",\"text\":\"";
    let end = "\"}},\"created\":1790000000}";
    format!("{start}{}{end}", "x".repeat(SIZE - start.len() - end.len())).into()
}

/// Returns a form of 2 KiB with 24 fields, as Twilio sends them for a message.
fn form() -> Bytes {
    let mut form = "MessageSid=SM00000000000000000000000000000001&MessageStatus=delivered".to_owned();
    for field in 0..22 {
        form.push_str(&format!("&Field{field:02}={}", "v".repeat(80)));
    }
    form.truncate(SIZE);
    form.into()
}

fn text(ratios: &[f64]) -> String {
    let median = Median::of(ratios);
    let interval = median.interval.map_or(String::new(), |interval| {
        let (low, high) = interval.ranks;
        format!(
            " ({:.1} % interval {:.2} to {:.2}, order statistics {low} and {high})",
            interval.coverage * 100.0,
            interval.low,
            interval.high
        )
    });
    format!("{:.2}{interval}", median.value)
}

/// Size of each body, in bytes.
const SIZE: usize = 2048;
/// Number of verifications in one turn.
const TURN: usize = 2_000;
/// Number of turns of each kind in one round.
const TURNS: usize = 5;
