//! Tests of the work that a delivery may cause: its limits, and the number of bytes that the server charges to the address of a
//! rejected sender. The tests count bytes and not time.

use std::collections::HashSet;

use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::verify::{Identity, Rejection, Verifier};
use http::{HeaderValue, Method};

use crate::crypto::{KeyPair, hash, hmac, jwt, key_pair, shared_key_pair, sign};
use crate::support::*;

const BODY: &[u8] = b"{\"n\":1}";
/// Number of bytes that count for the check of one signature with one public key.
const CHECK: usize = 64 << 10;

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Returns a source with the recipe `entry` and `count` secrets. The text of each secret is `acme-` and its number.
fn with_secrets(entry: &str, count: usize) -> Result<Source, String> {
    let secrets: Vec<_> = (1..=count).map(|number| (format!("s{number}"), format!("acme-{number}"))).collect();
    let secrets: Vec<_> = secrets.iter().map(|(name, text)| (&**name, &**text)).collect();
    compile(entry, &secrets).map_err(|diagnostics| diagnostics.to_string())
}

/// Returns a source whose recipe uses these public keys.
fn with_keys(entry: &str, keys: &[KeyPair]) -> Result<Source, String> {
    let keys: Vec<String> = keys.iter().map(|key| format!("'{}'", key.jwk)).collect();
    let text = format!("public_keys = [{}]\nkey_format = \"jwk\"\n{entry}", keys.join(", "));
    compile_alone(&text).map_err(|diagnostics| diagnostics.to_string())
}

fn rejected(source: &Source, delivery: &Delivery) -> Rejection {
    verify(source, delivery).expect_err("a forgery")
}

/// Returns a delivery with one value of the header `Acme-Signature` for each of `signatures`.
fn signed(signatures: &[String]) -> Delivery {
    let headers: Vec<_> = signatures.iter().map(|text| ("acme-signature", &**text)).collect();
    delivery(BODY, &headers)
}

#[test]
fn a_rejection_counts_by_the_bytes_that_it_made_hookhold_hash() {
    let forged = |secret: &[u8]| hex(&hmac("sha256", secret, BODY));
    for keys in [1, 3] {
        let source = with_secrets(INLINE, keys).expect("a source");
        let many = rejected(&source, &signed(&vec![forged(b"x"); 5]));
        assert_eq!((many.outcome, many.work), (Outcome::SignatureMismatch, keys * BODY.len()), "one hash for each secret");
        for (what, headers) in [("no signature", vec![]), ("an unreadable signature", vec!["!".to_owned()])] {
            assert_eq!(rejected(&source, &signed(&headers)).work, 0, "{what}");
        }
    }
    let tagged = with_secrets(INLINE_TAGGED, 3).expect("a source");
    let groups: Vec<String> = (0..8).map(|number| format!("t={number},v1={}", forged(b"x"))).collect();
    assert_eq!(rejected(&tagged, &signed(&groups)).work, 8 * 3 * (1 + BODY.len()), "one hash for each group and secret");
    // The second secret made the signature, but the time is missing in the tolerance.
    let timed = format!("{INLINE_TIMED}timestamp = {{ from = \"header:Acme-Time\", past = \"1s\" }}\n");
    let mut stale = signed(&[hex(&hmac("sha256", b"acme-2", &[b"1000000000.", BODY].concat()))]);
    set(&mut stale, "acme-time", "1000000000");
    let stale = rejected(&with_secrets(&timed, 3).expect("a source"), &stale);
    assert_eq!((stale.outcome, stale.work), (Outcome::TimestampStale, 2 * (11 + BODY.len())));
}

#[test]
fn every_pass_over_the_body_counts() {
    let forged = [hex(&[0; 32])];
    let mac = |content: &str| rejected(&inline(&INLINE.replace("[\"body\"]", content)), &signed(&forged)).work;
    assert_eq!(mac("[\"body-hash(sha256, hex)\"]"), BODY.len() + 64, "the body, and the text of its hash");
    assert_eq!(mac("[\"body-crc32-decimal\"]"), BODY.len() + crc32(BODY).len());
    assert_eq!(mac("[\"form-sorted\"]"), 2 * BODY.len(), "the form is built from the body and then hashed");
    assert_eq!(mac("[\"json:/n\"]"), BODY.len() + 1, "the body is parsed before the check");
    let digest = INLINE.replace("mac", "digest").replace("[\"body\"]", "[\"secret\", \"body\"]");
    assert_eq!(rejected(&inline(&digest), &signed(&forged)).work, "acme".len() + BODY.len());
    let twice = INLINE.replace("content = [\"body\"]", "content_variants = [[\"body\"], [\"method\", \"body\"]]");
    assert_eq!(rejected(&inline(&twice), &signed(&forged)).work, 2 * BODY.len() + "POST".len());
    let signature_in_body = INLINE.replace("header:Acme-Signature", "json:/n").replace("[\"body\"]", "[\"method\"]");
    assert_eq!(rejected(&inline(&signature_in_body), &delivery(BODY, &[])).work, BODY.len(), "parsed to find the signature");
}

