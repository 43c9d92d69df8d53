//! Tests a source with the secrets of two accounts, which use the same event id for different events. Both events must become
//! records that a consumer can tell apart, and no duplicate may become a record.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::kafka;
use crate::process::{Home, Line, post, wait_until};
use crate::sdk::openssl_hmac;

const KEYS: [(&str, &str); 3] = [("paris", "key of paris"), ("rome", "key of rome"), ("rome-next", "next key of rome")];

/// Returns a request whose signature openssl makes with the key named `key`.
fn request(key: &str, body: &str) -> Vec<u8> {
    let (_, text) = KEYS.into_iter().find(|(name, _)| *name == key).expect("a configured key");
    let signature = base16ct::lower::encode_string(&openssl_hmac("sha256", text.as_bytes(), body.as_bytes()));
    post("/hooks/shop", &[("X-Signature".to_owned(), signature)], body.as_bytes())
}

#[test]
fn two_accounts_with_one_id_are_two_records() {
    let (kafka, topic) = (kafka::shared(), "accounts");
    kafka.create_topic(topic, 1, &[]);
    let config = format!(
        "server.drain_delay = \"0s\"\n[kafka]\nbootstrap.servers = \"{}\"\n[sources.shop]\n{SOURCE}\ntopic = \"{topic}\"\n",
        kafka.bootstrap()
    );
    let home = Home::new(&KEYS, &config);
    let [of_paris, of_rome, changed] =
        ["paris", "rome", "another body"].map(|text| format!(r#"{{"id":"1017","text":"{text}"}}"#));
    let sent = [("paris", &of_paris), ("rome", &of_rome), ("rome-next", &of_rome), ("rome", &of_paris), ("rome-next", &changed)];
    let acked = format!("hookhold_forward_acked_total{{topic=\"{topic}\"}}");
    let series = |outcome: &str| format!("hookhold_deliveries_total{{outcome={outcome:?},source=\"shop\"}}");
    for (stored, differing) in [(2.0, 1.0), (0.0, 1.0)] {
        let process = home.start();
        let mut line = Line::open(home.hooks);
        for (key, body) in sent {
            assert_eq!(line.ask(&request(key, body)).status, 200, "{key}: {body}");
        }
        assert_eq!(process.metric(&series("stored")), Some(stored));
        assert_eq!(process.metric(&series("duplicate")), Some(sent.len() as f64 - stored));
        assert_eq!(process.metric("hookhold_duplicate_differs_total{source=\"shop\"}"), Some(differing));
        wait_until("all are forwarded", || process.metric(&acked).unwrap_or_default() == stored);
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0));
    }
    let log = home.log();
    let differs = log.lines().filter(|line| line.contains("another body than the stored event"));
    let named = differs.filter(|line| line.contains("INFO") && line.contains("1017") && line.contains("seq=1"));
    assert_eq!(named.count(), 2, "{log}");
    let records = kafka.wait_for_records(topic, 2);
    let found: BTreeMap<&str, &[u8]> =
        records.iter().map(|record| (record.header("ce_source"), record.value.as_deref().unwrap_or_default())).collect();
    let expected = [("/hooks/shop", of_paris.as_bytes()), ("/hooks/shop/rome", of_rome.as_bytes())];
    assert_eq!(found, BTreeMap::from(expected));
    assert!(records.iter().all(|record| record.header("ce_id") == "1017" && record.header("hookhold-source") == "shop"));
    let shown = String::from_utf8(home.verb(&["tail"]).stdout).expect("text");
    assert!(shown.contains("  shop/rome  ") && shown.contains("  shop  "), "{shown}");
}

const SOURCE: &str = r#"
secrets = ["file:paris", { from = "file:rome", account = "rome" }, { from = "file:rome-next", account = "rome" }]
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Signature" }
content = ["body"]
event = { id = "json:/id" }"#;
