//! Tests of the id, type, ordering key, time, identity and headers that verification extracts from a delivery.

use std::time::Duration;

use hookhold::event::Integrity;
use hookhold::source::Source;
use hookhold::verify::{Identity, Verified};

use crate::support::*;

fn verify_body(source: &Source, body: &[u8]) -> Verified {
    let delivery = sample_of(source, Some(body), None);
    verify(source, &delivery).unwrap_or_else(|rejection| panic!("{}: {rejection}", String::from_utf8_lossy(body)))
}

fn id(body: &[u8]) -> Option<String> {
    verify_body(&provider("stripe"), body).event.id().map(str::to_owned)
}

#[test]
fn an_id_is_found_in_every_valid_json() {
    assert_eq!(id(br#"{"a":[{"id":1}],"id":"evt_1"}"#).as_deref(), Some("evt_1"));
    assert_eq!(id(b" {\r\n\t\"id\" : \"evt_1\" } \n").as_deref(), Some("evt_1"));
    assert_eq!(id(br#"{"\u0069\u0064":"\u00e9\ud83d\ude00\n"}"#).as_deref(), Some("\u{e9}\u{1f600}\n"));
    assert_eq!(
        id(b"{\"\xff\":\"\xff\",\"id\":\"evt_1\"}").as_deref(),
        Some("evt_1"),
        "bytes that are not UTF-8 do no harm elsewhere"
    );
    assert_eq!(id(br#"{"x":"\ud800","id":"evt_1"}"#).as_deref(), Some("evt_1"), "half a surrogate pair does no harm elsewhere");
    assert_eq!(id(br#"{"id":"first","id":"last"}"#).as_deref(), Some("last"));
    assert_eq!(id(br#"{"id":18446744073709551615}"#).as_deref(), Some("18446744073709551615"));
    assert_eq!(id(br#"{"id":-7}"#).as_deref(), Some("-7"));
}

#[test]
fn an_invalid_value_hides_only_its_own_fact() {
    for odd in [&br#""\ud83d""#[..], br#""\ude00 text""#, b"\"caf\xe9\"", b"1e400", b"-0", b"1E999"] {
        let body = [b"{\"type\":", odd, b",\"id\":\"evt_1\",\"data\":", odd, b",\"related_object\":{\"id\":\"key-1\"}}"].concat();
        let event = verify_body(&provider("stripe"), &body).event;
        let facts = (event.id(), event.event_type(), event.ordering_key());
        assert_eq!(facts, (Some("evt_1"), None, Some("key-1")), "{}", String::from_utf8_lossy(odd));
    }
    assert_eq!(id(b"\xef\xbb\xbf{\"id\":\"evt_1\"}").as_deref(), Some("evt_1"), "after a byte order mark");
    assert_eq!(
        verify_body(&provider("stripe"), b"\xef\xbb\xbf{}").event.body(),
        &b"\xef\xbb\xbf{}"[..],
        "the byte order mark is signed and stored"
    );
}

#[test]
fn a_delivery_without_a_usable_id_has_none() {
    let (source, timed) = (inline(&format!("{INLINE}event = {{ id = \"json:/id\" }}")), provider("stripe"));
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(513));
    let without: &[&[u8]] = &[
        b"",
        b"{}",
        b"null",
        b"[]",
        b"not json",
        b"id=evt_1",
        br#"{"id":""}"#,
        br#"{"id":null}"#,
        br#"{"id":{"id":"evt_1"}}"#,
        br#"{"id":["evt_1"]}"#,
        br#"{"id":1.5}"#,
        br#"{"id":"evt_1","id":null}"#,
        br#"{"id":"evt_1""#,
        br#"{"id":"evt_1" "x":1}"#,
        br#"{"id":NaN}"#,
        br#"{"id":-Infinity}"#,
        br#"[]=1&{"id":"evt_1"}"#,
        b"{\"id\":\"evt_1\0",
        br#"{"id" "evt_1"}"#,
        br#"{id:"evt_1"}"#,
        br#"{'id':"evt_1"}"#,
        br#"{"id":'evt_1'}"#,
        br#"{"id":evt_1}"#,
        br#"{"id":007}"#,
        br#"{"id":"\x65vt_1"}"#,
        br#"{"id":"evt_1",,}"#,
        br#"{"id":"evt_1","x":[1,,2]}"#,
        br#"{"id":"evt_1" /* a comment */}"#,
        br#"{"id":12"#,
        br#"{"id":"evt_1"]"#,
        b"{\"id\":\"\xff\"}",
        long.as_bytes(),
    ];
    for body in without {
        let verified = verify_body(&source, body);
        assert_eq!(verified.event.id(), None, "{}", String::from_utf8_lossy(body));
        assert_eq!(verified.identity, Identity::Keyless);
        assert_eq!(verified.event.body(), *body);
        let verified = verify_body(&timed, body);
        assert_eq!(verified.event.id(), None, "{}", String::from_utf8_lossy(body));
        assert!(matches!(verified.identity, Identity::SignedContent(_)), "an exact replay is a duplicate");
    }
    let longest = format!(r#"{{"id":"{}"}}"#, "x".repeat(512));
    assert_eq!(id(longest.as_bytes()).map(|id| id.len()), Some(512));
}

/// Checks the bodies of real senders that are not quite JSON. Each must have the same id, type and key as the plain body, and
/// the same identity, so that a copy in another form is a duplicate.
#[test]
fn an_imperfect_body_keeps_its_facts() {
    let plain = br#"{"id":"evt_1","type":"invoice.paid","data":{"object":{"id":"in_1"},"note":"N"}}"#;
    let with_note = |note: &[u8]| {
        let at = plain.windows(3).position(|three| three == b"\"N\"").expect("the note is there");
        [&plain[..at], note, &plain[at + 3..]].concat()
    };
    let units: Vec<u16> = String::from_utf8_lossy(plain).encode_utf16().collect();
    let little = |mark: &[u8]| [mark, &units.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>()].concat();
    let big = |mark: &[u8]| [mark, &units.iter().flat_map(|unit| unit.to_be_bytes()).collect::<Vec<u8>>()].concat();
    let rows: [(&str, Vec<u8>); 41] = [
        ("a control character", with_note(b"\"a\x01b\"")),
        ("a line feed in a string", with_note(b"\"a\nb\"")),
        ("a NUL in a string", with_note(b"\"\0\"")),
        ("NaN", with_note(b"NaN")),
        ("Infinity", with_note(b"[Infinity,-Infinity]")),
        ("a negative NaN", with_note(b"-NaN")),
        ("words of other languages", with_note(b"[nan,+inf,-1.#IND,undefined,None,True]")),
        ("numbers in other spellings", with_note(b"[007,.5,1.,+1,0x1F,1_000]")),
        ("an unknown escape", with_note(br#""it\'s \x41\q""#)),
        ("a short escape", with_note(br#""\u12""#)),
        ("an escaped line feed", with_note(b"\"a\\\nb\"")),
        ("half a surrogate pair", with_note(br#""\ud83d""#)),
        ("bytes that are not UTF-8", with_note(b"\"caf\xe9 \xed\xa0\xbd\"")),
        ("text in single quotes", with_note(b"'N'")),
        ("a comma after the last element", with_note(b"[1,]")),
        ("a comma after the last member", [&plain[..plain.len() - 1], &b",}"[..]].concat()),
        ("a control character between tokens", with_note(b"\x01\"N\"\x0b\x0c")),
        ("a NUL between tokens", with_note(b"\0\"N\"")),
        ("a NUL after the first bracket", [&b"{\0"[..], &plain[1..]].concat()),
        ("a leading NUL", [&b"\0"[..], plain].concat()),
        ("a record separator", [&b"\x1e"[..], plain, &b"\n"[..]].concat()),
        ("two byte order marks", [&b"\xef\xbb\xbf\xef\xbb\xbf"[..], plain].concat()),
        ("a byte order mark after a line feed", [&b"\n\xef\xbb\xbf"[..], plain].concat()),
        ("a leading line", [&b"\r\n \t"[..], plain].concat()),
        ("one bracket too many", [plain, &b"}"[..]].concat()),
        ("a name twice", [&b"{\"id\":\"evt_0\","[..], &plain[1..]].concat()),
        ("a number of 70 bits", with_note(b"1180591620717411303424")),
        ("a number beyond floating point", with_note(b"-1e999")),
        ("a second line", [plain, &b"\n{\"id\":\"evt_2\",\"type\":\"other\"}\n"[..]].concat()),
        ("a second value", [plain, &b" [1]"[..]].concat()),
        ("a second line that is cut", [plain, &b"\n{\"id\":\"ev"[..]].concat()),
        ("a trailing NUL", [plain, &b"\0"[..]].concat()),
        ("trailing bytes", [plain, &b"\r\n\x1a\xff"[..]].concat()),
        ("a byte order mark", [&b"\xef\xbb\xbf"[..], plain].concat()),
        ("UTF-16LE with its mark", little(b"\xff\xfe")),
        ("UTF-16BE with its mark", big(b"\xfe\xff")),
        ("UTF-16LE", little(b"")),
        ("UTF-16BE", big(b"")),
        ("UTF-16LE after a line feed", little(b"\n\0")),
        ("UTF-16LE and an odd byte", [little(b"\xff\xfe"), vec![b'\n']].concat()),
        ("UTF-16BE and a trailing NUL", [big(b""), vec![0, 0]].concat()),
    ];
    let source = provider("stripe");
    let expected = verify_body(&source, plain).identity;
    for (what, body) in rows {
        let Verified { event, identity, .. } = verify_body(&source, &body);
        let facts = (event.id(), event.event_type(), event.ordering_key());
        assert_eq!(facts, (Some("evt_1"), Some("invoice.paid"), Some("in_1")), "{what}");
        assert_eq!((event.body(), &identity), (&body.into(), &expected), "{what}");
    }
}

#[test]
fn two_texts_never_become_one_id() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let half = |unit: u16| [utf16("{\"id\":\"a"), unit.to_le_bytes().to_vec(), utf16("\"}")].concat();
    assert_eq!((id(&half(0xd83d)), id(&half(0xde00))), (None, None), "half a surrogate pair is no text");
    assert_eq!(id(&utf16("{\"id\":\"\u{1f600}\"}")).as_deref(), Some("\u{1f600}"));
    assert_eq!(id(&utf16("{\"id\":\"\\ud83d\\ude00\"}")).as_deref(), Some("\u{1f600}"));
    let numbers = ["18446744073709551615", "18446744073709551616", "18446744073709551617", "-18446744073709551616"];
    for number in numbers {
        assert_eq!(id(format!("{{\"id\":{number}}}").as_bytes()).as_deref(), Some(number));
    }
    for other_spelling in ["18446744073709551616.0", "1.8446744073709551616e19", "018446744073709551616", "+1", "-0", "1e2"] {
        assert_eq!(id(format!("{{\"id\":{other_spelling}}}").as_bytes()), None, "{other_spelling}");
    }
    assert_eq!(id(b"{\"id\":\"evt\n1\"}").as_deref(), Some("evt\n1"));
    assert_eq!(id(b"{\"id\":\"evt\\n1\"}").as_deref(), Some("evt\n1"), "an escape is another spelling of the same text");
    assert_eq!(id(b"{\"id\":\"evt\x001\"}").as_deref(), Some("evt\u{0}1"));
}

#[test]
fn deep_nesting_neither_overflows_nor_hides_an_id() {
    let depth = 200_000;
    let nested = format!(r#"{{"deep":{}{},"id":"evt_1"}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(id(nested.as_bytes()).as_deref(), Some("evt_1"));
    assert_eq!(id("[".repeat(depth).as_bytes()), None);
    assert_eq!(id(r#"{"id":"#.repeat(depth).as_bytes()), None);
    assert_eq!(id(r#"{"data":"#.repeat(depth).as_bytes()), None);
}

#[test]
fn a_later_alternative_is_used_only_without_earlier_ones() {
    let key = |body: &str| verify_body(&provider("stripe"), body.as_bytes()).event.ordering_key().map(str::to_owned);
    assert_eq!(key(r#"{"related_object":{"id":"b"},"data":{"object":{"id":"a"}}}"#).as_deref(), Some("a"));
    assert_eq!(key(r#"{"related_object":{"id":"b"},"data":{"object":7}}"#).as_deref(), Some("b"));
    assert_eq!(key(r#"{"related_object":"b"}"#), None);
}

#[test]
fn a_source_can_name_its_own_ordering_key() {
    let source = source("stripe", "whsec_test", "key = [\"json:/items/1/account\", \"json:/account\"]");
    let key = |body: &str| verify_body(&source, body.as_bytes()).event.ordering_key().map(str::to_owned);
    assert_eq!(key(r#"{"account":"acct_1","data":{"object":{"id":"in_1"}}}"#).as_deref(), Some("acct_1"));
    assert_eq!(key(r#"{"account":"acct_1","items":[{},{"account":"acct_2"},{}]}"#).as_deref(), Some("acct_2"));
}

#[test]
fn a_fact_needs_all_of_its_fields() {
    let source = inline(&format!("{INLINE}event = {{ id = [[\"json:/shop\", \"json:/n\"]] }}"));
    let verified = verify_body(&source, br#"{"n":7,"shop":"a.b"}"#);
    assert_eq!(verified.event.id(), Some("a.b.7"));
    assert_eq!(verified.identity, Identity::Id { alternative: 0, fields: vec!["a.b".into(), "7".into()], body_sha256: None });
    assert_eq!(verify_body(&source, br#"{"n":7}"#).identity, Identity::Keyless);
}

/// Checks that the identity of an event includes the location of the id: order 17 and invoice 17 are different events. The name
/// of the header that contains the id is not part of the identity if the signature covers the text of the id.
#[test]
fn the_location_of_an_id_is_part_of_it() {
    let source = inline(&format!("{INLINE}event = {{ id = [\"json:/order\", \"json:/invoice\"] }}"));
    let [order, invoice] = [&br#"{"order":17}"#[..], br#"{"invoice":17}"#].map(|body| verify_body(&source, body));
    assert_eq!((order.event.id(), invoice.event.id()), (Some("17"), Some("17")));
    assert_ne!(order.identity, invoice.identity);
    let svix = provider("svix");
    let delivery = sample(&svix, None);
    let mut moved = delivery.clone();
    for name in ["id", "timestamp", "signature"] {
        let value = moved.headers.remove(format!("svix-{name}")).expect("a header of svix");
        moved.headers.insert(http::HeaderName::try_from(format!("webhook-{name}")).expect("a name"), value);
    }
    let [one, two] = [&delivery, &moved].map(|delivery| verify(&svix, delivery).expect("genuine").identity);
    assert_eq!(one, two, "a replay under other names is a duplicate");
}

#[test]
fn a_body_that_is_not_json_is_a_form() {
    let source = inline(&format!("{INLINE}event = {{ id = \"form:id\", type = [\"json:/kind\", \"form-json:payload/a/1\"] }}"));
    let facts = |body: &[u8]| {
        let event = verify_body(&source, body).event;
        (event.id().map(str::to_owned), event.event_type().map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(facts(b"id=a+b%2B%26%C3%A9&x"), (some("a b+&\u{e9}"), None));
    assert_eq!(facts(b"payload=%7B%22a%22%3A%5B0%2C%22%5Cu00e9%22%5D%7D&i%64=1"), (some("1"), some("\u{e9}")));
    assert_eq!(facts(b"id=first&id=second"), (some("first"), None), "the first is used, as with headers");
    assert_eq!(facts(br#"{"kind":"k","text":"&id=1&"}"#), (None, some("k")), "text inside JSON is not a field");
    for without in ["", "id", "id=", "ID=1", "id=%ff", "&&=&", "id=%EF%BF%BD", "payload={&payload={\"a\":[0,1]}"] {
        assert_eq!(facts(without.as_bytes()), (None, None), "{without}");
    }
    let long = format!("id={}", "%78".repeat(513));
    assert_eq!((facts(long.as_bytes()), facts(&long.as_bytes()[..1539])), ((None, None), (Some("x".repeat(512)), None)));
}

/// Checks a body whose parts are the fields of a form. The content type, which is not signed, has no effect.
#[test]
fn the_parts_of_a_multipart_body_are_form_fields() {
    let source = inline(&format!(
        "{INLINE}event = {{ id = [\"form:id\", \"form-json:json/event/hash\"], type = \"form-json:json/event/type\" }}"
    ));
    let facts = |body: &str| {
        let event = verify_body(&source, body.as_bytes()).event;
        (event.id().map(str::to_owned), event.event_type().map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    let field = |name: &str, more: &str, value: &str| {
        format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{value}\r\n")
    };
    let json = field("json", "", "{\"event\":{\"hash\":\"h+1\",\"type\":\"sent\"}}\0");
    assert_eq!(facts(&format!("{json}--X--\r\n")), (some("h+1"), some("sent")));
    assert_eq!(facts(&format!("{}{json}--X--", field("id", "", "a+b%2B"))), (some("a+b%2B"), some("sent")));
    let file = field("id", "; filename=\"id.txt\"", "a");
    assert_eq!(facts(&format!("{file}{json}--X--")), (some("h+1"), some("sent")), "a file is no field");
    assert_eq!(facts(&format!("{}{}--X--", field("id", "", "1"), field("id", "", "2"))), (some("1"), None), "the first is used");
    assert_eq!(facts(&format!("{}{json}--X--", field("id", "", ""))), (some("h+1"), some("sent")), "an empty id is no id");
    assert_eq!(facts(&json), (None, None), "a part without its end may be cut");
    let invalid = verify_body(&source, b"--X\r\nContent-Disposition: form-data; name=id\r\n\r\n\xff\r\n--X--");
    assert_eq!(invalid.event.id(), None);
    assert_eq!(facts("--x=1&id=2"), (some("2"), None), "a form whose first name begins with hyphens");
}

#[test]
fn an_unsigned_id_is_bound_to_the_body() {
    let github = provider("github");
    let bound = |body: &[u8]| match verify_body(&github, body).identity {
        Identity::Id { alternative: 0, fields, body_sha256: Some(hash) } if fields == ["id-1"] => hash,
        other => panic!("{other:?}"),
    };
    assert_ne!(bound(b"{}"), bound(b"{ }"));
    assert_eq!(github.recipe.coverage().integrity, Integrity::Body);
    for name in ["stripe", "slack", "standard-webhooks", "svix"] {
        let source = provider(name);
        let identity = verify(&source, &sample(&source, None)).expect(name).identity;
        assert!(matches!(identity, Identity::Id { body_sha256: None, .. }), "{name}: {identity:?}");
        assert_eq!(source.recipe.coverage().integrity, Integrity::Full, "{name}");
    }
}

#[test]
fn without_id_only_an_exact_replay_is_a_duplicate() {
    let source = inline(&format!("{INLINE_TIMED}timestamp = {{ from = \"header:Acme-Time\", unit = \"s\" }}"));
    let one = verify(&source, &sample(&source, None)).expect("genuine").identity;
    let mut later = hookhold::verify::sign::SampleOptions {
        id: String::new(),
        event_type: None,
        key: None,
        now: hookhold::clock::UnixMillis(NOW * 1000),
        tamper: None,
    };
    later.now.0 += 1000;
    let signed = hookhold::verify::sign::sign(&source, None, &later).expect("the source has a secret");
    let two = hookhold::event::Delivery { headers: signed.headers, ..delivery(signed.body, &[]) };
    assert!(matches!(one, Identity::SignedContent(_)), "{one:?}");
    assert_eq!(verify(&source, &sample(&source, None)).expect("genuine").identity, one);
    assert_ne!(verify(&source, &two).expect("genuine").identity, one);
}

#[test]
fn without_id_and_time_no_delivery_is_a_duplicate() {
    assert_eq!(verify_body(&inline(INLINE), b"{}").identity, Identity::Keyless);
    let opted = inline(&format!("{INLINE}dedupe = {{ body = \"10m\" }}"));
    let Identity::BodyWindow(hash, window) = verify_body(&opted, b"{}").identity else { panic!("the operator opted in") };
    // printf '{}' | sha256sum
    assert_eq!(base16ct::lower::encode_string(&hash), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    assert_eq!(window, Duration::from_secs(600));
    let bodies_only = source("github", "x", "dedupe = { body = \"10m\" }\nevent = { id = [] }");
    assert!(matches!(verify_body(&bodies_only, b"{}").identity, Identity::BodyWindow(..)));
}

/// Checks deliveries whose recipe names an id that the body lacks. The verifier then uses the signed content if this content
/// contains a time, else the body if the operator sets `dedupe.body`, else nothing.
#[test]
fn a_missing_id_falls_back_in_a_fixed_order() {
    let event = "event = { id = \"json:/id\" }";
    let timed = inline(&format!("{INLINE_TIMED}timestamp = {{ from = \"header:Acme-Time\", unit = \"s\" }}\n{event}"));
    let replay = sample_of(&timed, Some(b"{}"), None);
    let [one, two] = [0, 1].map(|_| verify(&timed, &replay).expect("genuine").identity);
    assert!(matches!(one, Identity::SignedContent(_)) && one == two, "{one:?}");
    let untimed = inline(&format!("{INLINE}{event}"));
    assert_eq!(verify_body(&untimed, b"{}").identity, Identity::Keyless);
    let opted = inline(&format!("{INLINE}{event}\ndedupe = {{ body = \"10m\" }}"));
    assert!(matches!(verify_body(&opted, b"{}").identity, Identity::BodyWindow(_, window) if window.as_secs() == 600));
    assert!(matches!(verify_body(&opted, br#"{"id":1}"#).identity, Identity::Id { .. }));
    let error = compile("provider = \"slack\"\ndedupe = { body = \"10m\" }", &[("secret", "x")]).expect_err("no effect");
    let expected = "hookhold.toml:3: dedupe.body: expected a recipe without event.id or without a signed timestamp, found a recipe \
                    with both, which never compares bodies; remove dedupe.body or add event.id = []";
    assert!(error.to_string().starts_with(expected), "{error}");
    let github = source("github", "x", "dedupe = { body = \"10m\" }");
    let mut without_id = sample(&github, None);
    without_id.headers.remove("x-github-delivery");
    assert!(matches!(verify(&github, &without_id).expect("genuine").identity, Identity::BodyWindow(..)));
}

/// Checks a signature over a time and one value in the body. Two deliveries in the same second are two events.
#[test]
fn a_replay_includes_the_body_that_the_proof_omits() {
    let recipe = INLINE_TIMED.replace("\"body\"", "\"json:/shop\"");
    let source = inline(&format!("{recipe}timestamp = {{ from = \"header:Acme-Time\", unit = \"s\" }}"));
    let identity = |body: &[u8]| verify_body(&source, body).identity;
    let [one, two] = [&br#"{"shop":1,"n":1}"#[..], br#"{"shop":1,"n":2}"#].map(identity);
    assert!(matches!(one, Identity::SignedContent(_)) && one == identity(br#"{"shop":1,"n":1}"#), "{one:?}");
    assert_ne!(one, two);
}

#[test]
fn headers_are_stored_in_order_without_credentials() {
    let source = provider("github");
    let mut delivery = sample(&source, None);
    for (name, value) in [("authorization", "Bearer x"), ("cookie", "a=b"), ("x-many", "1"), ("x-many", "2")] {
        delivery.headers.append(name, http::HeaderValue::from_static(value));
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    set(&mut delivery, "traceparent", trace);
    let event = verify(&source, &delivery).expect("genuine").event;
    let names: Vec<&str> = event.request().headers.iter().map(|(name, _)| name.as_str()).collect();
    let sent = ["x-github-event", "x-github-delivery", "x-github-hook-id", "user-agent", "content-type", "x-hub-signature-256"];
    assert_eq!(names, [&sent[..], &["x-many", "x-many", "traceparent"]].concat());
    assert_eq!(event.request().headers[7].1, "2");
    assert_eq!(event.request().traceparent.as_deref(), Some(trace));
}

#[test]
fn an_event_records_its_source_and_its_request() {
    let source = provider("stripe");
    let delivery = sample(&source, None);
    let event = verify(&source, &delivery).expect("genuine").event;
    assert_eq!((event.source(), &**event.topic(), event.type_prefix()), ("shop", "webhooks.shop", "com.stripe."));
    assert_eq!(
        (&*event.request().method, &*event.request().target, event.request().remote),
        ("POST", "/hooks/shop", delivery.remote)
    );
    assert_eq!((event.received_at(), event.dedupe_key()), (delivery.received_at, None));
    assert_eq!(event.occurred_at().map(|time| time.0), Some(NOW * 1000));
}

#[test]
fn a_placeholder_is_no_id() {
    let source = inline(&format!(
        "{INLINE}event = {{ id = [[\"json:/order\", \"json:/version\"], \"json:/id\", \"json:/other\"], \
         placeholder_ids = [\"test\", \"*_0000\", \"17.0\"] }}"
    ));
    let id = |body: &str| verify_body(&source, body.as_bytes()).event.id().map(str::to_owned);
    for placeholder in ["test", "evt_0000", "_0000", "charge.expired_0000"] {
        assert_eq!(id(&format!(r#"{{"id":"{placeholder}"}}"#)), None, "{placeholder}");
        let body = format!(r#"{{"id":"{placeholder}","other":"1"}}"#);
        assert_eq!(id(&body), None, "the next locator may read an unsigned text");
        assert_eq!(verify_body(&source, body.as_bytes()).identity, Identity::Keyless);
    }
    for genuine in ["test1", "a test", "evt_00000", "evt_0000 ", "0000", "17.0.0"] {
        assert_eq!(id(&format!(r#"{{"id":"{genuine}"}}"#)).as_deref(), Some(genuine));
    }
    assert_eq!(id(r#"{"order":17,"version":1,"id":"x"}"#).as_deref(), Some("17.1"));
    assert_eq!(id(r#"{"order":17,"version":0,"id":"x"}"#), None, "the fields are joined with a dot");
}

#[test]
fn an_invalid_list_of_placeholders_is_reported() {
    let report = |event: &str| compile_alone(&format!("{INLINE}event = {{ {event} }}")).expect_err(event).to_string();
    for list in ["[\"\"]", "[\"*\"]", "[\"evt*\"]", "[\"**\"]", "[7]"] {
        let diagnostics = report(&format!("id = \"json:/id\", placeholder_ids = {list}"));
        assert!(diagnostics.contains("event.placeholder_ids") && diagnostics.contains("expected an id such as"), "{diagnostics}");
    }
    assert!(report("placeholder_ids = [\"test\"]").contains("expected a recipe with event.id"));
    let list = |count: usize| format!("id = \"json:/id\", placeholder_ids = [{}]", "\"test\",".repeat(count));
    assert!(report(&list(33)).contains("expected at most 32 ids, found 33; remove some"));
    inline(&format!("{INLINE}event = {{ {} }}", list(32)));
}
