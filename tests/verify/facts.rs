//! What is found in a believed delivery: id, type, ordering key, time, identity and headers.

use std::time::Duration;

use hookhold::event::Integrity;
use hookhold::source::Source;
use hookhold::verify::{Identity, Verified};

use crate::support::*;

fn believed(source: &Source, body: &[u8]) -> Verified {
    let delivery = sample_of(source, Some(body), None);
    verify(source, &delivery).unwrap_or_else(|refusal| panic!("{}: {refusal}", String::from_utf8_lossy(body)))
}

fn id(body: &[u8]) -> Option<String> {
    believed(&provider("stripe"), body).event.id().map(str::to_owned)
}

#[test]
fn an_id_is_found_wherever_json_permits_it() {
    assert_eq!(id(br#"{"a":[{"id":1}],"id":"evt_1"}"#).as_deref(), Some("evt_1"));
    assert_eq!(id(b" {\r\n\t\"id\" : \"evt_1\" } \n").as_deref(), Some("evt_1"));
    assert_eq!(id(br#"{"\u0069\u0064":"\u00e9\ud83d\ude00\n"}"#).as_deref(), Some("\u{e9}\u{1f600}\n"));
    assert_eq!(id(b"{\"\xff\":\"\xff\",\"id\":\"evt_1\"}").as_deref(), Some("evt_1"), "bytes beside it do no harm");
    assert_eq!(id(br#"{"x":"\ud800","id":"evt_1"}"#).as_deref(), Some("evt_1"), "half a surrogate beside it does no harm");
    assert_eq!(id(br#"{"id":"first","id":"last"}"#).as_deref(), Some("last"));
    assert_eq!(id(br#"{"id":18446744073709551615}"#).as_deref(), Some("18446744073709551615"));
    assert_eq!(id(br#"{"id":-7}"#).as_deref(), Some("-7"));
}

#[test]
fn one_odd_value_is_one_fact_less_and_costs_no_other() {
    for odd in [&br#""\ud83d""#[..], br#""\ude00 text""#, b"\"caf\xe9\"", b"1e400", b"-0", b"1E999"] {
        let places =
            [b"{\"type\":", odd, b",\"id\":\"evt_1\",\"data\":", odd, b",\"related_object\":{\"id\":\"key-1\"}}"].concat();
        let event = believed(&provider("stripe"), &places).event;
        let facts = (event.id(), event.event_type(), event.ordering_key());
        assert_eq!(facts, (Some("evt_1"), None, Some("key-1")), "{}", String::from_utf8_lossy(odd));
    }
    assert_eq!(id(b"\xef\xbb\xbf{\"id\":\"evt_1\"}").as_deref(), Some("evt_1"), "behind a byte order mark");
    assert_eq!(believed(&provider("stripe"), b"\xef\xbb\xbf{}").event.body(), &b"\xef\xbb\xbf{}"[..], "which is signed and kept");
}

#[test]
fn what_is_no_id_is_absent_and_the_delivery_is_kept_but_never_a_repeat() {
    let source = provider("stripe");
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
        br#"{"id":18446744073709551616}"#,
        br#"{"id":"evt_1","id":null}"#,
        br#"{"id":"evt_1""#,
        br#"{"id":"evt_1"} {}"#,
        br#"{"id":"evt_1",}"#,
        br#"{"id":"evt_1" "x":1}"#,
        br#"{"id" "evt_1"}"#,
        br#"{id:"evt_1"}"#,
        br#"{"id":"evt_1"]"#,
        br#"{"id":"evt_1","x":01}"#,
        br#"{"id":"evt_1","x":tru}"#,
        br#"{"id":"evt_1","x":"\q"}"#,
        b"{\"id\":\"evt\n1\"}",
        b"\xef\xbb\xbf\xef\xbb\xbf{\"id\":\"evt_1\"}",
        b"{\"id\":\"\xff\"}",
        long.as_bytes(),
    ];
    for body in without {
        let verified = believed(&source, body);
        assert_eq!(verified.event.id(), None, "{}", String::from_utf8_lossy(body));
        assert_eq!(verified.identity, Identity::Keyless);
        assert_eq!(verified.event.body(), *body);
    }
    let longest = format!(r#"{{"id":"{}"}}"#, "x".repeat(512));
    assert_eq!(id(longest.as_bytes()).map(|id| id.len()), Some(512));
}

#[test]
fn nesting_of_any_depth_neither_overflows_nor_hides_what_stands_beside_it() {
    let depth = 200_000;
    let nested = format!(r#"{{"deep":{}{},"id":"evt_1"}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(id(nested.as_bytes()).as_deref(), Some("evt_1"));
    assert_eq!(id("[".repeat(depth).as_bytes()), None);
    assert_eq!(id(r#"{"id":"#.repeat(depth).as_bytes()), None);
    assert_eq!(id(r#"{"data":"#.repeat(depth).as_bytes()), None);
}

#[test]
fn a_later_place_counts_only_where_an_earlier_one_is_absent() {
    let key = |body: &str| believed(&provider("stripe"), body.as_bytes()).event.ordering_key().map(str::to_owned);
    assert_eq!(key(r#"{"related_object":{"id":"b"},"data":{"object":{"id":"a"}}}"#).as_deref(), Some("a"));
    assert_eq!(key(r#"{"related_object":{"id":"b"},"data":{"object":7}}"#).as_deref(), Some("b"));
    assert_eq!(key(r#"{"related_object":"b"}"#), None);
}

#[test]
fn a_source_may_name_its_own_ordering_key() {
    let source = source("stripe", "whsec_test", "key = [\"json:/items/1/account\", \"json:/account\"]");
    let key = |body: &str| believed(&source, body.as_bytes()).event.ordering_key().map(str::to_owned);
    assert_eq!(key(r#"{"account":"acct_1","data":{"object":{"id":"in_1"}}}"#).as_deref(), Some("acct_1"));
    assert_eq!(key(r#"{"account":"acct_1","items":[{},{"account":"acct_2"},{}]}"#).as_deref(), Some("acct_2"));
}

#[test]
fn fields_of_one_fact_are_all_needed() {
    let source = inline(&format!("{INLINE}event = {{ id = [[\"json:/shop\", \"json:/n\"]] }}"));
    let verified = believed(&source, br#"{"n":7,"shop":"a.b"}"#);
    assert_eq!(verified.event.id(), Some("a.b.7"));
    assert_eq!(verified.identity, Identity::Id { alternative: 0, fields: vec!["a.b".into(), "7".into()], body_sha256: None });
    assert_eq!(believed(&source, br#"{"n":7}"#).identity, Identity::Keyless);
}

/// Order 17 is not invoice 17, but an id that is signed by its text is the same in whichever header it stands.
#[test]
fn the_place_of_an_id_belongs_to_it_unless_its_text_alone_is_signed() {
    let source = inline(&format!("{INLINE}event = {{ id = [\"json:/order\", \"json:/invoice\"] }}"));
    let [order, invoice] = [&br#"{"order":17}"#[..], br#"{"invoice":17}"#].map(|body| believed(&source, body));
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
    assert_eq!(one, two, "a replay under other names is a repeat");
}

#[test]
fn a_form_is_read_like_json_where_the_body_is_none() {
    let source = inline(&format!("{INLINE}event = {{ id = \"form:id\", type = [\"json:/kind\", \"form-json:payload/a/1\"] }}"));
    let told = |body: &[u8]| {
        let event = believed(&source, body).event;
        (event.id().map(str::to_owned), event.event_type().map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(told(b"id=a+b%2B%26%C3%A9&x"), (some("a b+&\u{e9}"), None));
    assert_eq!(told(b"payload=%7B%22a%22%3A%5B0%2C%22%5Cu00e9%22%5D%7D&i%64=1"), (some("1"), some("\u{e9}")));
    assert_eq!(told(b"id=first&id=second"), (some("first"), None), "the first counts, as with headers");
    assert_eq!(told(br#"{"kind":"k","text":"&id=1&"}"#), (None, some("k")), "text inside JSON is no field");
    for without in ["", "id", "id=", "ID=1", "id=%ff", "&&=&", "id=%EF%BF%BD", "payload={&payload={\"a\":[0,1]}"] {
        assert_eq!(told(without.as_bytes()), (None, None), "{without}");
    }
    let long = format!("id={}", "%78".repeat(513));
    assert_eq!((told(long.as_bytes()), told(&long.as_bytes()[..1539])), ((None, None), (Some("x".repeat(512)), None)));
}

#[test]
fn an_id_outside_the_signed_bytes_is_bound_to_the_body() {
    let github = provider("github");
    let bound = |body: &[u8]| match believed(&github, body).identity {
        Identity::Id { alternative: 0, fields, body_sha256: Some(hash) } if fields == ["id-1"] => hash,
        other => panic!("{other:?}"),
    };
    assert_ne!(bound(b"{}"), bound(b"{ }"));
    assert_eq!(github.recipe.coverage.integrity, Integrity::Body);
    for name in ["stripe", "slack", "standard-webhooks", "svix"] {
        let source = provider(name);
        let identity = verify(&source, &sample(&source, None)).expect(name).identity;
        assert!(matches!(identity, Identity::Id { body_sha256: None, .. }), "{name}: {identity:?}");
        assert_eq!(source.recipe.coverage.integrity, Integrity::Full, "{name}");
    }
}

#[test]
fn without_an_id_only_an_exact_replay_of_a_signed_time_is_a_repeat() {
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
    let signed = hookhold::verify::sign::sign(&source, None, &later);
    let two = hookhold::event::Delivery { headers: signed.headers, ..delivery(signed.body, &[]) };
    assert!(matches!(one, Identity::SignedContent(_)), "{one:?}");
    assert_eq!(verify(&source, &sample(&source, None)).expect("genuine").identity, one);
    assert_ne!(verify(&source, &two).expect("genuine").identity, one);
}

#[test]
fn without_id_and_time_nothing_is_a_repeat_unless_the_operator_says_so() {
    assert_eq!(believed(&inline(INLINE), b"{}").identity, Identity::Keyless);
    let opted = inline(&format!("{INLINE}dedupe = {{ body = \"10m\" }}"));
    let Identity::BodyWindow(hash, window) = believed(&opted, b"{}").identity else { panic!("the operator opted in") };
    // printf '{}' | sha256sum
    assert_eq!(base16ct::lower::encode_string(&hash), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    assert_eq!(window, Duration::from_secs(600));
    let beside_an_id = compile("provider = \"github\"\ndedupe = { body = \"10m\" }", &[("secret", "x")]).expect_err("no effect");
    let expected = "hookhold.toml:3: dedupe.body: this recipe names an id, and by that alone is a delivery a repeat; allowed: ";
    assert!(beside_an_id.to_string().starts_with(expected), "{beside_an_id}");
    let bodies_only = source("github", "x", "dedupe = { body = \"10m\" }\nevent = { id = [] }");
    assert!(matches!(believed(&bodies_only, b"{}").identity, Identity::BodyWindow(..)));
}

#[test]
fn headers_are_kept_in_order_but_for_those_that_could_be_used_again() {
    let source = provider("github");
    let mut delivery = sample(&source, None);
    for (name, value) in [("authorization", "Bearer x"), ("cookie", "a=b"), ("x-many", "1"), ("x-many", "2")] {
        delivery.headers.append(name, http::HeaderValue::from_static(value));
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    set(&mut delivery, "traceparent", trace);
    let event = verify(&source, &delivery).expect("genuine").event;
    let names: Vec<&str> = event.request().headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["x-github-delivery", "x-github-event", "content-type", "x-hub-signature-256", "x-many", "x-many", "traceparent"];
    assert_eq!(names, expected);
    assert_eq!(event.request().headers[5].1, "2");
    assert_eq!(event.request().traceparent.as_deref(), Some(trace));
}

#[test]
fn an_event_says_where_it_came_from() {
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
