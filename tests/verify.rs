//! Believe: what a recipe promises about a delivery, from both sides.

mod verify_support;

use hookhold::event::{Integrity, Outcome};
use hookhold::verify::{Identity, precheck, verify};
use verify_support::*;

/// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
#[test]
fn the_vector_that_github_publishes_is_believed() {
    let source = source("github", "It's a Secret to Everybody", "");
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let delivery = delivery(
        "Hello, World!",
        &[("X-Hub-Signature-256", signature), ("X-GitHub-Delivery", "d-1"), ("X-GitHub-Event", "push")],
    );
    let verified = verify(&source, &delivery).expect("it is genuine");
    assert_eq!(verified.event.id.as_deref(), Some("d-1"));
    assert_eq!(verified.event.event_type.as_deref(), Some("push"));
    assert_eq!(verified.event.integrity, Integrity::Body);
    assert_eq!(&*verified.event.auth, "mac-sha256:secret");
    let Identity::Id { fields, body_sha256: Some(_) } = verified.identity else { panic!("the id is outside the signed bytes") };
    assert_eq!(fields, ["d-1"]);
}

/// printf '1700000000.{"id":"evt_1","type":"invoice.paid","data":{"object":{"id":"in_1"}}}' |
///   openssl dgst -sha256 -hmac whsec_test
#[test]
fn a_stripe_delivery_that_openssl_signed_is_believed() {
    let source = source("stripe", "whsec_test", "");
    let body = r#"{"id":"evt_1","type":"invoice.paid","data":{"object":{"id":"in_1"}}}"#;
    let verified = verify(&source, &delivery(body, &[("stripe-signature", STRIPE)])).expect("it is genuine");
    assert_eq!(verified.event.id.as_deref(), Some("evt_1"));
    assert_eq!(verified.event.event_type.as_deref(), Some("invoice.paid"));
    assert_eq!(verified.event.ordering_key.as_deref(), Some("in_1"));
    assert_eq!(verified.event.integrity, Integrity::Full);
    assert_eq!(verified.identity, Identity::Id { fields: vec!["evt_1".into()], body_sha256: None });
    let refused = verify(&source, &delivery("{}", &[("stripe-signature", STRIPE)])).expect_err("another body");
    assert_eq!(refused.outcome, Outcome::SignatureMismatch);
    assert_eq!(precheck(&source, &http::HeaderMap::new()).map_err(|refusal| refusal.outcome), Err(Outcome::SignatureMissing));
}

const STRIPE: &str = "t=1700000000,v1=c4a3e3964fe67070d19e2cf5145d052c577876058ff5c86e9923b0942b29f678,v0=00";
