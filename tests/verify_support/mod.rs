//! Sources and deliveries for the tests of `believe`.

use std::io::Write;

use bytes::Bytes;
use hookhold::event::{Delivery, UnixMillis};
use hookhold::source::{Source, SourceDefaults};
use hookhold::table::{Mistakes, Table};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The moment at which every delivery of these tests arrives, in seconds.
pub const NOW: u64 = 1_700_000_000;

/// A source with one secret called `secret`; `more` is TOML after `provider` and `secrets`.
pub fn source(provider: &str, secret: &str, more: &str) -> Source {
    compile(&format!("provider = {provider:?}\n{more}"), &[("secret", secret)]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Compiles an entry with these secrets, named and stored in files.
pub fn compile(entry: &str, secrets: &[(&str, &str)]) -> Result<Source, Mistakes> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let reference = |(name, text): &(&str, &str)| {
        let path = directory.path().join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file in it");
        format!("{:?}", format!("file:{}", path.display()))
    };
    let references: Vec<String> = secrets.iter().map(reference).collect();
    let text = format!("secrets = [{}]\n{entry}\n", references.join(", "));
    let mistakes = Mistakes::default();
    let table = Table::parse("hookhold.toml", &text, &mistakes).expect("the entry is TOML");
    let source = Source::compile("shop", table, &defaults(), &mistakes);
    source.filter(|_| mistakes.is_empty()).ok_or(mistakes)
}

/// The defaults of the configuration.
pub fn defaults() -> SourceDefaults {
    SourceDefaults {
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: std::time::Duration::from_secs(8),
        window: std::time::Duration::from_secs(7 * 86_400),
    }
}

/// A POST that arrives at [`NOW`].
pub fn delivery(body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Delivery {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    }
    Delivery {
        method: Method::POST,
        target: "/hooks/shop".into(),
        headers: map,
        body: body.into(),
        remote: ([192, 0, 2, 1], 443).into(),
        received_at: UnixMillis(NOW * 1000),
    }
}
