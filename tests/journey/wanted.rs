//! An endpoint that is not switched off: what is not wanted is answered ok and forgotten, and a source in shadow answers ok to
//! everybody.

use crate::counters::{moved_by, one};
use crate::process::Home;
use crate::scheme::{Provider, STRIPE, Signed, now};

#[test]
fn an_unwanted_delivery_is_answered_ok_moves_only_filtered_and_is_not_kept() {
    let home = home("types = [\"invoice.*\"]");
    let process = home.start();
    let mut provider = Provider::new(&STRIPE);
    let wanted = provider.sign("evt_1", now(), STRIPE.body("evt_1", b""));
    let unwanted = other_type(&mut provider, now());
    let forged = unwanted.clone().map_body(|body| *body.last_mut().expect("not empty") = b' ');
    let late = other_type(&mut provider, now() - 400);
    for (delivery, status, outcome) in [
        (&wanted, 200, "stored"),
        (&unwanted, 200, "filtered"),
        (&unwanted, 200, "filtered"),
        (&forged, 401, "signature_mismatch"),
        (&late, 401, "timestamp_stale"),
    ] {
        let (moved, answer) = moved_by(&home, &process, &delivery.request(&STRIPE));
        assert_eq!((moved, answer.status), (one("stripe", outcome), status));
    }
    assert_eq!(kept(&home), ["evt_1"]);
    // Three of the four that the provider's secret signed.
    assert_eq!(process.metric("hookhold_success_rate{source=\"stripe\"}"), Some(0.75));
    assert_eq!(process.metric("hookhold_success_rate_threshold{source=\"stripe\"}"), Some(0.05));
}

#[test]
fn in_shadow_the_provider_hears_ok_and_only_what_verifies_is_kept() {
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
    assert_eq!(kept(&home), ["evt_1"]);
    assert!(home.log().contains("danger_shadow is on") && home.log().contains("sources=stripe"), "{}", home.log());
    let check = String::from_utf8(home.verb(&["check"]).stdout).expect("a report is text");
    assert!(check.contains("warning: sources.stripe.danger_shadow is on"), "{check}");
    assert_eq!(home.verb(&["send", "stripe", "--tamper", "body"]).status.code(), Some(0), "send expects what shadow answers");
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

/// The ids in the journal.
fn kept(home: &Home) -> Vec<String> {
    let listed = String::from_utf8(home.verb(&["tail", "--from", "0", "--format", "json"]).stdout).expect("JSON is text");
    let id =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("an object a line")["id"].as_str().map(str::to_owned);
    listed.lines().filter_map(id).collect()
}
