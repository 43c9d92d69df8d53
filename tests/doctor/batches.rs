//! Tests that doctor explains the rejection of a batch.

use crate::process::{Home, post};
use crate::sdk::openssl_hmac;
use crate::{GITHUB, SECRETS, STRIPE, causes, examine};

/// A source whose deliveries carry one signature, and a source whose items carry a signature each.
const SOURCES: &str = r#"
[sources.batch]
secrets = ["file:github-key"]
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Sig" }
content = ["body"]
split = true
max_items = 2
event = { batch = "", id = "json:/id" }
[sources.items]
secrets = ["file:github-key"]
auth = "mac"
algorithm = "sha256"
match = "all-items"
signature = { from = "json:/code" }
content = ["json:/id"]
split = true
max_items = 2
event = { batch = "", id = "json:/id" }
[sources.stripe]
provider = "stripe"
secrets = ["file:stripe-key"]
"#;

fn hex(key: &str, content: &str) -> String {
    base16ct::lower::encode_string(&openssl_hmac("sha256", key.as_bytes(), content.as_bytes()))
}

fn item(key: &str, id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"code\":\"{}\"}}", hex(key, id))
}

#[test]
fn a_rejected_batch_is_explained() {
    let home = Home::new(SECRETS, SOURCES);
    let batch = |items: &[String]| format!("[{}]", items.join(","));
    let with_items = |items: &[String]| post("/hooks/items", &[], batch(items).as_bytes());
    let genuine = item(GITHUB, "a");
    let (code, line) = examine(&home, "items", &with_items(&[genuine.clone(), item(GITHUB, "b")]), &[]);
    assert_eq!((code, &line["secret"]), (Some(0), &"github-key".into()), "{line}");
    let forged = with_items(&[genuine.clone(), genuine.replace("\"a\"", "\"b\"")]);
    assert_eq!(causes(&home, "items", &forged), ["other_secret?", "body_changed?"]);
    let (_, line) = examine(&home, "items", &forged, &[]);
    assert!(line["hint"].as_str().is_some_and(|hint| hint.starts_with("item 2: signature: ")), "{line}");
    assert_eq!(causes(&home, "items", &with_items(&[item(STRIPE, "a")])), ["other_sources_secret"]);
    assert_eq!(causes(&home, "items", &with_items(&[genuine.clone(), "{}".to_owned()])), ["signature_absent"]);
    let two = post("/hooks/items", &[], format!("{0}\n{0}", batch(std::slice::from_ref(&genuine))).as_bytes());
    assert_eq!(causes(&home, "items", &two), ["signature_unreadable"]);
    assert_eq!(causes(&home, "items", &with_items(&vec![genuine; 3])), ["too_many_items"]);
    let signed = |body: &str| post("/hooks/batch", &[("X-Sig".to_owned(), hex(GITHUB, body))], body.as_bytes());
    assert_eq!(examine(&home, "batch", &signed("[{},{}]"), &[]).0, Some(0));
    assert_eq!(causes(&home, "batch", &signed("[{},{},{}]")), ["too_many_items"]);
}
