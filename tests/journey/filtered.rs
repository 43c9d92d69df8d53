//! Tests of deliveries that hookhold answers with 2xx but does not store. The source filters out the event type of such a
//! delivery, or the source is in shadow mode and the delivery fails verification. hookhold sends a 2xx for these deliveries
//! because a provider may disable an endpoint that rejects deliveries.

use crate::counters::{moved_by, one};
use crate::process::Home;
use crate::scheme::{Provider, STRIPE, Signed, now};

#[test]
fn an_unwanted_type_is_answered_ok_and_only_counted() {
    let home = home("types = [\"invoice.*\"]");
    let process = home.start();
    let mut provider = Provider::new(&STRIPE);
    let accepted = provider.sign("evt_1", now(), STRIPE.body("evt_1", b""));
    let other = other_type(&mut provider, now());
    let forged = other.clone().map_body(|body| *body.last_mut().expect("not empty") = b' ');
    let late = other_type(&mut provider, now() - 400);
    for (delivery, status, outcome) in [
        (&accepted, 200, "stored"),
        (&other, 200, "filtered"),
        (&other, 200, "filtered"),
        (&forged, 401, "signature_mismatch"),
        (&late, 401, "timestamp_stale"),
    ] {
        let (moved, answer) = moved_by(&home, &process, &delivery.request(&STRIPE));
        assert_eq!((moved, answer.status), (one("stripe", outcome), status));
    }
    assert_eq!(stored(&home), ["evt_1"]);
    // Four deliveries have a genuine signature, and hookhold answered three of them with 2xx.
    assert_eq!(process.metric("hookhold_success_rate{source=\"stripe\"}"), Some(0.75));
    assert_eq!(process.metric("hookhold_success_rate_threshold{source=\"stripe\"}"), Some(0.05));
}

#[test]
fn in_shadow_only_genuine_events_are_stored() {
    let home = home("types = [\"invoice.*\"]\ndanger_shadow = true");
    let process = home.start();
    let mut provider = Provider::new(&STRIPE);
    let genuine = provider.sign("evt_1", now(), STRIPE.body("evt_1", b""));
    let forged = provider.sign_with(STRIPE.wrong_secret, "evt_2", now(), STRIPE.body("evt_2", b""));
    for (delivery, outcome) in [
        (genuine.clone().map_body(|body| *body.last_mut().expect("not empty") = b' '), "signature_mismatch"),
        (forged, "signature_mismatch"),
        (provider.sign("evt_3", now() - 400, STRIPE.body("evt_3", b"")), "timestamp_stale"),
        (genuine.clone().without(STRIPE.signature), "signature_missing"),
        (other_type(&mut provider, now()), "filtered"),
        (genuine.clone(), "stored"),
        (genuine, "duplicate"),
    ] {
        let (moved, answer) = moved_by(&home, &process, &delivery.request(&STRIPE));
        assert_eq!((moved, answer.status), (one("stripe", outcome), 200));
    }
    assert_eq!(stored(&home), ["evt_1"]);
    assert!(home.log().contains("danger_shadow is on") && home.log().contains("sources=stripe"), "{}", home.log());
    let check = String::from_utf8(home.verb(&["check"]).stdout).expect("a report is text");
    assert!(check.contains("warning: sources.stripe.danger_shadow is on"), "{check}");
    assert_eq!(
        home.verb(&["send", "stripe", "--tamper", "body"]).status.code(),
        Some(0),
        "send expects the answers of shadow mode"
    );
}

fn home(more: &str) -> Home {
    let limit = "limits.switches_off_at = { percent = 5, within = \"60m\" }";
    let source = format!("[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:secret\"]\n{limit}\n{more}\n");
    Home::new(&[("secret", STRIPE.secret)], &format!("server.drain_delay = \"0s\"\n{source}"))
}

fn other_type(provider: &mut Provider, at: u64) -> Signed {
    let body = String::from_utf8(STRIPE.body("evt_9", b"")).expect("plain JSON");
    provider.sign("evt_9", at, body.replace("invoice.paid", "customer.created").into_bytes())
}

/// Returns the ids of the events in the journal.
fn stored(home: &Home) -> Vec<String> {
    let tail = String::from_utf8(home.verb(&["tail", "--from", "0", "--format", "json"]).stdout).expect("JSON is text");
    let id =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("an object a line")["id"].as_str().map(str::to_owned);
    tail.lines().filter_map(id).collect()
}
