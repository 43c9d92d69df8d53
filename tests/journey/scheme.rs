//! Signature schemes, each with a JSON body and the record contents that the tests expect in Kafka. [`Provider`] signs a
//! delivery with one of these schemes.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::kafka::Kafka;
use crate::process::{Home, post};
use crate::sdk::{Sample, Sdk, openssl_hmac};

/// A signature scheme. The hookhold source that uses the scheme has the scheme's name.
pub struct Scheme {
    pub name: &'static str,
    /// TOML options of the source that uses the scheme, except `secrets`, `topic` and `headers`.
    pub recipe: &'static str,
    /// Secret of the source, in the format of the provider's dashboard.
    pub secret: &'static str,
    /// A secret that the source does not have, in the format of the provider's dashboard.
    pub wrong_secret: &'static str,
    /// Name of the header that contains the signature.
    pub signature: &'static str,
    /// An invalid value for the signature header. hookhold must reject the value as `signature_malformed`.
    pub unreadable: &'static str,
    pub signs_a_time: bool,
    /// Expected status and body of the response to an accepted delivery.
    pub reply: (u16, &'static str),
    /// Expected value of the record header `hookhold-integrity`.
    pub integrity: &'static str,
    /// JSON request body with the placeholders `ID` and `NOTE`.
    pub json: &'static str,
    /// Expected contents of the Kafka record for a delivery with the body `json`.
    pub json_facts: Facts,
    /// Expected contents of the Kafka record for a delivery with any body other than `json`.
    pub other_facts: Facts,
}

/// Expected contents of a Kafka record. A field is `None` if hookhold uses a default because the delivery does not contain the
/// value.
#[derive(Clone, Copy)]
pub struct Facts {
    pub has_id: bool,
    pub ce_type: &'static str,
    pub key: Option<&'static str>,
    pub ce_time: Option<&'static str>,
}

pub const STRIPE: Scheme = Scheme {
    name: "stripe",
    recipe: "provider = \"stripe\"",
    secret: WHSEC,
    wrong_secret: OTHER_WHSEC,
    signature: "stripe-signature",
    unreadable: "t=1700000000,v0=00",
    signs_a_time: true,
    reply: (200, ""),
    integrity: "full",
    json: r#"{"id":"ID","object":"event","type":"invoice.paid","created":1700000000,"data":{"object":{"id":"in_1","note":"NOTE"}}}"#,
    json_facts: Facts { has_id: true, ce_type: "com.stripe.invoice.paid", key: Some("in_1"), ce_time: Some(TIME) },
    other_facts: Facts { has_id: false, ce_type: "stripe.unknown", key: None, ce_time: None },
};

pub const GITHUB: Scheme = Scheme {
    name: "github",
    recipe: "provider = \"github\"",
    secret: "It's a Secret to Everybody",
    wrong_secret: "It's another Secret",
    signature: "x-hub-signature-256",
    unreadable: "sha256=xyz",
    signs_a_time: false,
    reply: (200, ""),
    integrity: "body",
    json: r#"{"action":"opened","number":7,"repository":{"id":1296269},"note":"NOTE"}"#,
    json_facts: Facts { has_id: true, ce_type: "com.github.pull_request.opened", key: Some("1296269"), ce_time: None },
    other_facts: Facts { has_id: true, ce_type: "com.github.pull_request", key: None, ce_time: None },
};

pub const SLACK: Scheme = Scheme {
    name: "slack",
    recipe: "provider = \"slack\"",
    secret: "8f742231b10e8888abcd99yyyzzz85a5",
    wrong_secret: "8f742231b10e8888abcd99yyyzzz85a6",
    signature: "x-slack-signature",
    unreadable: "v1=00",
    signs_a_time: true,
    reply: (200, ""),
    integrity: "full",
    json: r#"{"team_id":"T1","event_id":"ID","event_time":1700000000,"type":"event_callback","event":{"type":"app_mention","channel":"C1","text":"NOTE"}}"#,
    json_facts: Facts { has_id: true, ce_type: "com.slack.app_mention", key: Some("C1"), ce_time: Some(TIME) },
    other_facts: Facts { has_id: false, ce_type: "slack.unknown", key: None, ce_time: None },
};

pub const STANDARD_WEBHOOKS: Scheme = Scheme {
    name: "standard-webhooks",
    recipe: "provider = \"standard-webhooks\"",
    secret: WHSEC,
    wrong_secret: OTHER_WHSEC,
    signature: "webhook-signature",
    unreadable: "v1a,AAAA",
    signs_a_time: true,
    reply: (200, ""),
    integrity: "full",
    json: r#"{"type":"user.created","timestamp":"2023-11-14T22:13:20Z","data":{"id":"1f81eb52","note":"NOTE"}}"#,
    json_facts: Facts { has_id: true, ce_type: "user.created", key: None, ce_time: Some(TIME) },
    other_facts: Facts { has_id: true, ce_type: "standard-webhooks.unknown", key: None, ce_time: None },
};

pub const SVIX: Scheme = Scheme {
    name: "svix",
    recipe: "provider = \"svix\"",
    signature: "svix-signature",
    json: r#"{"type":"invoice.paid","data":{"id":"in_1","note":"NOTE"}}"#,
    json_facts: Facts { has_id: true, ce_type: "invoice.paid", key: None, ce_time: None },
    other_facts: Facts { has_id: true, ce_type: "svix.unknown", key: None, ce_time: None },
    ..STANDARD_WEBHOOKS
};

pub const SHOPIFY: Scheme = Scheme {
    name: "shopify",
    recipe: "provider = \"shopify\"",
    secret: "shpss_0123456789abcdef",
    wrong_secret: "shpss_fedcba9876543210",
    signature: "x-shopify-hmac-sha256",
    unreadable: "AAAA",
    signs_a_time: false,
    reply: (200, ""),
    integrity: "body",
    json: r#"{"id":5223452934372,"name":"1001","note":"NOTE"}"#,
    json_facts: Facts {
        has_id: true,
        ce_type: "com.shopify.orders/create",
        key: Some("a-shop.myshopify.com.5223452934372"),
        ce_time: Some("2023-11-14T22:13:20.123Z"),
    },
    other_facts: Facts {
        has_id: true,
        ce_type: "com.shopify.orders/create",
        key: Some("a-shop.myshopify.com"),
        ce_time: Some("2023-11-14T22:13:20.123Z"),
    },
};

pub const SHOPIFY_EVENTS: Scheme = Scheme {
    name: "shopify-events",
    recipe: "provider = \"shopify-events\"",
    signature: "shopify-hmac-sha256",
    json: r#"{"topic":"Product","action":"update","handle":"all","data":{"note":"NOTE"}}"#,
    json_facts: SHOPIFY_EVENT,
    other_facts: SHOPIFY_EVENT,
    ..SHOPIFY
};

/// Expected record contents for every `shopify-events` delivery. hookhold reads these values from headers, so the contents do
/// not depend on the body.
const SHOPIFY_EVENT: Facts = Facts {
    has_id: true,
    ce_type: "com.shopify.Product.update",
    key: Some("a-shop.myshopify.com.gid://shopify/Product/7"),
    ce_time: Some("2023-11-14T22:13:20.123Z"),
};

/// Signature scheme of a sender without a built-in recipe.
pub const ACME: Scheme = Scheme {
    name: "acme",
    recipe: r#"auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Acme-Signature", prefix = "sha256=", encoding = "hex" }
content = ["timestamp", ".", "body"]
timestamp = { from = "header:X-Acme-Time", unit = "s", past = "5m", future = "5m" }
event = { id = "json:/id", type = "json:/kind", type_prefix = "com.acme.", key = "json:/customer", time = [{ from = "json:/at", unit = "rfc3339" }] }
reply = { ok = { status = 202, body = "[accepted]", content_type = "text/plain" }, bad = 401 }"#,
    secret: "acme's secret",
    wrong_secret: "another secret",
    signature: "x-acme-signature",
    unreadable: "md5=00",
    signs_a_time: true,
    reply: (202, "[accepted]"),
    integrity: "full",
    json: r#"{"id":"ID","kind":"order.paid","customer":"c-7","at":"2023-11-14T23:13:20+01:00","note":"NOTE"}"#,
    json_facts: Facts { has_id: true, ce_type: "com.acme.order.paid", key: Some("c-7"), ce_time: Some(TIME) },
    other_facts: Facts { has_id: false, ce_type: "acme.unknown", key: None, ce_time: None },
};

impl Scheme {
    /// Creates a `Home` with one source, which uses this scheme and forwards to `topic`. `more` contains additional options of
    /// the source. The secret of the source has the name `2026-11`.
    pub fn home(&self, kafka: &Kafka, topic: &str, more: &str) -> Home {
        let Scheme { name, recipe, .. } = self;
        let secrets = "secrets = [{ name = \"2026-11\", from = \"file:secret\" }]\nheaders = [\"X-Request-Id\"]";
        let source = format!("[sources.{name}]\n{recipe}\n{secrets}\ntopic = \"{topic}\"\n{more}");
        let kafka = format!("[kafka]\nbootstrap.servers = \"{}\"\n", kafka.bootstrap());
        Home::new(&[("secret", self.secret)], &("server.drain_delay = \"0s\"\n".to_owned() + &kafka + &source))
    }

