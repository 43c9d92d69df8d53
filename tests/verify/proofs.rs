//! Tests of signatures and timestamps. Verification must accept a genuine delivery, and each kind of invalid delivery must have
//! its own outcome.

use bytes::Bytes;
use hookhold::clock::UnixMillis;
use hookhold::event::{Delivery, Integrity};
use hookhold::outcome::Outcome;
use hookhold::source::PROVIDERS;
use hookhold::source::recipe::{Algorithm, Encoding};
use hookhold::verify::sign::Tamper;
use http::{HeaderMap, HeaderValue, Method};

use crate::support::*;

const STRIPE: &str = "stripe-signature";

#[test]
fn every_recipe_verifies_its_own_samples() {
    assert!(!PROVIDERS.is_empty());
    for (name, _) in PROVIDERS {
        let source = provider(name);
        let verified = verify(&source, &sample(&source, None)).unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        assert_eq!(verified.event.id(), Some("id-1"), "{name}");
        assert_eq!(verified.event.event_type(), Some(&*source.recipe.setup.sample_type), "{name}");
        let key = (!source.recipe.event.key.0.is_empty()).then_some("key-1");
        assert_eq!(verified.event.ordering_key(), key, "{name}");
    }
}

#[test]
fn every_hash_and_encoding_verifies_only_its_own() {
    let names: Vec<(&str, &str)> = Algorithm::WORDS
        .iter()
        .flat_map(|(hash, _)| Encoding::WORDS.iter().map(move |(encoding, _)| (*hash, *encoding)))
        .collect();
    let sources = names.iter().map(|(hash, encoding)| {
        let recipe = INLINE.replace("sha256", hash);
        inline(&format!("{recipe}encoding = \"{encoding}\""))
    });
    let sources: Vec<_> = sources.collect();
    assert_eq!(sources.len(), 12);
    for (signer, signed_as) in sources.iter().zip(&names) {
        for (reader, read_as) in sources.iter().zip(&names) {
            let verifies = rejection(reader, &sample(signer, None)).is_none();
            let alphabets_agree = signed_as.0 == read_as.0 && signed_as.1 != "hex" && read_as.1 != "hex";
            assert!(verifies || signed_as != read_as, "{signed_as:?}");
            assert!(!verifies || signed_as == read_as || alphabets_agree, "{signed_as:?} read as {read_as:?}");
        }
    }
}

#[test]
fn each_kind_of_tampering_has_its_own_outcome() {
    for (name, _) in PROVIDERS {
        let source = provider(name);
        for (word, tamper) in Tamper::WORDS {
            if *tamper != Tamper::Unknown && tamper.applies_to(&source.recipe) {
                assert_eq!(rejection(&source, &sample(&source, Some(*tamper))), Some(tamper.expected()), "{name}: {word}");
            }
        }
    }
}

#[test]
fn only_a_missing_signature_is_rejected_before_the_body() {
    for (name, _) in PROVIDERS {
        let source = provider(name);
        let unsigned = precheck(&source, Method::POST, &HeaderMap::new());
        if source.recipe.challenges.iter().any(|challenge| !challenge.authenticated && challenge.methods.contains(&Method::POST))
        {
            assert_eq!(unsigned, Ok(16 << 10), "{name}: only the body shows whether the request is a challenge");
        } else {
            let missing = unsigned.expect_err(name);
            assert_eq!(missing.outcome, Outcome::SignatureMissing);
            assert!(missing.hint.contains(signature_header(&source).as_str()), "{missing}");
        }
        assert_eq!(
            precheck(&source, Method::POST, &sample(&source, Some(Tamper::Secret)).headers),
            Ok(source.max_body),
            "{name}"
        );
    }
}

