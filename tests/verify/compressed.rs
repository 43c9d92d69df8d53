//! Tests of compressed bodies. The verifier checks the signature over the compressed bytes, and decompresses the body only to
//! read the event's id, type, ordering key and time.

use std::cell::RefCell;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hookhold::event::Delivery;
use hookhold::source::Source;
use hookhold::verify::{Identity, Memory, UnreadBody, Verdict, Verified, Verifier};
use http::HeaderValue;

use crate::support::*;

const PLAIN: &[u8] = br#"{"id":"evt_1","type":"invoice.paid","data":{"object":{"id":"in_1"}}}"#;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).expect("memory")
}

/// Returns a Brotli stream (RFC 7932) whose meta-blocks are not compressed.
fn brotli(plain: &[u8]) -> Vec<u8> {
    // One bit for the window, one that says that another block follows, two for the width of the length, 16 for the length, one
    // for the missing compression.
    let block = |(index, data): (usize, &[u8])| {
        let header = (data.len() as u32 - 1) << 3 | 1 << 19;
        let header = if index == 0 { header << 1 } else { header };
        [&header.to_le_bytes()[..3], data].concat()
    };
    let blocks: Vec<u8> = plain.chunks(1 << 16).enumerate().flat_map(block).collect();
    [&blocks[..], &[3]].concat()
}