    /// Returns the scheme's JSON body. `id` and `note` replace the placeholders.
    pub fn body(&self, id: &str, note: &[u8]) -> Vec<u8> {
        let (before, after) = self.json.split_once("NOTE").expect("every body contains NOTE");
        [before.replace("ID", id).as_bytes(), note, after.as_bytes()].concat()
    }

    pub fn path(&self) -> String {
        format!("/hooks/{}", self.name)
    }
}

/// A provider that signs deliveries with its own SDK. If there is no SDK, or the SDK cannot handle the body, openssl signs the
/// delivery.
pub struct Provider {
    scheme: &'static Scheme,
    sdk: Option<Sdk>,
}

/// A signed delivery: its headers, its body and the name of the signer.
#[derive(Clone)]
pub struct Signed {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Package and version of the SDK that signed or verified the delivery, or `openssl`.
    pub by: String,
}

impl Provider {
    pub fn new(scheme: &'static Scheme) -> Provider {
        let sdk = (scheme.name != ACME.name).then(Sdk::start);
        Provider { scheme, sdk }
    }

    /// Signs a delivery with the source's secret. `at` is the signing time in Unix seconds.
    pub fn sign(&mut self, id: &str, at: u64, body: Vec<u8>) -> Signed {
        self.sign_with(self.scheme.secret, id, at, body)
    }

