//! Tests of sources that distribute their events to several topics by event type.

use crate::kafka;
use crate::process::Line;
use crate::scheme::{Provider, STRIPE, now};

#[test]
fn an_event_goes_to_the_topic_of_the_first_pattern_that_matches_its_type() {
    let kafka = kafka::shared();
    let topics = ["by-type-paid", "by-type-invoices", "by-type-others"];
    topics.iter().for_each(|topic| kafka.create_topic(topic, 1, &[]));
    let by_type = "topics = { \"invoice.paid\" = \"by-type-paid\", \"invoice.*\" = \"by-type-invoices\" }";
    let home = STRIPE.home(kafka, "by-type-others", by_type);
    let process = home.start();
    let (mut provider, mut line) = (Provider::new(&STRIPE), Line::open(home.hooks));
    let types = ["invoice.paid", "invoice.created", "customer.created", "invoice.paid"];
    for (number, event_type) in types.iter().enumerate() {
        let id = format!("evt_{number}");
        let body = String::from_utf8(STRIPE.body(&id, b"")).expect("plain JSON").replace("invoice.paid", event_type);
        let delivery = provider.sign(&id, now(), body.into_bytes());
        assert_eq!(line.ask(&delivery.request(&STRIPE)).status, 200);
    }
    let without_type = provider.sign("evt_none", now(), b"{\"id\":\"evt_none\"}".to_vec());
    assert_eq!(line.ask(&without_type.request(&STRIPE)).status, 200);

    let ids = |topic: &str, count: usize| -> Vec<String> {
        kafka.wait_for_records(topic, count).iter().map(|record| record.header("ce_id").to_owned()).collect()
    };
    assert_eq!(ids("by-type-paid", 2), ["evt_0", "evt_3"]);
    assert_eq!(ids("by-type-invoices", 1), ["evt_1"]);
    assert_eq!(ids("by-type-others", 2), ["evt_2", "evt_none"]);
    drop(process);
    let check = home.verb(&["check", "--format", "json"]);
    let summary: serde_json::Value = serde_json::from_slice(&check.stdout).expect("one JSON object");
    assert_eq!(summary["sources"][0]["topics"], serde_json::json!(["by-type-others", "by-type-paid", "by-type-invoices"]));
}
