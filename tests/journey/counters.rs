//! Tests that each delivery increments exactly one counter by one, and that hookhold forwards only genuine deliveries to
//! Kafka.

use std::collections::BTreeMap;

use crate::kafka;
use crate::process::{Answer, Home, Line, Process, post, wait_until};
use crate::scheme::{ACME, GITHUB, Provider, SHOPIFY, SHOPIFY_EVENTS, SLACK, STANDARD_WEBHOOKS, STRIPE, SVIX, Scheme, now};

#[test]
fn each_stripe_delivery_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&STRIPE), 12);
}

#[test]
fn each_github_delivery_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&GITHUB), 10, "GitHub signs no time");
}

#[test]
fn each_slack_delivery_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&SLACK), 12);
}

#[test]
fn each_standard_webhooks_delivery_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&STANDARD_WEBHOOKS), 12);
}

#[test]
fn each_svix_delivery_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&SVIX), 12);
}

#[test]
fn each_shopify_delivery_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&SHOPIFY), 10, "Shopify signs no time");
}

#[test]
fn each_shopify_event_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&SHOPIFY_EVENTS), 10, "Shopify signs no time");
}

#[test]
fn each_inline_recipe_delivery_moves_its_own_counter() {
    assert_eq!(each_moves_its_own_counter(&ACME), 12);
}