/// A timestamp or a part of the content inside the body is no reason to read the body of a request without a signature.
#[test]
fn only_a_signature_inside_the_body_delays_its_check() {
    let time = "timestamp = { from = \"json:/at\", unit = \"ms\" }";
    let linear = inline(&format!("{INLINE}{time}"));
    assert_eq!(precheck(&linear, Method::POST, &HeaderMap::new()).expect_err("no signature").outcome, Outcome::SignatureMissing);
    let unreadable = delivery("", &[("acme-signature", "zz")]).headers;
    assert_eq!(precheck(&linear, Method::POST, &unreadable).expect_err("unreadable").outcome, Outcome::SignatureMalformed);
    for from in ["\"json:/signature\"", "[\"header:Acme-Signature\", \"form:signature\"]"] {
        let inside = inline(&INLINE.replace("\"header:Acme-Signature\"", from));
        assert_eq!(precheck(&inside, Method::POST, &HeaderMap::new()), Ok(inside.max_body), "{from}");
    }
    for recipe in ["auth = \"token\"\ntoken = { from = \"header:Acme-Token\", prefix = \"Bearer \" }", JWT] {
        let source = compile(recipe, &[("secret", "0123456789abcdef0123456789abcdef")]).expect("a source");
        assert_eq!(precheck(&source, Method::POST, &HeaderMap::new()).expect_err("none").outcome, Outcome::SignatureMissing);
        for text in ["x", "Bearer ", "Bearer a.b", "Bearer eyJhbGciOiJub25lIn0.e30."] {
            let headers = delivery("", &[("acme-token", text)]).headers;
            let is_token = recipe != JWT && text.len() > 7;
            assert_eq!(precheck(&source, Method::POST, &headers).is_ok(), is_token, "{recipe}: {text}");
        }
    }
}

const JWT: &str = "auth = \"jwt\"\nalgorithm = [\"HS256\"]\ntoken = { from = \"header:Acme-Token\", prefix = \"Bearer \" }";

#[test]
fn both_edges_of_the_tolerance_are_accepted() {
    let source = source("stripe", "whsec_test", "timestamp = { past = \"2m\", future = \"30s\" }");
    let genuine = sample(&source, None);
    let at = |seconds: u64, millis: u64| {
        let received_at = UnixMillis(seconds * 1000 + millis);
        rejection(&source, &hookhold::event::Delivery { received_at, ..genuine.clone() })
    };
    assert_eq!(at(NOW + 120, 999), None);
    assert_eq!(at(NOW + 121, 0), Some(Outcome::TimestampStale));
    assert_eq!(at(NOW - 30, 0), None);
    assert_eq!(at(NOW - 31, 0), Some(Outcome::TimestampFuture));
    assert_eq!(at(0, 0), Some(Outcome::TimestampFuture));
    assert_eq!(at(u64::MAX / 1000, 0), Some(Outcome::TimestampStale));
}

#[test]
fn milliseconds_and_rfc3339_have_the_same_edges() {
    for unit in ["ms", "rfc3339"] {
        let source =
            inline(&format!("{INLINE_TIMED}timestamp = {{ from = \"header:Acme-Time\", unit = \"{unit}\", past = \"1s\" }}"));
        let mut delivery = sample(&source, None);
        delivery.received_at = UnixMillis(NOW * 1000 + 1000);
        assert_eq!(rejection(&source, &delivery), None, "{unit}");
        delivery.received_at = UnixMillis(NOW * 1000 + 1001);
        assert_eq!(rejection(&source, &delivery), Some(Outcome::TimestampStale), "{unit}");
    }
}

#[test]
fn a_forged_delivery_is_a_mismatch_even_when_stale() {
    let source = provider("stripe");
    let mut stale = sample(&source, Some(Tamper::Stale));
    stale.body = "{}".into();
    assert_eq!(rejection(&source, &stale), Some(Outcome::SignatureMismatch));
}

