//! Tests of deliveries in which one byte of the signature or of the signed content has changed. Verification must reject such a
//! delivery if the change affects the event. The bodies, the positions and the new bytes are random.

use hookhold::event::Delivery;
use hookhold::source::{PROVIDERS, Source};
use hookhold::verify::Verified;
use http::HeaderValue;

use crate::support::*;

const ROUNDS: usize = 2_000;

#[test]
fn one_changed_byte_is_rejected_or_changes_nothing() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let sources: Vec<Source> = PROVIDERS.iter().map(|(name, _)| provider(name)).collect();
    let (mut rejected, mut same) = (0, 0);
    for _ in 0..ROUNDS {
        let source = &sources[random.usize(..sources.len())];
        let length = random.usize(1..300);
        let body: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).filter(|byte| is_plain(source, byte)).take(length).collect();
        let genuine = sample_of(source, Some(&body), None);
        let expected = verify(source, &genuine).expect("it is genuine");
        let mut changed = genuine.clone();
        change_one_byte(source, &mut changed, &mut random);
        if !changed.body.iter().all(|byte| is_plain(source, byte)) {
            continue;
        }
        match verify(source, &changed) {
            Err(_) => rejected += 1,
            Ok(verified) => {
                assert_same(&verified, &expected, &changed);
                same += 1;
            }
        }
    }
    assert!(rejected > ROUNDS * 9 / 10, "{rejected} rejected, {same} unchanged");
}

/// Returns false if `byte` separates or encodes the fields of a signed form. The signature does not cover such a byte; the
/// tests in `proofs` change such bytes.
fn is_plain(source: &Source, byte: &u8) -> bool {
    !(source.recipe.proofs[0].signed().is_some_and(|signed| signed.signs_form) && b"&=+%".contains(byte))
}

/// Returns true if the header `name` contains the signature or signed content.
fn is_proof(name: &str) -> bool {
    let unsigned = ["content-type", "x-github-delivery", "x-github-event", "i-twilio-idempotency-token"];
    !unsigned.contains(&name) && (!name.contains("shopify") || name.ends_with("hmac-sha256"))
}

/// Changes one byte of the body, or one byte of a header that contains the signature or signed content.
fn change_one_byte(source: &Source, delivery: &mut Delivery, random: &mut fastrand::Rng) {
    let proof: Vec<_> = delivery.headers.keys().filter(|name| is_proof(name.as_str())).cloned().collect();
    assert!(proof.contains(&signature_header(source)));
    if random.bool() {
        let mut body = delivery.body.to_vec();
        flip(&mut body, random);
        delivery.body = body.into();
        return;
    }
    let name = &proof[random.usize(..proof.len())];
    let mut value = delivery.headers[name].as_bytes().to_vec();
    flip(&mut value, random);
    match HeaderValue::from_bytes(&value) {
        Ok(value) => drop(delivery.headers.insert(name, value)),
        Err(_) => drop(delivery.headers.remove(name)),
    }
}

fn flip(bytes: &mut [u8], random: &mut fastrand::Rng) {
    let at = random.usize(..bytes.len());
    bytes[at] ^= random.u8(1..);
}

fn assert_same(verified: &Verified, expected: &Verified, changed: &Delivery) {
    assert_eq!(verified.identity, expected.identity, "{changed:?}");
    assert_eq!(verified.event.body(), expected.event.body(), "{changed:?}");
    assert_eq!(verified.event.id(), expected.event.id(), "{changed:?}");
}
