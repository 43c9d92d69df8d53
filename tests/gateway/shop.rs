//! A harness for sources to which several accounts send. The accounts sign with their own secrets.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use hookhold::answer::Answer;
use hookhold::clock::Clock;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::sign::{SampleOptions, sign};

use crate::harness::{self, Harness, Plan, Sender, far_away};

/// Name and account of a secret. Without an account, the secret is an account of its own.
pub type Signer = (&'static str, Option<&'static str>);

pub const A: Signer = ("a", None);
pub const B: Signer = ("b", Some("beta"));
pub const C: Signer = ("c", None);
/// The next secret of the account of [`B`].
pub const NEXT_B: Signer = ("next-b", Some("beta"));
pub const ALL: [Signer; 4] = [A, B, C, NEXT_B];

/// Compiles a source of [`RECIPES`]. The name of each secret is also its text.
fn compile(name: &str, window: Duration, secrets: &[Signer]) -> Source {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let secret = |(name, account): &Signer| {
        let path = directory.path().join(name);
        std::fs::write(&path, name).expect("a temporary directory is writable");
        let account = account.map(|account| format!(", account = {account:?}")).unwrap_or_default();
        format!("{{ name = {name:?}, from = \"file:{}\"{account} }}", path.display())
    };
    let references: Vec<String> = secrets.iter().map(secret).collect();
    let (_, recipe) = RECIPES.iter().find(|(known, _)| *known == name).expect("a known source");
    let text = format!("secrets = [{}]\ndedupe.window = \"{}ms\"\n{MAC}\n{recipe}", references.join(", "), window.as_millis());
    let defaults = SourceDefaults {
        providers: Default::default(),
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: Duration::from_secs(60),
        window,
        public_url: None,
    };
    let diagnostics = Diagnostics::default();
    let source =
        TomlTable::parse("test", &text, &diagnostics).and_then(|entry| Source::compile(name, entry, &defaults, &diagnostics));
    source.filter(|_| diagnostics.is_empty()).unwrap_or_else(|| panic!("{diagnostics}"))
}

