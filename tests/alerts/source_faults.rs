//! Faults of sources, of their senders and of the credentials.

use std::fs;

use hookhold::clock::{Clock, SystemClock, UnixMillis};

use crate::fixture::stop;
use crate::gateways::{SECRET, Sender, config};
use crate::https::Pair;
use crate::process::Home;
use crate::prometheus::Prometheus;

/// Creates the gateway of [`sources`] and [`silent_source`].
pub fn home() -> Home {
    let names = ["forged", "share", "differs", "unread", "silent", "rotated"].map(|name| (name, name));
    let slack = "[sources.slack]\nprovider = \"slack\"\nsecrets = [\"file:slack\"]\n";
    let end = UnixMillis(SystemClock.now().0 + 5 * 24 * 60 * 60 * 1000).rfc3339();
    let text = config(&names, None) + slack;
    let (before, rotated) = text.split_once("[sources.rotated]\n").expect("the source exists");
    let expiring = format!("secrets = [{{ name = \"old\", from = \"file:secret\", not_after = {end} }}]");
    let rotated = rotated.replacen("secrets = [\"file:secret\"]", &expiring, 1);
    Home::new(
        &[("secret", SECRET), ("slack", "0123456789abcdef0123456789abcdef")],
        &format!("{before}[sources.rotated]\n{rotated}"),
    )
}

/// The certificate ends within a day and is renewed. A reload fails and is corrected.
pub fn certificate_and_reload(home: &Home, pair: &Pair, prometheus: &Prometheus) {
    let process = home.start();
    let instance = [("instance", "tls")];
    let severity = |severity| [("instance", "tls"), ("severity", severity)];
    prometheus.wait_until_fires("HookholdTlsCertificateExpiring", &severity("warning"));
    prometheus.wait_until_fires("HookholdTlsCertificateExpiring", &severity("critical"));
    let renewed = Pair::new(365);
    pair.replace_with(&renewed.cert(), &renewed.key());
    prometheus.wait_until_clears("HookholdTlsCertificateExpiring", &severity("critical"));
    prometheus.wait_until_clears("HookholdTlsCertificateExpiring", &severity("warning"));
    let text = format!("{}{}", pair.config(), config(&[("tls", "tls")], None));
    home.configure(&format!("{text}unknown = 1\n"));
    assert!(!process.reload());
    prometheus.wait_until_fires("HookholdReloadFailed", &instance);
    home.configure(&text);
    assert!(process.reload());
    prometheus.wait_until_clears("HookholdReloadFailed", &instance);
    stop(process);
}

/// Each source has its own fault.
pub fn sources(home: &Home, prometheus: &Prometheus) {
    let process = home.start();
    prometheus.wait_until_found("hookhold_success_rate{source=\"silent\"}");
    let source = |name: &'static str| [("source", name)];
    let sender = |name: &str| Sender::new(home, name);
    sender("rotated").send(3);
    sender("slack").send_stale(20);
    prometheus.wait_until_fires("HookholdEndpointNearSwitchOff", &source("slack"));
    sender("slack").send(60);
    let mut forged = sender("forged");
    prometheus.wait_until_fires_while("HookholdSourceRejectsAll", &source("forged"), || forged.forge(5));
    forged.send(3);
    prometheus.wait_until_clears("HookholdSourceRejectsAll", &source("forged"));
    // Their ranges are so short here that the test must look for the alerts at once.
    let mut differing = sender("differs");
    differing.send_body("evt_1", br#"{"id":"evt_1","type":"invoice.paid","object":"event","note":"first"}"#, &[]);
    differing.send_body("evt_1", br#"{"id":"evt_1","type":"invoice.paid","object":"event","note":"second"}"#, &[]);
    sender("unread").send_body("evt_2", b"this is not compressed", &[("content-encoding", "gzip")]);
    for name in ["HookholdDuplicatesDiffer", "HookholdBodiesUnread"] {
        let label = source(if name == "HookholdBodiesUnread" { "unread" } else { "differs" });
        prometheus.wait_until_fires(name, &label);
    }
    let mut share = sender("share");
    prometheus.wait_until_fires_while("HookholdRejectionShareHigh", &source("share"), || {
        share.send(10);
        share.forge(10);
    });
    prometheus.wait_until_fires("HookholdSecretExpiring", &[("source", "rotated"), ("secret", "old")]);
    let file = home.journal().with_file_name("hookhold.toml");
    let text = fs::read_to_string(&file).expect("the configuration exists");
    let (before, after) = text.split_once(", not_after = ").expect("the secret ends");
    let after = after.split_once(" }").expect("the secret is a table").1;
    fs::write(&file, format!("{before} }}{after}")).expect("target/ can be written to");
    assert!(process.reload(), "{}", home.log());
    prometheus.wait_until_clears("HookholdSecretExpiring", &[("source", "rotated")]);
    prometheus.wait_until_clears("HookholdEndpointNearSwitchOff", &source("slack"));
    prometheus.wait_until_clears("HookholdDuplicatesDiffer", &source("differs"));
    prometheus.wait_until_clears("HookholdBodiesUnread", &source("unread"));
    prometheus.wait_until_clears("HookholdRejectionShareHigh", &source("share"));
    stop(process);
}
