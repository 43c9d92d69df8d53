//! Tests of batches: the events of a delivery that carries several of them, and signatures that each item carries itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookhold::event::{Delivery, Event, Integrity};
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::verify::sign::Tamper;
use hookhold::verify::{Identity, VerifiedBatch};
use serde_json::Value;

use crate::crypto::hmac;
use crate::support::*;

/// Recipe of a sender that signs an array of events.
const BATCH: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Acme-Signature" }
content = ["body"]
event = { batch = "", id = "json:/id", type = "json:/kind", key = "json:/customer", time = [{ from = "json:/at", unit = "s" }] }
split = true
"#;

fn split(pointer: &str) -> Source {
    inline(&BATCH.replace("batch = \"\"", &format!("batch = {pointer:?}")))
}

fn whole(pointer: &str) -> Source {
    inline(&BATCH.replace("batch = \"\"", &format!("batch = {pointer:?}")).replace("split = true", ""))
}

/// Returns a delivery with a genuine signature over the body.
fn signed(body: impl AsRef<[u8]>) -> Delivery {
    let code = hmac("sha256", b"acme", body.as_ref());
    delivery(body.as_ref().to_vec(), &[("acme-signature", &base16ct::lower::encode_string(&code))])
}

fn bodies(batch: &VerifiedBatch) -> Vec<String> {
    batch.items.iter().map(|item| String::from_utf8_lossy(item.event.body()).into_owned()).collect()
}

fn ids(batch: &VerifiedBatch) -> Vec<Option<&str>> {
    batch.items.iter().map(|item| item.event.id()).collect()
}

fn facts(event: &Event) -> (Option<&str>, Option<&str>, Option<&str>, Option<u64>) {
    (event.id(), event.event_type(), event.ordering_key(), event.occurred_at().map(|time| time.0))
}

#[test]
fn each_item_becomes_an_event_with_its_own_bytes() {
    let body = "[ {\"id\":1, \"kind\":\"a\",\"customer\":\"c\",\"at\":7} ,\r\n{\"kind\":\"b\" ,\"id\":\"x\"}\t,\"text\", null,[[]] ]\r\n";
    let batch = verify_batch(&split(""), &signed(body));
    let expected =
        ["{\"id\":1, \"kind\":\"a\",\"customer\":\"c\",\"at\":7}", "{\"kind\":\"b\" ,\"id\":\"x\"}", "\"text\"", "null", "[[]]"];
    assert_eq!(bodies(&batch), expected);
    assert_eq!(batch.secret.as_deref(), Some("secret"));
    let events: Vec<_> = batch.items.iter().map(|item| facts(&item.event)).collect();
    assert_eq!(events[0], (Some("1"), Some("a"), Some("c"), Some(7000)));
    assert_eq!(events[1], (Some("x"), Some("b"), None, None));
    assert_eq!(events[2..], [(None, None, None, None); 3]);
    for item in &batch.items {
        assert_eq!((item.event.integrity(), item.event.auth()), (Integrity::Item, "mac-sha256:secret"));
        assert_eq!(item.event.request().headers.len(), 1);
    }
}