    pub fn sign_with(&mut self, secret: &str, id: &str, at: u64, body: Vec<u8>) -> Signed {
        let (mut headers, by) = match &mut self.sdk {
            Some(sdk) => {
                let signed = sdk.sign(Sample { scheme: self.scheme.name, secret, id, timestamp: at, body: &body });
                (signed.headers, signed.by)
            }
            None => {
                let code = openssl_hmac("sha256", secret.as_bytes(), &[format!("{at}.").as_bytes(), &body].concat());
                let signature = format!("sha256={}", base16ct::lower::encode_string(&code));
                (fields(&[("X-Acme-Time", &at.to_string()), ("X-Acme-Signature", &signature)]), "openssl".to_owned())
            }
        };
        if self.scheme.name == GITHUB.name {
            headers.extend(fields(&[("X-GitHub-Delivery", id), ("X-GitHub-Event", "pull_request")]));
        }
        Signed { headers, body, by }
    }
}

impl Signed {
    pub fn with(mut self, name: &str, value: &str) -> Signed {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Signed {
        let before = self.headers.len();
        self.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        assert!(self.headers.len() < before, "there is no {name} to remove");
        self
    }

    /// Changes the body of a signed delivery. Does not update the signature.
    pub fn map_body(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Signed {
        change(&mut self.body);
        self
    }

    /// Returns an HTTP request that sends this delivery to the path of the scheme's source.
    pub fn request(&self, scheme: &Scheme) -> Vec<u8> {
        post(&scheme.path(), &self.headers, &self.body)
    }
}

/// Returns the current Unix time in seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// Time of the event in every test body that contains an event time: Unix time 1700000000.
const TIME: &str = "2023-11-14T22:13:20.000Z";
