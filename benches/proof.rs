//! Measures the time in which the verifier checks one delivery of 2 KiB, as a ratio to the bare HMAC of the same bytes.
//!
//! Command: `cargo bench --bench proof [-- ROUNDS]`, 30 rounds by default. A round measures in turns of a few milliseconds: the
//! bare HMAC, the proof alone, and the whole verification, which also builds the event with its id, type, ordering key and
//! time.
//!
//! The bare HMAC has a prepared key, and one slice contains its content. The benchmark builds this content without the verifier
//! and compares the HMAC with the signature of the delivery.

#[path = "durable/median.rs"]
mod median;

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::digest::Output;
use hmac::{Hmac, KeyInit, Mac};
use hookhold::clock::UnixMillis;
use hookhold::event::Delivery;
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::Verifier;
use hookhold::verify::sign::{Sample, SampleOptions, sign};
use median::Median;
use sha1::Sha1;
use sha2::Sha256;

/// The allocator of the hookhold process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(30);
    println!("{rounds} rounds of {} turns each; ratio to the bare HMAC, median and interval", TURNS);
    for provider in ["stripe", "github", "standard-webhooks", "twilio"] {
        let case = Case::new(provider);
        let (proofs, wholes): (Vec<f64>, Vec<f64>) = (0..rounds).map(|_| case.round()).unzip();
        println!("{provider:>18}: proof {}, whole verification {}", text(&proofs), text(&wholes));
    }
}

/// One delivery, the verifier that checks it, and the key and the content of its HMAC.
struct Case {
    verifier: Verifier,
    delivery: Delivery,
    key: Key,
    content: Vec<u8>,
}

/// A prepared HMAC key.
enum Key {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

impl Case {
    fn new(provider: &str) -> Case {
        let source = source(provider);
        let body = if provider == "twilio" { form() } else { json() };
        let now = UnixMillis(SECONDS * 1_000);
        let options = SampleOptions { id: "evt_0000000000000001".into(), event_type: None, key: None, now, tamper: None };
        let sample = sign(&source, Some(body), &options).expect("the source has a secret");
        let (key, content) = (Key::new(provider), signed_content(provider, &sample));
        let code = key.mac(&content);
        let codes = [STANDARD.encode(&code), base16ct::lower::encode_string(&code)];
        let is_signature = |text: &str| codes.iter().any(|code| text.ends_with(code));
        assert!(sample.headers.values().filter_map(|value| value.to_str().ok()).any(is_signature), "the HMAC is the signature");
        let (target, headers, body) = (sample.target, sample.headers, sample.body);
        let remote = (Ipv4Addr::LOCALHOST, 1).into();
        let delivery = Delivery { method: sample.method, target, headers, body, remote, received_at: now };
        Case { verifier: Verifier::new(source), delivery, key, content }
    }

    /// Returns the time of the proof and the time of the whole verification, each divided by the time of the bare HMAC.
    fn round(&self) -> (f64, f64) {
        let (mut bare, mut proof, mut whole) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..TURNS {
            bare += match &self.key {
                Key::Sha1(key) => turn(|| mac(key, black_box(&self.content))),
                Key::Sha256(key) => turn(|| mac(key, black_box(&self.content))),
            };
            proof += turn(|| self.verifier.check_proof(black_box(&self.delivery)).expect(GENUINE));
            whole += turn(|| self.verifier.verify(black_box(&self.delivery)).expect(GENUINE));
        }
        (proof.as_secs_f64() / bare.as_secs_f64(), whole.as_secs_f64() / bare.as_secs_f64())
    }
}

impl Key {
    fn new(provider: &str) -> Key {
        const ANY: &str = "HMAC accepts keys of any length";
        match provider {
            "twilio" => Key::Sha1(Hmac::new_from_slice(SECRET.as_bytes()).expect(ANY)),
            "standard-webhooks" => {
                Key::Sha256(Hmac::new_from_slice(&STANDARD.decode(SECRET).expect("the secret is Base64")).expect(ANY))
            }
            _ => Key::Sha256(Hmac::new_from_slice(SECRET.as_bytes()).expect(ANY)),
        }
    }

    fn mac(&self, content: &[u8]) -> Vec<u8> {
        match self {
            Key::Sha1(key) => mac(key, content).to_vec(),
            Key::Sha256(key) => mac(key, content).to_vec(),
        }
    }
}

fn mac<M: Mac + Clone>(key: &M, content: &[u8]) -> Output<M> {
    key.clone().chain_update(content).finalize().into_bytes()
}

/// Returns the time of one turn of calls.
fn turn<T>(call: impl Fn() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..TURN {
        black_box(call());
    }
    start.elapsed()
}

/// Returns the content that the provider signs.
fn signed_content(provider: &str, sample: &Sample) -> Vec<u8> {
    let seconds = SECONDS.to_string();
    match provider {
        "stripe" => [seconds.as_bytes(), b".", &sample.body].concat(),
        "standard-webhooks" => [sample.headers["webhook-id"].as_bytes(), b".", seconds.as_bytes(), b".", &sample.body].concat(),
        "twilio" => {
            let form = std::str::from_utf8(&sample.body).expect("the form is ASCII");
            let mut fields: Vec<&str> = form.split('&').collect();
            fields.sort_unstable();
            format!("{PUBLIC_URL}{}{}", sample.target, fields.concat().replace('=', "")).into()
        }
        _ => sample.body.to_vec(),
    }
}

fn source(provider: &str) -> Source {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("secret");
    std::fs::write(&path, SECRET).expect("a file");
    let secret = format!("file:{}", path.display());
    let entry = format!("provider = {provider:?}\nsecrets = [{secret:?}]\npublic_url = {PUBLIC_URL:?}\n");
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
    form.push_str(&"v".repeat(SIZE - form.len()));
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

/// Secret of each source.
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PUBLIC_URL: &str = "https://hooks.example.com";
/// Time of each delivery, in Unix seconds.
const SECONDS: u64 = 1_790_000_000;
const GENUINE: &str = "the sample is genuine";
/// Size of each body, in bytes.
const SIZE: usize = 2048;
/// Number of verifications in one turn.
const TURN: usize = 2_000;
/// Number of turns of each kind in one round.
const TURNS: usize = 5;