/// Sends the signed examples that providers publish. hookhold must accept GitHub's example, because GitHub signs no timestamp.
/// hookhold must reject the other examples as stale: their signatures are genuine, but their timestamps are from 2018 and 2021.
#[test]
fn published_examples_verify_except_for_their_age() {
    let kafka = kafka::shared();
    kafka.create_topic("published", 1, &[]);
    let github = [
        ("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
        ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-GitHub-Event", "push"),
    ];
    let message = ["msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="];
    let [standard_webhooks, svix] = ["webhook", "svix"].map(|prefix| {
        let names = ["id", "timestamp", "signature"].map(|name| format!("{prefix}-{name}"));
        names.into_iter().zip(message.map(str::to_owned)).collect::<Vec<_>>()
    });
    let slack = [
        ("X-Slack-Request-Timestamp", "1531420618"),
        ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    ];
    let fields = |headers: &[(&str, &str)]| headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let examples: [(_, Vec<_>, _, _, _); 4] = [
        (&GITHUB, fields(&github), "Hello, World!", 200, "stored"),
        (&SLACK, fields(&slack), COMMAND, 401, "timestamp_stale"),
        (&STANDARD_WEBHOOKS, standard_webhooks, "{\"test\": 2432232314}", 401, "timestamp_stale"),
        (&SVIX, svix, "{\"test\": 2432232314}", 401, "timestamp_stale"),
    ];
    for (scheme, headers, body, status, outcome) in examples {
        let home = scheme.home(kafka, "published", "");
        let process = home.start();
        let (moved, answer) = moved_by(&home, &process, &post(&scheme.path(), &headers, body.as_bytes()));
        assert_eq!((answer.status, moved), (status, one(scheme.name, outcome)));
        wait_until("stored deliveries are forwarded", || {
            process.metric("hookhold_forward_acked_total{topic=\"published\"}").unwrap_or(0.0)
                == f64::from(u8::from(status == 200))
        });
    }
    let values: Vec<_> = kafka.records("published").into_iter().filter_map(|record| record.value).collect();
    assert_eq!(values, [b"Hello, World!"]);
}

/// Name, request, expected status and expected outcome of a delivery.
type Named = (&'static str, Vec<u8>, u16, &'static str);

fn each_moves_its_own_counter(scheme: &'static Scheme) -> usize {
    let (kafka, topic) = (kafka::shared(), format!("counted-{}", scheme.name));
    kafka.create_topic(&topic, 1, &[]);
    let home = scheme.home(kafka, &topic, "max_body = \"4 KiB\"");
    let process = home.start();
    let mut provider = Provider::new(scheme);
    let deliveries = deliveries(scheme, &mut provider);
    for (what, request, status, outcome) in &deliveries {
        let (moved, answer) = moved_by(&home, &process, request);
        assert_eq!(answer.status, *status, "{what}");
        let source = if ["unknown_source", "bad_request"].contains(outcome) { "-" } else { scheme.name };
        assert_eq!(moved, one(source, outcome), "{what}");
        let logged = format!("outcome=\"{outcome}\"");
        assert!(ACCEPTED.contains(outcome) || home.log().contains(&logged), "{what}: the log shows the outcome:\n{}", home.log());
    }

    let genuine = scheme.body("genuine", b"");
    let marker = provider.sign("marker", now(), scheme.body("marker", b""));
    assert_eq!(Line::open(home.hooks).ask(&marker.request(scheme)).status, scheme.reply.0);
    let records = kafka.wait_for_records(&topic, 2);
    let values: Vec<_> = records.into_iter().filter_map(|record| record.value).collect();
    assert_eq!(values, [genuine, marker.body], "only stored deliveries are forwarded");
    deliveries.len()
}

/// Returns the expected changes of the delivery counters after one delivery: the counter for `source` and `outcome` increases
/// by one, and no other counter changes.
pub fn one(source: &str, outcome: &str) -> BTreeMap<(String, String), u64> {
    BTreeMap::from([((source.to_owned(), outcome.to_owned()), 1)])
}

/// Sends one delivery on a new connection. Returns the increase of every delivery counter that has increased, and the response.
pub fn moved_by(home: &Home, process: &Process<'_>, request: &[u8]) -> (BTreeMap<(String, String), u64>, Answer) {
    let before = process.deliveries();
    let answer = Line::open(home.hooks).ask(request);
    if answer.status >= 400 {
        assert_eq!(answer.body, b"", "a rejection explains nothing to the sender");
    }
    let mut moved = BTreeMap::new();
    wait_until("a counter has moved", || {
        let after = process.deliveries();
        assert!(before.keys().all(|series| after.contains_key(series)), "a counter has disappeared");
        let differences = after.into_iter().map(|(series, count)| {
            let difference = count - before.get(&series).copied().unwrap_or(0);
            (series, difference)
        });
        moved = differences.filter(|(_, difference)| *difference != 0).collect();
        !moved.is_empty()
    });
    (moved, answer)
}

fn deliveries(scheme: &'static Scheme, provider: &mut Provider) -> Vec<Named> {
    let body = || scheme.body("genuine", b"");
    let ok = scheme.reply.0;
    let genuine = provider.sign("genuine", now(), body());
    let tampered = genuine.clone().map_body(|body| *body.last_mut().expect("not empty") = b' ');
    let forged = provider.sign_with(scheme.wrong_secret, "forged", now(), body());
    let unsigned = genuine.clone().without(scheme.signature);
    let garbled = unsigned.clone().with(scheme.signature, scheme.unreadable);
    let large = provider.sign("large", now(), scheme.body("large", &[b'x'; 4096]));
    let request = genuine.request(scheme);
    let replaced = |from: &str, to: &str| {
        let text = String::from_utf8(request.clone()).expect("plain JSON");
        assert!(text.contains(from));
        text.replacen(from, to, 1).into_bytes()
    };
    let mut deliveries = vec![
        ("genuine", request.clone(), ok, "stored"),
        ("the same again", request.clone(), ok, "duplicate"),
        ("a tampered body", tampered.request(scheme), 401, "signature_mismatch"),
        ("signed with the wrong secret", forged.request(scheme), 401, "signature_mismatch"),
        ("without its signature", unsigned.request(scheme), 401, "signature_missing"),
        ("with an unreadable signature", garbled.request(scheme), 401, "signature_malformed"),
        ("for an unknown path", replaced("POST /hooks/", "POST /hooks/un"), 404, "unknown_source"),
        ("with the wrong method", replaced("POST ", "PUT "), 405, "method_not_allowed"),
        ("larger than max_body", large.request(scheme), 413, "too_large"),
        ("not HTTP at all", b"\x16\x03\x01\x02\x00 hello\r\n\r\n".to_vec(), 400, "bad_request"),
    ];
    if scheme.signs_a_time {
        let stale = provider.sign("stale", now() - 301, scheme.body("stale", b""));
        let future = provider.sign("future", now() + 3600, scheme.body("future", b""));
        deliveries.push(("signed 301 s ago", stale.request(scheme), 401, "timestamp_stale"));
        deliveries.push(("signed an hour ahead", future.request(scheme), 401, "timestamp_future"));
    }
    deliveries
}

/// Body of the slash command in Slack's published example,
/// <https://docs.slack.dev/authentication/verifying-requests-from-slack>.
const COMMAND: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
    channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
    response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
    trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
const ACCEPTED: [&str; 2] = ["stored", "duplicate"];