#[test]
fn a_public_key_check_counts_like_64_kib() {
    let keys = [key_pair("p-256"), key_pair("p-256")];
    let recipe = INLINE.replace("mac", "signature").replace("sha256", "ecdsa-p256-sha256-fixed");
    let source = with_keys(&recipe, &keys).expect("a source");
    let forged = hex(&sign("ecdsa-p256-sha256-fixed", &shared_key_pair("p-256"), BODY));
    let expected = 2 * (BODY.len() + 3 * CHECK);
    assert_eq!(rejected(&source, &signed(&vec![forged; 3])).work, expected, "one hash for each key, one check for each pair");
    let ed25519 = INLINE.replace("mac", "signature").replace("sha256", "ed25519");
    let source = with_keys(&ed25519, &[key_pair("ed25519")]).expect("a source");
    let forged = hex(&sign("ed25519", &shared_key_pair("ed25519"), BODY));
    assert_eq!(rejected(&source, &signed(&vec![forged; 3])).work, 3 * (BODY.len() + CHECK), "Ed25519 hashes for each signature");
}

#[test]
fn a_forged_token_counts_once_for_each_key() {
    let recipe = "auth = \"jwt\"\nalgorithm = [\"ES256\"]\ntoken = { from = \"header:Acme-Token\" }\n\
                  body_claim = { name = \"sha256\", encoding = \"hex\" }\n";
    let (own, other) = (key_pair("p-256"), key_pair("p-256"));
    let token = |key: &KeyPair, body: &[u8]| {
        let claims = serde_json::json!({ "iat": NOW, "sha256": hex(&hash("sha256", body)) });
        jwt(serde_json::json!({ "alg": "ES256" }), claims, key)
    };
    let source = with_keys(recipe, &[own, key_pair("p-256")]).expect("a source");
    let forged = token(&other, BODY);
    assert_eq!(rejected(&source, &delivery(BODY, &[("acme-token", &forged)])).work, 2 * (forged.len() + CHECK));
    let own = key_pair("p-256");
    let genuine = token(&own, b"another body");
    let altered = rejected(&with_keys(recipe, &[own]).expect("a source"), &delivery(BODY, &[("acme-token", &genuine)]));
    assert_eq!((altered.outcome, altered.work), (Outcome::SignatureMismatch, genuine.len() + CHECK + BODY.len()));
    let source = inline("auth = \"token\"\ntoken = { from = \"header:Acme-Token\" }\n");
    assert_eq!(rejected(&source, &delivery(BODY, &[("acme-token", "wrong")])).work, 0, "a comparison is no hash");
}

#[test]
fn the_work_of_all_proofs_is_added() {
    let of_header = |name: &str| format!("[[proof]]\nsignature = {{ from = \"header:{name}\" }}\n");
    let shared = "auth = \"mac\"\nalgorithm = \"sha256\"\ncontent = [\"body\"]\n";
    let entry = format!("{shared}{}{}", of_header("Acme-One"), of_header("Acme-Two"));
    let forged = hex(&[0; 32]);
    let source = with_secrets(&entry, 2).expect("a source");
    let work = |headers: &[(&str, &str)]| rejected(&source, &delivery(BODY, headers)).work;
    assert_eq!(work(&[("acme-two", &forged)]), 2 * BODY.len());
    assert_eq!(work(&[("acme-one", &forged), ("acme-two", &forged)]), 4 * BODY.len());
}

/// A verification of more than 1 MiB runs on a blocking thread, so that the request threads stay free. Here, it may read the body
/// 25 times: for eight groups with three secrets, and for the values in the body.
#[test]
fn the_number_of_hashes_decides_whether_a_verification_is_long() {
    let source = with_secrets(INLINE_TAGGED, 3).expect("a source");
    let verifier = Verifier::new(source);
    let is_long = |size: usize| verifier.is_long(&delivery(vec![b'x'; size], &[]));
    assert_eq!([(1 << 20) / 25, (1 << 20) / 25 + 1, 5 << 20].map(is_long), [false, true, true]);
}

