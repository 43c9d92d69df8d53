//! Tests of reloads during deliveries, and of the exact millisecond at which a secret expires.

use std::sync::Arc;
use std::time::Duration;

use hookhold::clock::{Clock, UnixMillis};
use hookhold::event::Delivery;
use hookhold::gateway::LiveSource;
use hookhold::outcome::Outcome;
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::sign::{SampleOptions, sign};

use crate::harness::{Harness, far_away, receive};

#[tokio::test]
async fn a_secret_verifies_nothing_after_its_expiry() {
    let harness = Harness::new();
    let start = harness.clock.now();
    let end = "2023-11-15"; // The clock starts on the day before, at 22:13:20.
    let only = compile(&[("old", &format!(", not_after = {end}"))]);
    harness.gateway.replace_sources([only], &harness.metrics);
    let day_after = UnixMillis(1_700_092_800_000); // 2023-11-16T00:00:00Z
    harness.advance(Duration::from_millis(day_after.since(start) - 1));
    assert_eq!(deliver(&harness, "evt_1").await.0, Outcome::Stored, "the last day counts to its last millisecond");
    harness.advance(Duration::from_millis(1));
    let (outcome, hint) = deliver(&harness, "evt_2").await;
    assert_eq!(outcome, Outcome::SignatureMismatch);
    assert_eq!(
        hint,
        "signature: expected a valid secret, found the secret old, which expired at 2023-11-16T00:00:00.000Z; switch the sender \
         to a valid secret"
    );
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

#[tokio::test]
async fn a_delivery_keeps_its_source_across_a_reload() {
    let harness = Harness::new();
    harness.gateway.replace_sources([compile(&[("old", "")])], &harness.metrics);
    let (live, delivery) = signed(&harness, "evt_1");
    harness.gateway.replace_sources([compile(&[("new", "")])], &harness.metrics);
    assert_eq!(deliver_to(&harness, &live, delivery).await.0, Outcome::Stored);
    let verified = |secret| harness.metrics.deliveries.verified.with_label_values(&["shop", secret]).get();
    assert_eq!((verified("old"), verified("new")), (1, 0));
    assert_eq!(
        deliver(&harness, "evt_1").await.0,
        Outcome::Duplicate,
        "an event stored before the reload is a duplicate after it"
    );
    assert_eq!((verified("old"), verified("new")), (1, 1));
    harness.gateway.replace_sources(Vec::<Source>::new(), &harness.metrics);
    assert!(harness.gateway.live_source("/hooks/shop").is_none());
}

#[tokio::test]
async fn a_reload_does_not_refill_an_unchanged_rate() {
    let harness = Harness::new();
    let with_rate = |rate: &str| harness.gateway.replace_sources([compile_with(&[("one", "")], rate)], &harness.metrics);
    with_rate("max_rate = \"1/h\"");
    assert_eq!(deliver(&harness, "evt_1").await.0, Outcome::Stored);
    with_rate("max_rate = \"1/h\"");
    assert_eq!(deliver(&harness, "evt_2").await.0, Outcome::RateLimited);
    with_rate("max_rate = \"2/h\"");
    assert_eq!(deliver(&harness, "evt_2").await.0, Outcome::Stored);
}

async fn deliver(harness: &Harness, id: &str) -> (Outcome, String) {
    let (live, delivery) = signed(harness, id);
    deliver_to(harness, &live, delivery).await
}

pub async fn deliver_to(harness: &Harness, live: &Arc<LiveSource>, delivery: Delivery) -> (Outcome, String) {
    let answer = receive(&harness.gateway, live, delivery, far_away()).await;
    (answer.outcome, answer.hint)
}

pub fn signed(harness: &Harness, id: &str) -> (Arc<LiveSource>, Delivery) {
    let live = harness.gateway.live_source("/hooks/shop").expect("the source exists");
    let now = harness.clock.now();
    let sample = sign(&live.source, None, &SampleOptions { id: id.into(), event_type: None, key: None, now, tamper: None })
        .expect("the source has a secret");
    let remote = ([192, 0, 2, 1], 443).into();
    let (method, target, headers, body) = (sample.method, sample.target, sample.headers, sample.body);
    (live, Delivery { method, target, headers, body, remote, received_at: now })
}

/// Compiles the source `shop`. Each entry of `secrets` is the name of a secret and additional TOML for the secret. The name is
/// also the text of the secret.
pub fn compile(secrets: &[(&str, &str)]) -> Source {
    compile_with(secrets, "")
}

/// Compiles the source `shop` with the additional options `more`. The format of `secrets` is the same as for [`compile`].
fn compile_with(secrets: &[(&str, &str)], more: &str) -> Source {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let reference = |(name, end): &(&str, &str)| {
        let path = directory.path().join(name);
        std::fs::write(&path, name).expect("a temporary directory is writable");
        format!("{{ name = {name:?}, from = \"file:{}\"{end} }}", path.display())
    };
    let references: Vec<String> = secrets.iter().map(reference).collect();
    let text = format!("provider = \"stripe\"\n{more}\nsecrets = [{}]\n", references.join(", "));
    let defaults = SourceDefaults {
        providers: Default::default(),
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: Duration::from_secs(8),
        window: Duration::from_secs(86_400),
        public_url: None,
    };
    let diagnostics = Diagnostics::default();
    let source =
        TomlTable::parse("test", &text, &diagnostics).and_then(|entry| Source::compile("shop", entry, &defaults, &diagnostics));
    source.filter(|_| diagnostics.is_empty()).unwrap_or_else(|| panic!("{diagnostics}"))
}