#[test]
fn a_signed_but_unreadable_timestamp_is_malformed() {
    let source = inline(&format!("{INLINE_TIMED}timestamp = {{ from = \"header:Acme-Time\", unit = \"s\" }}"));
    for (time, code) in [
        // printf '%s.{"n":1}' TIME | openssl dgst -sha256 -hmac acme
        ("+1700000000", "de7aed1759ab91ea1082719c217481ed07f7e444c56d31f44a5f903fdcf368c5"),
        ("1.7e9", "1f2b2f67d29194802c711d1ff9a01015fea57933dc8ec204b6f20873fb5ebbb2"),
        ("99999999999999999999", "5fafec16c7724818b76547e6c551683669d11fa85a8e6c9ecace37b6bf8d0224"),
    ] {
        let genuine = delivery(r#"{"n":1}"#, &[("acme-time", time), ("acme-signature", code)]);
        let rejected = verify(&source, &genuine).expect_err(time);
        assert_eq!(rejected.outcome, Outcome::SignatureMalformed, "{time}");
        assert!(rejected.hint.contains("timestamp"), "{rejected}");
    }
}

#[test]
fn an_absent_part_of_the_signed_content_is_malformed() {
    let stripe = provider("stripe");
    let mut timeless = sample(&stripe, None);
    let signature = get(&timeless, STRIPE).split_once(',').expect("t and v1").1.to_owned();
    set(&mut timeless, STRIPE, &signature);
    assert_eq!(rejection(&stripe, &timeless), Some(Outcome::SignatureMalformed));
    let standard = provider("standard-webhooks");
    for name in ["webhook-id", "webhook-timestamp"] {
        let mut lacking = sample(&standard, None);
        lacking.headers.remove(name);
        assert_eq!(rejection(&standard, &lacking), Some(Outcome::SignatureMalformed), "{name}");
    }
}

#[test]
fn any_signature_may_match_any_secret() {
    let entry = "provider = \"stripe\"";
    let secrets = [("new", "whsec_new"), ("old", "whsec_old")];
    let both = compile(entry, &secrets).expect("no diagnostics");
    for (name, secret) in secrets {
        let signed = sample(&source("stripe", secret, ""), None);
        let verified = verify(&both, &signed).expect(name);
        assert_eq!(
            (verified.secret.as_deref().expect("a secret"), verified.event.auth()),
            (name, &*format!("mac-sha256:{name}"))
        );
        let mut rolling = signed.clone();
        let (time, code) = get(&signed, STRIPE).split_once(',').expect("t and v1");
        set(&mut rolling, STRIPE, &format!("{time},v1={},{code},v1={}", "00".repeat(32), "ff".repeat(32)));
        assert_eq!(rejection(&both, &rolling), None);
    }
}

/// A proxy may join the values of a repeated header with a comma and a space (RFC 9110, section 5.3).
#[test]
fn header_values_that_a_proxy_joined_stay_several() {
    let base64 = inline(&format!("{INLINE}encoding = \"base64\""));
    let forged = [
        ("github", "x-hub-signature-256", format!("sha256={}", "00".repeat(32))),
        ("acme", "acme-signature", format!("{}=", "A".repeat(43))),
        ("standard-webhooks", "webhook-signature", format!("v1,{}=", "A".repeat(43))),
        ("stripe", STRIPE, format!("t={NOW},v1={}", "00".repeat(32))),
    ];
    for (name, header, forged) in forged {
        let source = if name == "acme" { base64.clone() } else { provider(name) };
        let genuine = sample(&source, None);
        let code = get(&genuine, header);
        for joined in [format!("{forged}, {code}"), format!("{code}, {forged}"), format!("{code}, {code}")] {
            let mut delivery = genuine.clone();
            set(&mut delivery, header, &joined);
            assert_eq!(rejection(&source, &delivery), None, "{name}: {joined}");
            set(&mut delivery, header, &joined.replace(code, &forged));
            assert_eq!(rejection(&source, &delivery), Some(Outcome::SignatureMismatch), "{name}: {joined}");
        }
    }
    let prefixed = inline(&INLINE.replace("Signature\" }", "Signature\", prefix = \"v1,\" }"));
    assert_eq!(rejection(&prefixed, &sample(&prefixed, None)), None, "a prefix with a comma");
}

#[test]
fn each_repeated_header_value_keeps_its_own_timestamp() {
    let source = provider("stripe");
    let genuine = sample(&source, None);
    let good = genuine.headers[STRIPE].clone();
    let forged = HeaderValue::from_str(&format!("t=1,v1={}", "00".repeat(32))).expect("a header value");
    let stale = sample(&source, Some(Tamper::Stale)).headers[STRIPE].clone();
    for list in [[&good, &forged], [&forged, &good], [&stale, &good], [&good, &good]] {
        assert_eq!(with(&source, list), None);
    }
    assert_eq!(with(&source, [&forged, &stale]), Some(Outcome::TimestampStale), "the best attempt is reported");
    let (time, code) = good.to_str().expect("ASCII").split_once(',').expect("t and v1");
    let [time, code] = [time, code].map(|text| HeaderValue::from_str(text).expect("a header value"));
    assert_eq!(with(&source, [&time, &code]), None, "a list split at its comma is read");
}

fn with(source: &hookhold::source::Source, list: [&HeaderValue; 2]) -> Option<Outcome> {
    let mut delivery = sample(source, None);
    delivery.headers.remove(STRIPE);
    for value in list {
        delivery.headers.append(STRIPE, value.clone());
    }
    rejection(source, &delivery)
}

#[test]
fn too_many_signature_groups_are_rejected_before_hashing() {
    let source = provider("stripe");
    let mut delivery = sample(&source, None);
    let good = delivery.headers[STRIPE].clone();
    (0..7).for_each(|_| assert!(delivery.headers.append(STRIPE, good.clone())));
    assert_eq!(rejection(&source, &delivery), None);
    delivery.headers.append(STRIPE, good);
    assert_eq!(rejection(&source, &delivery), Some(Outcome::SignatureMalformed));
}

#[test]
fn too_many_signatures_are_rejected_before_any_check() {
    let list = |recipe: &str, code: &str, count: usize| {
        let source = inline(&recipe.replace("Acme-Signature\"", "Acme-Signature\", items = \",\""));
        let wrong = "0".repeat(code.len());
        let codes = [vec![wrong; count - 1], vec![code.to_owned()]].concat().join(",");
        rejection(&source, &delivery("{}", &[("acme-signature", &codes)]))
    };
    let code = base16ct::lower::encode_string(&crate::crypto::hmac("sha256", b"acme", b"{}"));
    assert_eq!(list(INLINE, &code, 128), None);
    assert_eq!(list(INLINE, &code, 129), Some(Outcome::SignatureMalformed));
    let key = crate::crypto::shared_key_pair("ed25519");
    let source = |count: usize| {
        let recipe = INLINE.replace("mac", "signature").replace("sha256", "ed25519");
        let entry = recipe.replace("Acme-Signature\"", "Acme-Signature\", items = \",\"");
        let source = compile_alone(&format!("public_keys = ['{}']\nkey_format = \"jwk\"\n{entry}", key.jwk)).expect("a key");
        let code = base16ct::lower::encode_string(&crate::crypto::sign("ed25519", &key, b"{}"));
        let codes = [vec!["0".repeat(128); count - 1], vec![code]].concat().join(",");
        rejection(&source, &delivery("{}", &[("acme-signature", &codes)]))
    };
    assert_eq!(source(8), None);
    assert_eq!(source(9), Some(Outcome::SignatureMalformed));
}

#[test]
fn a_header_without_a_readable_signature_is_malformed() {
    let source = provider("stripe");
    let genuine = sample(&source, None);
    let (time, code) = get(&genuine, STRIPE).split_once(",v1=").expect("t and v1");
    let unreadable = [
        String::new(),
        "v1".into(),
        time.into(),
        format!("{time},v1="),
        format!("{time},v0={code}"),
        format!("{time},V1={code}"),
        format!("{time},v1={}", &code[2..]),
        format!("{time},v1={code}00"),
        format!("{time},v1={}", &code[1..]),
        format!("{time},v1=x{}", &code[1..]),
        format!("{time},v1={}", "00".repeat(4096)),
        code.into(),
    ];
    for text in unreadable {
        let mut delivery = genuine.clone();
        set(&mut delivery, STRIPE, &text);
        assert_eq!(rejection(&source, &delivery), Some(Outcome::SignatureMalformed), "{text}");
    }
    let mut binary = genuine.clone();
    binary.headers.insert(STRIPE, HeaderValue::from_bytes(b"t=1,v1=\xff\xfe").expect("a header value"));
    assert_eq!(rejection(&source, &binary), Some(Outcome::SignatureMalformed));
}

#[test]
fn base64_is_decoded_strictly_and_hex_case_insensitively() {
    let standard = provider("standard-webhooks");
    let genuine = sample(&standard, None);
    let mut unpadded = genuine.clone();
    set(&mut unpadded, "webhook-signature", get(&genuine, "webhook-signature").trim_end_matches('='));
    assert_eq!(rejection(&standard, &unpadded), Some(Outcome::SignatureMalformed));
    let github = provider("github");
    let mut upper = sample(&github, None);
    let text = get(&upper, "x-hub-signature-256")["sha256=".len()..].to_uppercase();
    set(&mut upper, "x-hub-signature-256", &format!("sha256={text}"));
    assert_eq!(rejection(&github, &upper), None);
}

#[test]
fn whitespace_around_signature_items_is_ignored() {
    let source = provider("stripe");
    let mut spaced = sample(&source, None);
    let text = get(&spaced, STRIPE).replace(',', " , ").replace('=', " = ");
    set(&mut spaced, STRIPE, &text);
    assert_eq!(rejection(&source, &spaced), None);
    let words = crate::support::source("stripe", "whsec_test", "signature = { items = \" and \", pair = \" is \" }");
    let genuine = sample(&words, None);
    assert!(get(&genuine, STRIPE).contains(" and v1 is "), "a separator may be longer than a character");
    assert_eq!(rejection(&words, &genuine), None);
    let exact = crate::support::source("stripe", "whsec_test", "signature = { trim = false }");
    assert_eq!(rejection(&exact, &spaced), Some(Outcome::SignatureMalformed));
}

/// Changes the separators of a signed form. Twilio's signature does not cover the separators, so the integrity is only partial
/// and the identity of an event includes the body.
#[test]
fn separators_between_form_fields_are_not_signed() {
    let source = provider("twilio");
    let genuine = sample_of(&source, Some(b"MessageSid=SM1&MessageStatus=sent"), None);
    let expected = verify(&source, &genuine).expect("genuine");
    for same in
        [&b"MessageStatus=sent&MessageSid=SM1"[..], b"MessageSi=dSM1&MessageStatus=sent", b"MessageSid=SM1&MessageStatus=%73ent"]
    {
        let verified = verify(&source, &Delivery { body: Bytes::from_static(same), ..genuine.clone() }).expect("the same text");
        assert_eq!(verified.event.integrity(), Integrity::Partial);
        assert_ne!(verified.identity, expected.identity, "an id that may be unsigned is bound to the body");
    }
    for other in [&b"MessageSid=SM2&MessageStatus=sent"[..], b"MessageSid=SM1&MessageStatus=sent&a", b"MessageSid=SM1", b""] {
        assert_eq!(
            rejection(&source, &Delivery { body: Bytes::from_static(other), ..genuine.clone() }),
            Some(Outcome::SignatureMismatch)
        );
    }
}

#[test]
fn one_complete_alternative_of_the_content_is_enough() {
    let variants = INLINE
        .replace("content = [\"body\"]", "content_variants = [[\"header:Acme-New\", \"body\"], [\"header:Acme-Old\", \"body\"]]");
    let old = inline(&INLINE.replace("[\"body\"]", "[\"header:Acme-Old\", \"body\"]"));
    let signed = sample(&old, None);
    assert_eq!(rejection(&inline(&variants), &signed), None);
    // hookhold must report the mismatch of the complete alternative, not the missing part of the other alternative.
    let changed = Delivery { body: "{ }".into(), ..signed };
    assert_eq!(rejection(&inline(&variants), &changed), Some(Outcome::SignatureMismatch));
    let mut neither = changed;
    neither.headers.remove("acme-old");
    assert_eq!(rejection(&inline(&variants), &neither), Some(Outcome::SignatureMalformed), "no alternative is complete");
}

#[test]
fn too_many_form_fields_are_rejected_before_sorting() {
    let source = provider("twilio");
    let form = |fields: usize| Delivery { body: "a&".repeat(fields).into(), ..sample(&source, None) };
    assert_eq!(rejection(&source, &form(1_000)), Some(Outcome::SignatureMismatch));
    assert_eq!(rejection(&source, &form(1_001)), Some(Outcome::SignatureMalformed));
    let many = "a&".repeat(1_001);
    assert_eq!(rejection(&source, &sample_of(&source, Some(many.as_bytes()), None)), Some(Outcome::SignatureMalformed));
}

/// Checks that hookhold sorts no form and hashes no body if the request has no readable signature. Sorting a form and hashing a
/// body are the most expensive work that a request can cause.
#[test]
fn form_and_hash_need_a_readable_signature_first() {
    let source = provider("twilio");
    let mut form = Delivery { body: "a&".repeat(1_001).into(), ..sample(&source, None) };
    let mut json = Delivery { target: "/hooks/shop?bodySHA256=00".into(), ..sample(&source, None) };
    for delivery in [&mut form, &mut json] {
        set(delivery, "x-twilio-signature", "c2hvcnQ=");
        let rejected = verify(&source, delivery).expect_err("no signature of 20 bytes");
        assert_eq!(rejected.outcome, Outcome::SignatureMalformed);
        assert!(rejected.hint.contains("expected 20 bytes in base64, found none"), "{rejected}");
    }
}

/// Changes a body whose hash is in the signed URL. The hint of the rejection may report a modified body only if the signature
/// over the URL is genuine.
#[test]
fn the_hash_in_a_url_needs_a_verified_url() {
    let source = provider("twilio");
    let genuine = sample_of(&source, Some(b"{\"a\":1}"), None);
    assert!(genuine.target.contains("bodySHA256="), "{}", genuine.target);
    let verified = verify(&source, &genuine).expect("genuine");
    assert_eq!(verified.event.integrity(), Integrity::Partial, "the text of a form could be read as the parameter");
    let hint = |delivery: &Delivery| {
        let rejected = verify(&source, delivery).expect_err("another body");
        assert_eq!(rejected.outcome, Outcome::SignatureMismatch);
        rejected.hint
    };
    let mut other = Delivery { body: "{}".into(), ..genuine };
    assert!(hint(&other).contains("body: expected the hash in the query parameter"), "{}", hint(&other));
    other.target.push_str("&x=1");
    assert!(hint(&other).contains("signature: expected one made with a configured secret"), "{}", hint(&other));
}

#[test]
fn a_signed_url_never_depends_on_the_host_header() {
    let url = INLINE.replace("\"body\"", "\"url\", \"body\"");
    let source = inline(&format!("{url}public_url = \"https://a.example/in/\""));
    let mut genuine = sample(&source, None);
    genuine.headers.insert("host", HeaderValue::from_static("b.example"));
    genuine.headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    assert_eq!(rejection(&source, &genuine), None);
    for target in ["/hooks/shop?", "/hooks/shop/", "/hooks/Shop", "/hooks/%73hop"] {
        let other = Delivery { target: target.to_owned(), ..genuine.clone() };
        assert_eq!(rejection(&source, &other), Some(Outcome::SignatureMismatch), "{target}");
    }
}