#[test]
fn a_source_with_more_secrets_accepts_fewer_groups() {
    let group = |secret: &[u8]| format!("t=1,v1={}", hex(&hmac("sha256", secret, &[b"1", BODY].concat())));
    for (secrets, most) in [(1, 8), (4, 8), (5, 6), (16, 2), (128, 2)] {
        let source = with_secrets(INLINE_TAGGED, secrets).expect("a source");
        let last = group(format!("acme-{secrets}").as_bytes());
        let with_groups = |count: usize| signed(&[vec![group(b"x"); count - 1], vec![last.clone()]].concat());
        assert!(verify(&source, &with_groups(most)).is_ok(), "{secrets} secrets");
        let rejection = rejected(&source, &with_groups(most + 2));
        assert_eq!((rejection.outcome, rejection.work), (Outcome::SignatureMalformed, 0), "{secrets} secrets");
        let remedy = if most < 8 { "; remove unused secrets or public keys of this source" } else { "" };
        let hint = format!("signature: expected at most {most} signature groups, found {}{remedy}", most + 2);
        assert_eq!(rejection.hint, hint);
        let headers = with_groups(most + 2).headers;
        assert_eq!(precheck(&source, Method::POST, &headers), Err(rejection), "before the body arrives");
    }
}

#[test]
fn a_source_with_more_public_keys_accepts_fewer_signatures() {
    let recipe = INLINE.replace("mac", "signature").replace("sha256", "ed25519");
    let keys: Vec<KeyPair> = (0..9).map(|_| key_pair("ed25519")).collect();
    let wrong = hex(&[0; 64]);
    for (count, most, is_long) in [(1, 8, false), (2, 8, false), (3, 5, false), (8, 2, false), (9, 2, true)] {
        let source = with_keys(&recipe, &keys[..count]).expect("a source");
        let last = hex(&sign("ed25519", &keys[count - 1], BODY));
        let with_signatures = |count: usize| signed(&[vec![wrong.clone(); count - 1], vec![last.clone()]].concat());
        assert!(verify(&source, &with_signatures(most)).is_ok(), "{count} keys");
        let rejection = rejected(&source, &with_signatures(most + 1));
        assert_eq!((rejection.outcome, rejection.work), (Outcome::SignatureMalformed, 0), "{count} keys");
        assert!(rejection.hint.starts_with(&format!("signature: expected at most {most} signatures, found more")));
        assert_eq!(Verifier::new(source).is_long(&with_signatures(most)), is_long, "{count} keys");
    }
}

#[test]
fn check_rejects_keys_that_cost_too_much() {
    let error = |result: Result<Source, String>| result.expect_err("too many");
    let tokens = "auth = \"token\"\ntoken = { from = \"header:Acme-Token\" }\n";
    assert!(with_secrets(tokens, 128).is_ok());
    assert!(error(with_secrets(tokens, 129)).contains("secrets: expected at most 128 keys, found 129; remove keys"));
    let variants =
        INLINE.replace("content = [\"body\"]", "content_variants = [[\"body\"], [\"body\", \".\"], [\".\", \"body\"]]");
    assert!(with_secrets(&variants, 42).is_ok(), "126 hashes");
    let found = error(with_secrets(&variants, 43));
    assert!(found.contains("secrets: expected at most 128 hashes for each signature"), "{found}");
    assert!(found.contains("found 129; remove keys"), "{found}");
    let twilio = |secrets: usize| with_secrets("provider = \"twilio\"\n", secrets).is_ok();
    assert!(twilio(10) && !twilio(11), "the recipe has 12 alternatives for each secret");
    let keys: Vec<KeyPair> = (0..33).map(|_| key_pair("ed25519")).collect();
    let recipe = INLINE.replace("mac", "signature").replace("sha256", "ed25519");
    assert!(with_keys(&recipe, &keys[..32]).is_ok());
    let found = error(with_keys(&recipe, &keys));
    assert!(found.contains("public_keys: expected at most 32 public-key checks for each signature"), "{found}");
    let tokens = "auth = \"jwt\"\nalgorithm = [\"EdDSA\"]\ntoken = { from = \"header:Acme-Token\" }\n";
    assert!(with_keys(tokens, &keys[..32]).is_ok() && with_keys(tokens, &keys).is_err());
    let proofs = |count: usize| {
        let proof = "[[proof]]\nauth = \"token\"\ntoken = { from = \"header:Acme-Token\" }\n";
        with_secrets(&proof.repeat(count), 1)
    };
    assert!(proofs(8).is_ok());
    assert!(error(proofs(9)).contains("proof: expected at most 8 proofs, found 9; remove some"));
}