#[test]
fn an_array_inside_the_body_is_found_at_its_pointer() {
    let body = r#"{"destination":"U1","a":{"events":[{"id":"1"},{"id":"2"}],"other":[{"id":"3"}]}}"#;
    assert_eq!(ids(&verify_batch(&split("/a/events"), &signed(body))), [Some("1"), Some("2")]);
    let array = r#"[[{"id":"1"}],[{"id":"2"}]]"#;
    assert_eq!(ids(&verify_batch(&split("/1"), &signed(array))), [Some("2")]);
    let twice = r#"{"events":[{"id":"1"}],"events":[{"id":"2"},{"id":"3"}]}"#;
    assert_eq!(ids(&verify_batch(&split("/events"), &signed(twice))), [Some("2"), Some("3")], "the last member counts");
    assert!(verify_batch(&split("/events"), &signed(r#"{"events":[ ]}"#)).items.is_empty());
    assert_eq!(ids(&verify_batch(&split("/1/a~1b"), &signed(r#"[0,{"a/b":[{"id":"1"}]}]"#))), [Some("1")]);
    let empty_name = r#"{"":[{"id":"1"}]}"#;
    assert_eq!(ids(&verify_batch(&split("/"), &signed(empty_name))), [Some("1")], "the pointer / is a member without a name");
    assert_eq!(verify(&split("/"), &signed(r#"[{"id":"1"}]"#)).expect("genuine").event.id(), None);
}

/// Compares the events of random arrays with the texts from which the test has written these arrays.
#[test]
fn the_items_are_the_texts_between_the_commas() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (root, inside) = (split(""), split("/a~1b/events"));
    let mut count = 0;
    for _ in 0..300 {
        let items: Vec<String> = (0..random.usize(..6)).map(|_| value(&mut random, 3)).collect();
        let space = [" ", "", "\r\n", "\t"][random.usize(..4)];
        let array = format!("{space}[{space}{}{space}]{space}", items.join(&format!("{space},{space}")));
        let nested = format!(r#"{{"x":[1,{{"events":[2]}}],"a/b":{{"n":0,"events":{array}}},"events":[{{"id":"no"}}]}}"#);
        let marked = [b"\xef\xbb\xbf", array.as_bytes()].concat();
        for (source, body) in [(&root, array.clone().into_bytes()), (&root, marked), (&inside, nested.into_bytes())] {
            let batch = verify_batch(source, &signed(&body));
            assert_eq!(bodies(&batch), items, "{}", body.escape_ascii());
            for item in &batch.items {
                let tree = serde_json::from_slice::<Value>(item.event.body());
                let id = tree.as_ref().ok().and_then(|tree| tree.get("id")?.as_str()).filter(|id| !id.is_empty());
                assert!(id.is_none() || item.event.id() == id, "{tree:?}");
                count += 1;
            }
        }
    }
    assert!(count > 500, "only {count} items");
}

/// Returns a random JSON value as text, with escapes, white space and all kinds of numbers.
fn value(random: &mut fastrand::Rng, depth: usize) -> String {
    let scalars = ["null", "true", "-0", "1e400", "12345678901234567890123", r#""é\"\\\u00e9\ud83d""#, r#""a]b}c[,""#, "\"\""];
    match random.u8(..4) {
        0 if depth > 0 => {
            let items: Vec<String> = (0..random.usize(..4)).map(|_| value(random, depth - 1)).collect();
            format!("[{}\n]", items.join(" , "))
        }
        1 | 2 if depth > 0 => {
            let members: Vec<String> = (0..random.usize(..4))
                .map(|at| format!("\"{}\" :{}", ["id", "kind", "x", "]"][at], value(random, depth - 1)))
                .collect();
            format!("{{ {}}}", members.join(","))
        }
        _ => scalars[random.usize(..scalars.len())].to_owned(),
    }
}

/// A body that is no array, or whose bytes cannot be divided, stays one event with all of its bytes.
#[test]
fn a_body_that_cannot_be_divided_stays_one_event() {
    let utf16: Vec<u8> = r#"[{"id":"1","kind":"a"}]"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: [(&str, Vec<u8>, Option<&str>); 9] = [
        ("", br#"{"id":"1","kind":"a"}"#.to_vec(), Some("1")),
        ("", utf16, Some("1")),
        ("", br#"[{"id":"1"}] [{"id":"2"}]"#.to_vec(), None),
        ("", br#"[{"id":"1"}]}"#.to_vec(), Some("1")),
        ("", br#"[{"id":"1"}"#.to_vec(), None),
        ("", b"id=1&kind=a".to_vec(), None),
        ("/events", br#"{"events":{"id":"1"}}"#.to_vec(), Some("1")),
        ("/events", br#"{"id":"1"}"#.to_vec(), None),
        ("/events", br#"[{"id":"1"}]"#.to_vec(), None),
    ];
    for (pointer, body, id) in cases {
        let verified = verify(&split(pointer), &signed(&body)).expect("genuine");
        assert_eq!(verified.event.id(), id, "{}", body.escape_ascii());
        assert_eq!((&verified.event.body()[..], verified.event.integrity()), (&body[..], Integrity::Full));
    }
    for tail in ["\0", "\r\n", " \u{1a}"] {
        let body = [r#"[{"id":"1"}]"#, tail].concat();
        assert_eq!(ids(&verify_batch(&split(""), &signed(body))), [Some("1")], "only control characters follow");
    }
}

/// Returns UTF-16 with a byte order mark.
fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Text after the array may hold further items, as in NDJSON. The first array's values must then not become those of the whole
/// body: two deliveries with the same first array would become one event, and `types` could filter the later items.
#[test]
fn a_body_that_may_hold_further_items_has_no_value_of_an_item() {
    let first = r#"[{"id":"1","kind":"a","customer":"c","at":7},{"id":"2","kind":"a","customer":"c","at":7}]"#;
    let nested = format!("{{\"events\":{first}}}");
    let single = r#"{"id":"1","kind":"a","customer":"c","at":7}"#;
    for (pointer, first) in [("", first), ("/events", &nested), ("", single)] {
        for tail in ["\n[{\"id\":\"3\"}]", " []", "{\"events\":[{\"id\":\"3\"}]}", ",[{\"id\":\"3\"}]", "\0\x1e{}", "]["] {
            let body = [first, tail].concat();
            for body in [body.clone().into_bytes(), format!("\u{feff}{body}").into_bytes(), utf16(&body)] {
                for source in [split(pointer), whole(pointer)] {
                    let verified = verify(&source, &signed(&body)).expect("genuine");
                    assert_eq!(facts(&verified.event), (None, None, None, None), "{}", body.escape_ascii());
                    assert_eq!(verified.identity, Identity::Keyless, "{}", body.escape_ascii());
                    assert_eq!((&verified.event.body()[..], verified.event.integrity()), (&body[..], Integrity::Full));
                }
            }
        }
        for tail in ["}", " \u{1a}", "\0\0", ";EOF", " 17"] {
            let body = [first, tail].concat();
            for body in [body.clone().into_bytes(), utf16(&body)] {
                let verified = verify(&whole(pointer), &signed(&body)).expect("genuine");
                assert_eq!(verified.event.event_type(), Some("a"), "{}", body.escape_ascii());
                assert_ne!(verified.identity, Identity::Keyless, "{}: no item can follow", body.escape_ascii());
            }
        }
    }
}

#[test]
fn a_signed_time_identifies_a_body_that_may_hold_further_items() {
    let timed =
        BATCH.replace("content = [\"body\"]", "content = [\"timestamp\", \".\", \"body\"]\ntimestamp = { from = \"header:T\" }");
    for source in [inline(&timed), inline(&timed.replace("split = true", ""))] {
        let identity = |body: &str| {
            let code = hmac("sha256", b"acme", format!("{NOW}.{body}").as_bytes());
            let headers = [("t", &*NOW.to_string()), ("acme-signature", &base16ct::lower::encode_string(&code))];
            verify(&source, &delivery(body.to_owned(), &headers)).expect("genuine").identity
        };
        let [first, replay, other] = ["2", "2", "3"].map(|id| identity(&format!("[{{\"id\":\"1\"}}]\n[{{\"id\":\"{id}\"}}]")));
        assert!(matches!(first, Identity::SignedContent(_)), "{first:?}");
        assert_eq!(first, replay);
        assert_ne!(first, other);
    }
}

#[test]
fn without_split_the_event_has_the_values_that_all_items_share() {
    let source = whole("/events");
    let of = |body: &str| verify(&source, &signed(body)).expect("genuine");
    let one = of(r#"{"events":[{"id":"1","kind":"a","customer":"c","at":7}]}"#);
    assert_eq!(facts(&one.event), (Some("1"), Some("a"), Some("c"), Some(7000)));
    assert_eq!(one.event.integrity(), Integrity::Full);
    let two = of(r#"{"events":[{"id":"1","kind":"a","customer":"c","at":7},{"id":"2","kind":"a","customer":"d"}]}"#);
    assert_eq!(facts(&two.event), (None, Some("a"), None, None));
    assert_eq!(facts(&of(r#"{"events":[]}"#).event), (None, None, None, None));
    // The identity consists of all ids, whatever else the body contains.
    let ids = |body: &str| of(body).identity;
    let [a, b] = [r#"{"events":[{"id":"1"},{"id":"2"}]}"#, r#"{"events":[{"id":"1","x":0}, {"id":"2"}]}"#].map(ids);
    assert!(matches!(&a, Identity::Ids { fields, body_sha256: None } if fields.len() == 6), "{a:?}");
    assert_eq!(a, b);
    for other in [
        r#"{"events":[{"id":"2"},{"id":"1"}]}"#,
        r#"{"events":[{"id":"1"},{"id":"2"},{"id":"3"}]}"#,
        r#"{"events":[{"id":"1"}]}"#,
    ] {
        assert_ne!(ids(other), a);
    }
    let types = |first: &str, second: &str| {
        ids(&format!(r#"{{"events":[{{"id":"1","kind":"{first}"}},{{"id":"2","kind":"{second}"}}]}}"#))
    };
    assert_eq!(types("a", "b"), types("a", "b"));
    assert_ne!(types("a", "b"), types("b", "c"), "the same id with another type is another event");
    assert_ne!(types("a", "b"), types("b", "a"));
    assert_eq!(ids(r#"{"events":[{"id":"1"},{}]}"#), Identity::Keyless, "an item without an id could be another event");
    let split = split("/events");
    let single = verify_batch(&split, &signed(r#"{"events":[{"id":"1"}]}"#));
    assert_eq!(single.items[0].identity, ids(r#"{"events":[{"id":"1"}]}"#), "the same event with and without split");
}

#[test]
fn items_without_an_id_differ_by_their_index() {
    let timed =
        BATCH.replace("content = [\"body\"]", "content = [\"timestamp\", \".\", \"body\"]\ntimestamp = { from = \"header:T\" }");
    let source = inline(&timed);
    let body = r#"[{"kind":"a"},{"kind":"a"},{"id":"1"}]"#;
    let sign = |time: u64| {
        let code = hmac("sha256", b"acme", format!("{time}.{body}").as_bytes());
        delivery(body, &[("t", &time.to_string()), ("acme-signature", &base16ct::lower::encode_string(&code))])
    };
    let identities =
        |delivery: &Delivery| verify_batch(&source, delivery).items.into_iter().map(|item| item.identity).collect::<Vec<_>>();
    let first = identities(&sign(NOW));
    assert!(matches!(first[..], [Identity::SignedContent(_), Identity::SignedContent(_), Identity::Id { .. }]), "{first:?}");
    assert_ne!(first[0], first[1]);
    assert_eq!(identities(&sign(NOW)), first, "an exact replay");
    assert_ne!(identities(&sign(NOW + 1))[..2], first[..2], "equal items of another delivery are other events");
    let untimed = verify_batch(&split(""), &signed(body));
    assert_eq!(untimed.items[0].identity, Identity::Keyless);
}

#[test]
fn a_batch_beyond_max_items_is_too_large() {
    let limited = BATCH.to_owned() + "max_items = 3";
    let items = |count: usize| format!("[{}]", vec!["{\"id\":\"1\"}"; count].join(","));
    let source = inline(&limited);
    assert_eq!(verify_batch(&source, &signed(items(3))).items.len(), 3);
    let rejected = hookhold::verify::Verifier::new(source.clone()).verify(&signed(items(4))).expect_err("too many items");
    assert_eq!(rejected.outcome, Outcome::TooLarge);
    assert!(rejected.hint.contains("at most 3 items (max_items"), "{rejected}");
    assert_eq!(rejection(&source, &delivery(items(4), &[("acme-signature", &"0".repeat(64))])), Some(Outcome::SignatureMismatch));
    let whole = inline(&limited.replace("split = true", ""));
    let verified = verify(&whole, &signed(items(4))).expect("one event, whatever the number of items");
    assert_eq!(verified.event.id(), None);
    assert_eq!(split("").recipe.event.batch.expect("a batch").max_items, 10_000, "the default");
    let most = verify_batch(&split(""), &signed(items(10_000)));
    assert_eq!(most.items.len(), 10_000);
}

/// A proof that does not cover the body does not cover an item, either.
#[test]
fn an_item_is_no_better_covered_than_its_body() {
    let token =
        "auth = \"token\"\ntoken = { from = \"header:X-Token\" }\nevent = { batch = \"\", id = \"json:/id\" }\nsplit = true";
    let batch = verify_batch(&inline(token), &delivery(r#"[{"id":"1"},{"id":"1" }]"#, &[("x-token", "acme")]));
    assert_eq!(batch.items[0].event.integrity(), Integrity::None);
    let of = |at: usize| match &batch.items[at].identity {
        Identity::Id { body_sha256: Some(hash), .. } => *hash,
        other => panic!("{other:?}"),
    };
    assert_ne!(of(0), of(1), "an unsigned id counts together with the bytes of its item");
}

/// The recipe of Adyen's payment webhooks: each item carries a signature over eight of its fields.
const ADYEN: &str = r#"
auth = "mac"
algorithm = "sha256"
key_format = "hex"
signature = { from = "json:/NotificationRequestItem/additionalData/hmacSignature", encoding = "base64" }
match = "all-items"
content = [
  "optional(json:/NotificationRequestItem/pspReference)", ":",
  "optional(json:/NotificationRequestItem/originalReference)", ":",
  "optional(json:/NotificationRequestItem/merchantAccountCode)", ":",
  "optional(json:/NotificationRequestItem/merchantReference)", ":",
  "optional(json:/NotificationRequestItem/amount/value)", ":",
  "optional(json:/NotificationRequestItem/amount/currency)", ":",
  "optional(json:/NotificationRequestItem/eventCode)", ":",
  "optional(json:/NotificationRequestItem/success)",
]
split = true
[event]
batch = "/notificationItems"
id = [["json:/NotificationRequestItem/pspReference", "json:/NotificationRequestItem/eventCode", "json:/NotificationRequestItem/success"]]
type = "json:/NotificationRequestItem/eventCode"
key = "json:/NotificationRequestItem/pspReference"
"#;
const ADYEN_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

fn adyen() -> Source {
    compile(ADYEN, &[("secret", ADYEN_KEY)]).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Returns an item as Adyen sends it. `reference` is its merchant reference.
fn adyen_item(psp: &str, reference: &str) -> String {
    let text = format!("{psp}::TestMerchant:{reference}:1130:EUR:AUTHORISATION:true");
    let key = base16ct::mixed::decode_vec(ADYEN_KEY).expect("hex");
    let code = STANDARD.encode(hmac("sha256", &key, text.as_bytes()));
    format!(
        r#"{{"NotificationRequestItem":{{"additionalData":{{"hmacSignature":"{code}"}},"amount":{{"currency":"EUR","value":1130}},"eventCode":"AUTHORISATION","merchantAccountCode":"TestMerchant","merchantReference":"{reference}","pspReference":"{psp}","success":"true"}}}}"#
    )
}

fn adyen_body(items: &[String]) -> String {
    format!(r#"{{"live":"false","notificationItems":[{}]}}"#, items.join(","))
}

/// The vector is published in Adyen's libraries (github.com/Adyen/adyen-node-api-library, hmacValidator.spec.ts).
#[test]
fn adyens_published_signature_verifies() {
    let item = adyen_item("7914073381342284", "TestPayment-1407325143704");
    assert!(item.contains("coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="), "{item}");
    let batch = verify_batch(&adyen(), &delivery(adyen_body(std::slice::from_ref(&item)), &[]));
    assert_eq!(bodies(&batch), [item]);
    let event = &batch.items[0].event;
    assert_eq!(event.id(), Some("7914073381342284.AUTHORISATION.true"));
    assert_eq!((event.event_type(), event.ordering_key()), (Some("AUTHORISATION"), Some("7914073381342284")));
    assert_eq!(event.integrity(), Integrity::Partial, "the signature covers eight fields of the item");
    assert!(matches!(&batch.items[0].identity, Identity::Id { body_sha256: None, .. }), "the id is signed");
}

#[test]
fn every_item_must_carry_a_genuine_signature() {
    let source = adyen();
    let items: Vec<String> = (0..3).map(|n| adyen_item(&format!("psp{n}"), "r")).collect();
    let of = |items: &[String]| rejection(&source, &delivery(adyen_body(items), &[]));
    let batch = verify_batch(&source, &delivery(adyen_body(&items), &[]));
    assert_eq!(bodies(&batch), items);
    for at in 0..3 {
        let with = |change: &dyn Fn(&str) -> String| {
            let mut items = items.clone();
            items[at] = change(&items[at]);
            of(&items)
        };
        assert_eq!(with(&|item| item.replace("1130", "1131")), Some(Outcome::SignatureMismatch), "item {at}");
        assert_eq!(with(&|item| item.replace("\"success\":\"true\"", "\"success\":\"false\"")), Some(Outcome::SignatureMismatch));
        assert_eq!(with(&|item| item.replace("hmacSignature", "hmac")), Some(Outcome::SignatureMissing));
        assert_eq!(
            with(&|item| item.replace("\"hmacSignature\":\"", "\"hmacSignature\":\"!")),
            Some(Outcome::SignatureMalformed)
        );
        assert_eq!(with(&|_| "{}".into()), Some(Outcome::SignatureMissing));
        assert_eq!(with(&|_| "null".into()), Some(Outcome::SignatureMissing));
        assert_eq!(with(&|_| items[(at + 1) % 3].replace("psp", "PSP")), Some(Outcome::SignatureMismatch));
    }
    assert_eq!(of(&[]), Some(Outcome::SignatureMissing), "a batch without items carries no signature");
    for body in ["", "{}", "[]", "null", r#"{"notificationItems":{}}"#, r#"{"notificationItems":7}"#] {
        assert_eq!(rejection(&source, &delivery(body, &[])), Some(Outcome::SignatureMissing), "{body}");
    }
    for (forged, hint) in
        [("{}", "item 2: signature: expected the"), (&*items[0].replace("1130", "1"), "item 2: signature: expected one")]
    {
        let body = adyen_body(&[items[0].clone(), forged.to_owned(), items[2].clone()]);
        let rejected = verify(&source, &delivery(body, &[])).expect_err("a forged item");
        assert!(rejected.hint.starts_with(hint), "{rejected}");
    }
    let numbers = items[0].replace("\"success\":\"true\"", "\"success\":true").replace("\"value\":1130", "\"value\":\"1130\"");
    let batch = verify_batch(&source, &delivery(adyen_body(std::slice::from_ref(&numbers)), &[]));
    assert_eq!(bodies(&batch), [numbers], "the text of a value is signed, not its JSON type");
}

/// The verifier checks the items of one array. A body in which a consumer could find other items is rejected.
#[test]
fn an_item_outside_the_checked_array_is_rejected() {
    let genuine = adyen_body(&[adyen_item("psp1", "r")]);
    let forged = adyen_body(&[adyen_item("psp2", "r").replace("1130", "1131")]);
    let member = |body: &str| body[1..body.len() - 1].to_owned();
    let twice =
        |first: &str, second: &str| format!("{{{},{}}}", member(first), member(second).replace("\"live\":\"false\",", ""));
    for split in ["split = true", ""] {
        let source = compile(&ADYEN.replace("split = true", split), &[("secret", ADYEN_KEY)]).expect("a recipe");
        let of = |body: Vec<u8>| rejection(&source, &delivery(body, &[]));
        let two = twice(&forged, &genuine);
        assert!(serde_json::from_str::<Value>(&two).is_ok(), "{two}");
        for body in [
            format!("{genuine}\n{forged}"),
            format!("{genuine}{genuine}"),
            format!("{genuine}\0[{forged}]"),
            two,
            twice(&genuine, &genuine),
        ] {
            assert_eq!(of(body.clone().into_bytes()), Some(Outcome::SignatureMalformed), "{body}");
            assert_eq!(of(utf16(&body)), Some(Outcome::SignatureMalformed), "{body} in UTF-16");
        }
        assert_eq!(of(format!("{{}}\n{genuine}").into_bytes()), Some(Outcome::SignatureMissing), "no items");
        assert_eq!(of(twice(&genuine, &forged).into_bytes()), Some(Outcome::SignatureMalformed));
    }
    let source = compile(&ADYEN.replace("split = true", ""), &[("secret", ADYEN_KEY)]).expect("a recipe");
    let verified = verify(&source, &delivery(genuine.clone() + "\n\0", &[])).expect("genuine");
    assert_eq!(verified.event.event_type(), Some("AUTHORISATION"));
}

/// The head of a request cannot show whether the items of its body carry signatures.
#[test]
fn the_head_of_a_request_decides_nothing_about_signed_items() {
    let limit = |recipe: &str| {
        let source = compile(recipe, &[("secret", ADYEN_KEY)]).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        precheck(&source, http::Method::POST, &http::HeaderMap::new()).map_err(|rejection| rejection.outcome)
    };
    assert_eq!(limit(ADYEN), Ok(5 << 20));
    assert_eq!(limit(&ADYEN.replace("split = true", "")), Ok(5 << 20));
    let timed = ADYEN.replace("content = [", "timestamp = { from = \"json:/at\", unit = \"ms\" }\ncontent = [\"timestamp\", ");
    assert_eq!(limit(&timed), Ok(5 << 20), "the time is also in the item");
    let digest = ADYEN.replace("auth = \"mac\"", "auth = \"digest\"").replace("content = [", "content = [\"secret\", ");
    assert_eq!(limit(&digest), Ok(5 << 20));
    let other = "[[proof]]\nauth = \"token\"\ntoken = { from = \"header:X-Token\" }\n[[proof]]\nauth = \"mac\"\n[event]";
    let several = ADYEN.replace("auth = \"mac\"", "").replace("[event]", other);
    assert_eq!(limit(&several), Ok(5 << 20), "the second proof may hold");
}

#[test]
fn all_items_without_split_stay_one_event() {
    let source = compile(&ADYEN.replace("split = true", ""), &[("secret", ADYEN_KEY)]).expect("a recipe");
    let items: Vec<String> = (0..2).map(|n| adyen_item(&format!("psp{n}"), "r")).collect();
    let verified = verify(&source, &delivery(adyen_body(&items), &[])).expect("genuine");
    assert_eq!(verified.event.body(), adyen_body(&items).as_bytes());
    assert_eq!((verified.event.event_type(), verified.event.id()), (Some("AUTHORISATION"), None));
    let limited = compile(&ADYEN.replace("split = true", "max_items = 1"), &[("secret", ADYEN_KEY)]).expect("a recipe");
    assert_eq!(rejection(&limited, &delivery(adyen_body(&items), &[])), Some(Outcome::TooLarge), "an unchecked item");
    let forged = [items[0].clone(), "{}".into()];
    assert_eq!(rejection(&limited, &delivery(adyen_body(&forged), &[])), Some(Outcome::TooLarge));
}

/// Each item may be signed with another secret, during a rotation or by another account, and its event names this secret.
#[test]
fn each_item_names_the_secret_that_signed_it() {
    let other = "00".repeat(32);
    let source = compile(ADYEN, &[("new", &other), ("old", ADYEN_KEY)]).expect("a recipe");
    let new = {
        let text = "p2::TestMerchant:r:1130:EUR:AUTHORISATION:true";
        let code = STANDARD.encode(hmac("sha256", &[0; 32], text.as_bytes()));
        let item = adyen_item("p2", "r");
        let (before, after) = item.split_once("hmacSignature\":\"").expect("signed");
        format!("{before}hmacSignature\":\"{code}{}", &after[after.find('"').expect("ends")..])
    };
    let batch = verify_batch(&source, &delivery(adyen_body(&[adyen_item("p1", "r"), new]), &[]));
    let auth: Vec<&str> = batch.items.iter().map(|item| item.event.auth()).collect();
    assert_eq!(auth, ["mac-sha256:old", "mac-sha256:new"]);
    let secrets: Vec<Option<&str>> = batch.items.iter().map(|item| item.secret.as_deref()).collect();
    assert_eq!(secrets, [Some("old"), Some("new")]);
}

#[test]
fn a_sample_of_a_batch_contains_one_item() {
    for (source, item) in [
        (split(""), r#"{"id":"id-1","kind":"sample.created","customer":"key-1","at":1700000000}"#),
        (split("/a/events"), r#"{"id":"id-1","kind":"sample.created","customer":"key-1","at":1700000000}"#),
        (adyen(), r#""eventCode":"sample.created""#),
    ] {
        let batch = verify_batch(&source, &sample(&source, None));
        assert!(batch.items.len() == 1 && bodies(&batch)[0].contains(item), "{batch:?}");
        for tamper in [Tamper::Body, Tamper::Secret, Tamper::Missing] {
            let delivery = sample(&source, Some(tamper));
            assert_eq!(rejection(&source, &delivery), Some(tamper.expected()), "{tamper:?} {:?}", delivery.body);
        }
    }
}

#[test]
fn a_wrong_batch_recipe_is_named() {
    let messages = |entry: &str| match compile(entry, &[("secret", "acme")]) {
        Ok(_) => panic!("accepted: {entry}"),
        Err(diagnostics) => diagnostics.to_string(),
    };
    let plain = INLINE.to_owned();
    let cases = [
        (plain.clone() + "split = true", "split: expected a recipe with event.batch, found a recipe without event.batch; add"),
        (plain.clone() + "max_items = 5", "max_items: expected a recipe with event.batch, found "),
        (
            plain.clone() + "match = \"all-items\"",
            "match: expected a recipe with event.batch, found \"all-items\" without it; add",
        ),
        (
            BATCH.replace("batch = \"\"", "batch = \"events\""),
            "event.batch: expected a JSON pointer to an array such as \"/events\"",
        ),
        (BATCH.replace("batch = \"\"", "batch = 7"), "event.batch: expected a JSON pointer to an array"),
        (BATCH.replace("\"json:/id\"", "\"header:X-Id\""), "event.id: expected json:/POINTER in each alternative"),
        (BATCH.replace("\"json:/id\"", "[\"json:/id\", \"header:X\"]"), "event.id: expected json:/POINTER in each alternative"),
        (
            BATCH.replace("\"json:/kind\"", "\"form:kind\""),
            "event.type: expected json:/POINTER inside the item of a batch, found a",
        ),
        (BATCH.replace("[\"body\"]", "[\"id\", \"body\"]"), "event.id: expected a locator such as "),
        (BATCH.to_owned() + "max_items = 0", "max_items: expected an integer from 1 to 100000, found 0"),
        (BATCH.to_owned() + "match = \"all-items\"", "signature.from: expected json:/POINTER inside the item, found "),
        (ADYEN.replace("\"optional(json:/NotificationRequestItem/success)\"", "\"body\""), "content: expected json:/POINTER, "),
    ];
    for (entry, expected) in &cases {
        let found = messages(entry);
        assert!(found.contains(expected) && found.lines().count() == 1, "expected {expected}\nfound {found}");
    }
}