/// Returns a source whose only secret is that of `signer`, to sign deliveries with this secret.
fn source_of(name: &'static str, signer: Signer) -> &'static Source {
    static SOURCES: OnceLock<HashMap<(&str, Signer), Source>> = OnceLock::new();
    let all = || {
        let names = RECIPES.iter().flat_map(|(name, _)| ALL.map(|signer| (*name, signer)));
        names.map(|(name, signer)| ((name, signer), compile(name, Duration::from_secs(1), &[signer]))).collect()
    };
    &SOURCES.get_or_init(all)[&(name, signer)]
}

/// A harness with the sources of [`RECIPES`], which all have the same secrets.
pub struct Shop {
    pub harness: Harness,
    window: Duration,
    secrets: Vec<Signer>,
}

impl Shop {
    pub fn new() -> Shop {
        Shop::with(Plan::default())
    }

    pub fn with(plan: Plan) -> Shop {
        let window = plan.window;
        Shop { harness: Harness::with(plan), window, secrets: Vec::new() }.configured(&ALL)
    }

    /// Replaces the secrets of the sources, as a reload does. A restart reads the configuration of the harness, so each restart
    /// must be followed by this function.
    pub fn configured(mut self, secrets: &[Signer]) -> Shop {
        self.secrets = secrets.to_vec();
        let plan = Plan { window: self.window, ..Plan::default() };
        let own = RECIPES.iter().map(|(name, _)| compile(name, self.window, secrets));
        self.harness.gateway.replace_sources(harness::sources(&plan).into_iter().chain(own), &self.harness.metrics);
        self
    }

    /// Replaces the harness, for example by a restarted one.
    pub fn after(self, change: impl FnOnce(Harness) -> Harness) -> Shop {
        let secrets = self.secrets.clone();
        self.after_with(change, &secrets)
    }

    /// Replaces the harness and the secrets of the sources in one step.
    pub fn after_with(self, change: impl FnOnce(Harness) -> Harness, secrets: &[Signer]) -> Shop {
        Shop { harness: change(self.harness), ..self }.configured(secrets)
    }

    /// Returns a delivery to the source that `signer` has signed.
    pub fn signed(&self, source: &'static str, signer: Signer, body: String) -> Delivery {
        let now = self.harness.clock.now();
        let options = SampleOptions { id: String::new(), event_type: None, key: None, now, tamper: None };
        let sample = sign(source_of(source, signer), Some(body.into()), &options).expect("the source has a secret");
        let (method, target, headers, body) = (sample.method, sample.target, sample.headers, sample.body);
        Delivery { method, target, headers, body, remote: ([192, 0, 2, 1], 443).into(), received_at: now }
    }

    fn event(&self, signer: Signer, id: &str, text: &str) -> Delivery {
        self.signed("shop", signer, event_body(id, text))
    }

    pub fn batch(&self, signer: Signer, items: &[(&str, &str)]) -> Delivery {
        let items: Vec<String> = items.iter().map(|(id, text)| event_body(id, text)).collect();
        self.signed("items", signer, format!("[{}]", items.join(",")))
    }

    pub fn start(&self, signer: Signer, id: &str, text: &str) -> Sender {
        self.harness.start("shop", self.event(signer, id, text), far_away())
    }

    /// Sends a delivery, which must not be answered at once.
    pub async fn send(&self, signer: Signer, id: &str, text: &str) -> Sender {
        self.harness.send_this("shop", self.event(signer, id, text)).await
    }

    /// Sends a delivery, and returns the outcome and the sequence of the event.
    pub async fn deliver(&self, signer: Signer, id: &str, text: &str) -> (Outcome, Option<u64>) {
        of(self.start(signer, id, text).answer().await)
    }

    pub async fn deliver_batch(&self, signer: Signer, items: &[(&str, &str)]) -> (Outcome, String) {
        let answer = self.harness.deliver_this("items", self.batch(signer, items)).await;
        (answer.outcome, answer.hint)
    }

    /// Returns the text and the account of each stored event, in journal order.
    pub fn stored(&self) -> Vec<(String, Option<String>)> {
        let mut reader = self.harness.journal.reader(0);
        let mut stored = Vec::new();
        while let Some(next) = reader.next().expect("the segment can be read") {
            let body: serde_json::Value = serde_json::from_slice(next.event.body()).expect("JSON");
            let text = body["text"].as_str().unwrap_or_default().to_owned();
            stored.push((text, next.event.account().map(str::to_owned)));
        }
        stored
    }

    /// Returns the number of duplicates of a source with another body.
    pub fn differing(&self, source: &str) -> u64 {
        self.harness.metrics.deliveries.duplicate_differs.with_label_values(&[source]).get()
    }
}

pub fn event_body(id: &str, text: &str) -> String {
    format!(r#"{{"id":"{id}","type":"t","text":"{text}"}}"#)
}

pub fn of(answer: Answer) -> (Outcome, Option<u64>) {
    (answer.outcome, answer.seq)
}

/// Returns the stored events that a test expects, in the form of [`Shop::stored`].
pub fn events<const N: usize>(expected: [(&str, Option<&str>); N]) -> Vec<(String, Option<String>)> {
    expected.map(|(text, account)| (text.to_owned(), account.map(str::to_owned))).into()
}

const MAC: &str = "auth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:S\" }";
const RECIPES: &[(&str, &str)] = &[
    ("shop", "content = [\"body\"]\nevent = { id = \"json:/id\", type = \"json:/type\" }"),
    ("items", "content = [\"body\"]\nevent = { batch = \"\", id = \"json:/id\", type = \"json:/type\" }\nsplit = true"),
    ("whole", "content = [\"body\"]\nevent = { batch = \"\", id = \"json:/id\", type = \"json:/type\" }"),
    ("bodies", "content = [\"body\"]\ndedupe.body = \"1s\""),
    ("timed", "content = [\"timestamp\", \".\", \"body\"]\ntimestamp = { from = \"header:T\" }"),
    ("unsigned-id", "content = [\"body\"]\nevent = { id = \"header:I\" }"),
];