#[test]
fn too_many_tokens_are_rejected_before_any_comparison() {
    let source = inline("auth = \"token\"\ntoken = { from = \"header:Acme-Token\" }\n");
    let with_tokens = |count: usize| {
        let mut delivery = delivery(BODY, &[("acme-token", "acme")]);
        (1..count).for_each(|_| assert!(delivery.headers.append("acme-token", HeaderValue::from_static("wrong"))));
        delivery
    };
    assert!(verify(&source, &with_tokens(16)).is_ok());
    let rejection = rejected(&source, &with_tokens(17));
    assert_eq!(
        rejection.to_string(),
        "signature_malformed: token: expected at most 16 tokens, found 17; compare the request with the provider's documentation"
    );
}

/// Otherwise, a small request could make hookhold hash one long header many times.
#[test]
fn a_list_of_signed_headers_names_each_header_once() {
    let recipe = INLINE.replace("[\"body\"]", "[\"listed-headers(header:Acme-List, ',')\"]");
    let source = inline(&recipe);
    let with_list = |list: &str| {
        let code = hex(&hmac("sha256", b"acme", b"a,b"));
        delivery(BODY, &[("acme-list", list), ("one", "a"), ("two", "b"), ("acme-signature", &code)])
    };
    assert!(verify(&source, &with_list("one,two")).is_ok());
    let rejection = rejected(&source, &with_list("one,two,One"));
    assert_eq!((rejection.outcome, rejection.work), (Outcome::SignatureMalformed, 0));
    assert!(rejection.hint.contains("found a name that is repeated"), "{rejection}");
}

/// The text of a signature inside the body may be as long as the body, so its parts must not use a multiple of this memory.
#[test]
fn a_signature_inside_the_body_has_few_parts() {
    let recipe = INLINE_TAGGED.replace("header:Acme-Signature", "json:/signature").replace("\"body\"", "\"method\"");
    let rejected = |recipe: &str, signature: &str| {
        let body = format!("{{\"signature\":\"{signature}\"}}");
        rejected(&inline(recipe), &delivery(body, &[])).to_string()
    };
    let with_tags = |count: usize| rejected(&recipe, &format!("{}v1={}", "t=1,".repeat(count), hex(&[0; 32])));
    assert!(with_tags(128).starts_with("signature_mismatch"));
    assert_eq!(with_tags(129), "signature_malformed: signature: expected at most 128 tags, found more");
    let with_codes = |count: usize| rejected(&recipe, &format!("t=1{}", format!(",v1={}", hex(&[0; 32])).repeat(count)));
    assert!(with_codes(128).starts_with("signature_mismatch"));
    assert_eq!(with_codes(129), "signature_malformed: signature: expected at most 128 signatures, found more");
}

/// A body of 5 MiB with 10,000 items that have no id. The sender signs a time, so the signed content is part of the identity of
/// each item. One hash of the content for each item would read 50 GB.
#[test]
fn items_without_an_id_share_one_hash_of_the_content() {
    let (body, count) = (|items: usize| format!("[{}]", vec![format!("\"{}\"", "x".repeat(500)); items].join(",")), 10_000);
    for (content, coverage) in [("[\"timestamp\", \"body\"]", true), ("[\"timestamp\"]", false)] {
        let source = inline(&format!(
            "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = {{ from = \"header:Acme-Signature\" }}\ncontent = {content}\n\
             timestamp = {{ from = \"header:Acme-Time\" }}\nevent = {{ batch = \"\", id = \"json:/id\" }}\nsplit = true\n"
        ));
        let identities = |items: usize| -> Vec<Identity> {
            let (body, time) = (body(items), NOW.to_string());
            let signed = if coverage { format!("{time}{body}") } else { time.clone() };
            let code = hex(&hmac("sha256", b"acme", signed.as_bytes()));
            let delivery = delivery(body, &[("acme-signature", &code), ("acme-time", &time)]);
            verify_batch(&source, &delivery).items.into_iter().map(|item| item.identity).collect()
        };
        let all = identities(count);
        assert!(all.iter().all(|identity| matches!(identity, Identity::SignedContent(_))));
        let distinct: HashSet<String> = all.iter().map(|identity| format!("{identity:?}")).collect();
        assert_eq!((all.len(), distinct.len()), (count, count), "equal items stay apart by their index");
        assert_eq!(identities(count), all, "an exact replay is a duplicate");
        assert_eq!(identities(count - 1)[0] == all[0], !coverage, "the content is part of the identity");
    }
}

fn crc32(bytes: &[u8]) -> String {
    crc32fast::hash(bytes).to_string()
}