/// Returns a signed delivery with this body and these values of the header `Content-Encoding`.
fn encoded(source: &Source, body: &[u8], codings: &[&'static str]) -> Delivery {
    let mut delivery = sample_of(source, Some(body), None);
    for coding in codings {
        delivery.headers.append("content-encoding", HeaderValue::from_static(coding));
    }
    delivery
}

fn verified(source: &Source, delivery: &Delivery) -> Verified {
    verify(source, delivery).unwrap_or_else(|rejection| panic!("{rejection}"))
}

/// Memory that grants at most `limit` bytes, and records each charge.
struct Recorder {
    limit: usize,
    charges: RefCell<Vec<usize>>,
}

impl Memory for Recorder {
    fn charge(&self, bytes: usize) -> bool {
        self.charges.borrow_mut().push(bytes);
        self.charges.borrow().iter().sum::<usize>() <= self.limit
    }
}

fn within(source: &Source, delivery: &Delivery, limit: usize) -> (Option<Verified>, usize) {
    let recorder = Recorder { limit, charges: RefCell::default() };
    let verdict = Verifier::new(source.clone()).verify_within(delivery, &recorder);
    let charged = recorder.charges.borrow().iter().sum();
    match verdict {
        Ok(Verdict::Event(verified)) => (Some(verified), charged),
        _ => (None, charged),
    }
}

#[test]
fn a_compressed_body_has_the_facts_of_the_plain_body() {
    let source = provider("stripe");
    let expected = verified(&source, &encoded(&source, PLAIN, &[]));
    let two = |encode: fn(&[u8]) -> Vec<u8>| [encode(&PLAIN[..20]), encode(&PLAIN[20..])].concat();
    let cases: [(&str, Vec<u8>, &[&'static str]); 17] = [
        ("gzip", gzip(PLAIN), &["gzip"]),
        ("x-gzip", gzip(PLAIN), &["x-gzip"]),
        ("zstd", zstd(PLAIN), &["ZSTD"]),
        ("br", brotli(PLAIN), &["br"]),
        ("br in capital letters", brotli(PLAIN), &["BR"]),
        ("br after identity", brotli(PLAIN), &["identity, br"]),
        ("gzip without the header", gzip(PLAIN), &[]),
        ("zstd without the header", zstd(PLAIN), &[]),
        ("br without the header", brotli(PLAIN), &[]),
        ("gzip under another name", gzip(PLAIN), &["br"]),
        ("a plain body that claims gzip", PLAIN.to_vec(), &["gzip"]),
        ("a plain body that claims br", PLAIN.to_vec(), &["br"]),
        ("a plain body that claims an unknown coding", PLAIN.to_vec(), &["deflate"]),
        ("two gzip members", two(gzip), &["gzip"]),
        ("two zstd frames", two(zstd), &["zstd"]),
        ("gzip and trailing bytes", [gzip(PLAIN), b"\0\0\n".to_vec()].concat(), &["gzip"]),
        ("zstd and trailing bytes", [zstd(PLAIN), b"\0\0\n".to_vec()].concat(), &["zstd"]),
    ];
    for (what, body, codings) in cases {
        let Verified { event, identity, unread, .. } = verified(&source, &encoded(&source, &body, codings));
        let facts = (event.id(), event.event_type(), event.ordering_key());
        assert_eq!(facts, (Some("evt_1"), Some("invoice.paid"), Some("in_1")), "{what}");
        assert_eq!((identity, unread), (expected.identity.clone(), None), "{what}");
        assert_eq!(event.body(), &body, "{what}: stored as received");
    }
}

#[test]
fn an_unreadable_body_is_stored_without_facts() {
    let source = provider("stripe");
    let broken = |mut body: Vec<u8>| {
        let last = body.len() - 5;
        body[last] ^= 1;
        body
    };
    let cut = |body: Vec<u8>| body[..body.len() - 9].to_vec();
    let cases: [(&str, Vec<u8>, &[&'static str]); 9] = [
        ("gzip with a wrong checksum", broken(gzip(PLAIN)), &["gzip"]),
        ("gzip that is cut", cut(gzip(PLAIN)), &["gzip"]),
        ("zstd that is cut", cut(zstd(PLAIN)), &["zstd"]),
        ("br that is cut", cut(brotli(PLAIN)), &["br"]),
        ("br with a large window", b"\x11\x1e\0\0\0\0\x03".to_vec(), &["br"]),
        ("two layers", gzip(&gzip(PLAIN)), &["gzip, gzip"]),
        ("two layers of two kinds", zstd(&gzip(PLAIN)), &["gzip", "zstd"]),
        ("an unknown coding", b"\x78\x9c\0\0".to_vec(), &["deflate"]),
        ("only the magic number", b"\x1f\x8b\x08".to_vec(), &[]),
    ];
    for (what, body, codings) in cases {
        let Verified { event, identity, unread, .. } = verified(&source, &encoded(&source, &body, codings));
        assert_eq!((event.id(), event.event_type(), unread), (None, None, Some(UnreadBody::Malformed)), "{what}");
        assert!(matches!(identity, Identity::SignedContent(_)), "{what}: an exact replay is a duplicate");
        assert_eq!(event.body(), &body, "{what}");
    }
    let binary = verified(&source, &encoded(&source, b"\0\x01\x02\xff", &[]));
    assert_eq!((binary.event.id(), binary.unread), (None, None), "a binary body need not be Brotli");
    let bare = inline(INLINE);
    let unused = verified(&bare, &encoded(&bare, &cut(gzip(PLAIN)), &["gzip"]));
    assert_eq!(unused.unread, None, "the recipe reads nothing in the body");
}

#[test]
fn the_output_is_limited_and_charged() {
    let source = source("stripe", "whsec_test", "max_body = \"100 KiB\"");
    let padded = |size: usize| [&PLAIN[..PLAIN.len() - 1], b",\"x\":\"", &vec![b'x'; size - PLAIN.len() - 7], b"\"}"].concat();
    for (what, encode) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd), ("br", brotli)] {
        let (largest, larger) = (encode(&padded(100 << 10)), encode(&padded((100 << 10) + 1)));
        let (fits, charged) = within(&source, &encoded(&source, &largest, &[what]), usize::MAX);
        assert_eq!(fits.expect("genuine").event.id(), Some("evt_1"), "{what}");
        // The window of the Brotli stream has 64 KiB, and the decoder adds a few bytes.
        let window = if what == "br" { charged.saturating_sub(100 << 10).clamp(64 << 10, 65 << 10) } else { 0 };
        assert_eq!(charged, (100 << 10) + window, "{what}: never more than max_body and the window");
        let too_large = within(&source, &encoded(&source, &larger, &[what]), usize::MAX).0.expect("genuine");
        assert_eq!((too_large.event.id(), too_large.unread), (None, Some(UnreadBody::TooLarge)), "{what}");
        let rejected = within(&source, &encoded(&source, &largest, &[what]), (100 << 10) - 1).0.expect("genuine");
        assert_eq!((rejected.event.id(), rejected.unread), (None, Some(UnreadBody::NoMemory)), "{what}");
        let mut forged = encoded(&source, &largest, &[what]);
        set(&mut forged, "stripe-signature", "t=1700000000,v1=0000000000000000000000000000000000000000000000000000000000000000");
        let (forged, charged) = within(&source, &forged, usize::MAX);
        assert!(forged.is_none() && charged == 0, "{what}: the body of an unknown sender is not decompressed");
    }
}

/// A form after gzip is a form whose first field is binary. The proof reads the form, so the event must have the values of the form.
/// Otherwise, a sender that knows one genuine form could choose the id of a forged event, and suppress the genuine event.
#[test]
fn a_proof_inside_the_body_and_the_event_read_the_same_text() {
    let source = inline(
        "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"form:code\" }\n\
         content = [\"form:ref\"]\nevent = { id = \"form:ref\", type = \"json:/ref\" }",
    );
    let code = base16ct::lower::encode_string(&crate::crypto::hmac("sha256", b"acme", b"genuine"));
    let form = format!("&ref=genuine&code={code}");
    let plain = verified(&source, &delivery(form.clone(), &[]));
    assert_eq!(plain.event.id(), Some("genuine"));
    for forged in [&b"ref=forged"[..], br#"{"ref":"forged"}"#] {
        for coding in [&[][..], &["gzip"], &["br"]] {
            let body = [&gzip(forged)[..], form.as_bytes()].concat();
            let mut delivery = delivery(body, &[]);
            coding.iter().for_each(|coding| drop(delivery.headers.insert("content-encoding", HeaderValue::from_static(coding))));
            let Verified { event, identity, .. } = verified(&source, &delivery);
            assert_eq!((event.id(), event.event_type(), &identity), (Some("genuine"), None, &plain.identity), "{coding:?}");
        }
    }
}

/// The decompressed items are no part of the received bytes, so the body stays one event with the values that they share.
#[test]
fn a_compressed_batch_is_read_but_not_split() {
    let source = inline(&[INLINE, "split = true\nevent = { batch = \"/e\", id = \"json:/id\", type = \"json:/t\" }"].concat());
    let of = |plain: &[u8], encode: fn(&[u8]) -> Vec<u8>| verified(&source, &encoded(&source, &encode(plain), &[]));
    let batch = |ids: &[&str]| {
        let items: Vec<String> = ids.iter().map(|id| format!(r#"{{"id":"{id}","t":"a"}}"#)).collect();
        format!(r#"{{"e":[{}]}}"#, items.join(",")).into_bytes()
    };
    for encode in [gzip as fn(&[u8]) -> Vec<u8>, zstd, brotli] {
        let one = of(&batch(&["1"]), encode);
        assert_eq!((one.event.id(), one.event.event_type()), (Some("1"), Some("a")));
        assert_eq!(one.event.body(), &encode(&batch(&["1"])), "stored as received");
        let two = of(&batch(&["1", "2"]), encode);
        assert_eq!((two.event.id(), two.event.event_type()), (None, Some("a")));
        assert!(matches!(&two.identity, Identity::Ids { fields, .. } if fields.len() == 6), "{:?}", two.identity);
        assert_eq!(two.identity, of(&[&batch(&["1", "2"])[..], b"\n"].concat(), encode).identity, "the same ids");
        let more = of(&[batch(&["1", "2"]), batch(&["3"])].concat(), encode);
        assert_eq!((more.event.event_type(), more.identity), (None, Identity::Keyless), "further items may follow");
        assert_eq!(of(&batch(&[]), encode).identity, Identity::Keyless);
    }
}

/// A bomb of 64 MiB. The verifier stops at `max_body` and has not allocated more.
#[test]
fn a_bomb_costs_at_most_max_body() {
    let source = source("stripe", "whsec_test", "max_body = \"1 MiB\"");
    let zeros = vec![b' '; 64 << 20];
    for (what, bomb) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
        assert!(bomb.len() < 1 << 20, "{what}: {} bytes", bomb.len());
        let (verified, charged) = within(&source, &encoded(&source, &bomb, &[what]), usize::MAX);
        assert_eq!(verified.expect("genuine").unread, Some(UnreadBody::TooLarge), "{what}");
        assert!(charged <= 1 << 20, "{what}: {charged}");
    }
}

#[test]
fn a_zstd_window_beyond_8_mib_is_not_read() {
    let source = provider("stripe");
    let with_window = |log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
        encoder.window_log(log).expect("a valid size");
        encoder.write_all(PLAIN).and_then(|()| encoder.flush()).expect("memory");
        encoder.finish().expect("memory")
    };
    let read = |log: u32| verified(&source, &encoded(&source, &with_window(log), &["zstd"]));
    assert_eq!((read(23).event.id(), read(23).unread), (Some("evt_1"), None));
    assert_eq!((read(24).event.id(), read(24).unread), (None, Some(UnreadBody::Malformed)));
}

/// A body of a few bytes that asks for a window of 16 MiB, the largest one.
#[test]
fn a_brotli_window_is_charged() {
    let source = provider("stripe");
    // Four bits for the window, then a block that is not the last one, has 16 MiB and is not compressed.
    let header: u32 = 0xf | 2 << 5 | 0xff_ffff << 7 | 1 << 31;
    let greedy = encoded(&source, &[&header.to_le_bytes()[..], PLAIN].concat(), &["br"]);
    let (cut, charged) = within(&source, &greedy, usize::MAX);
    assert_eq!(cut.expect("genuine").unread, Some(UnreadBody::Malformed), "the block is cut");
    assert!((16 << 20..17 << 20).contains(&charged), "{charged}");
    let (rejected, _) = within(&source, &greedy, 16 << 20);
    assert_eq!(rejected.expect("genuine").unread, Some(UnreadBody::NoMemory));
}

#[test]
fn a_body_of_many_members_is_not_read() {
    let source = provider("stripe");
    for (what, encode) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let members = |count: usize| [encode(b"").repeat(count - 1), encode(PLAIN)].concat();
        let read = |count: usize| verified(&source, &encoded(&source, &members(count), &[what]));
        assert_eq!(read(1_000).event.id(), Some("evt_1"), "{what}");
        assert_eq!((read(1_001).event.id(), read(1_001).unread), (None, Some(UnreadBody::Malformed)), "{what}");
    }
}

#[test]
fn a_signed_challenge_may_be_compressed() {
    let slack = provider("slack");
    let challenge = gzip(br#"{"type":"url_verification","challenge":"abc"}"#);
    let verdict = Verifier::new(slack.clone()).verify(&encoded(&slack, &challenge, &["gzip"])).expect("genuine");
    let Verdict::Challenge(challenge) = verdict else { panic!("{verdict:?}") };
    assert_eq!(challenge.reply.body, "abc");
}

/// Deliveries whose verification takes long run on other threads. All other deliveries must not pay for them.
#[test]
fn only_large_or_compressed_deliveries_are_long() {
    let is_long = |source: &Source, body: &[u8], codings: &[&'static str]| {
        Verifier::new(source.clone()).is_long(&encoded(source, body, codings))
    };
    let stripe = provider("stripe");
    for (what, body, codings) in [
        ("plain", PLAIN, &[][..]),
        ("empty", b"", &[]),
        ("a form", b"id=%ff&x=+", &[]),
        ("not ASCII", "{\"a\":\"é\u{1f600}\"}".as_bytes(), &[]),
        ("identity", PLAIN, &["identity"]),
        ("an unknown coding", PLAIN, &["deflate"]),
    ] {
        assert!(!is_long(&stripe, body, codings), "{what}");
    }
    assert!(
        !is_long(&stripe, &[&[b'x'; 62][..], "é".as_bytes()].concat(), &[])
            && !is_long(&stripe, &[&[b'x'; 63][..], "é".as_bytes()].concat(), &[])
    );
    let mut forged = encoded(&stripe, &gzip(PLAIN), &["gzip"]);
    forged.body = gzip(b"{}").into();
    assert!(!Verifier::new(stripe.clone()).is_long(&forged), "a forgery is not decompressed");
    assert!(is_long(&stripe, &gzip(PLAIN), &[]) && is_long(&stripe, &zstd(PLAIN), &[]) && is_long(&stripe, PLAIN, &["br"]));
    let bare = inline(INLINE);
    assert!(!is_long(&bare, &gzip(PLAIN), &["gzip"]), "the recipe reads nothing in the body");
    // One pass for the signature and one for the values in the body.
    assert!(!is_long(&bare, &vec![b'x'; 1 << 19], &[]));
    assert!(is_long(&bare, &vec![b'x'; (1 << 19) + 1], &[]));
}
