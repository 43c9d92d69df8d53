//! Tests mutual TLS as a condition of a source. The `openssl` command creates the CAs and the certificates, and `curl` presents
//! them.

#[path = "common/authority.rs"]
mod authority;
#[path = "common/https.rs"]
mod https;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use authority::Authority;
use hookhold::client_certificate::{ClientCa, ClientCertificate, ClientCondition, SubjectPattern};
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use https::{Delivery, Pair, SECRET};
use process::{Home, Process};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// Returns a configuration with the source `github`, which has these further options, and the source `open`, which needs no
/// client certificate.
fn config(pair: &Pair, options: &str) -> String {
    let source = |name: &str| format!("[sources.{name}]\nprovider = \"github\"\nsecrets = [\"file:github\"]\n");
    let server = format!("{}server.drain_delay = \"0s\"\nadmin.keep_rejected = \"1 MiB\"\n", pair.config());
    format!("{server}{}{}{options}", source("open"), source("github"))
}

/// Sends a delivery with the client certificate in these files, and returns the status and the HTTP version.
fn deliver(home: &Home, pair: &Pair, certificate: Option<&[PathBuf; 2]>, path: &str, args: &[&str]) -> String {
    let id = format!("{:x}", fastrand::u64(..));
    let delivery = Delivery::new(&id);
    let mut curl = delivery.curl(home.hooks, Some(pair));
    curl.args(["--data-binary", &delivery.body]).args(args);
    if let Some([cert, key]) = certificate {
        curl.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    // The last argument of curl would be another URL, so the path replaces the path of the first one.
    curl.args(["--request-target", path]);
    https::curl_status(&curl.output().expect("curl starts"))
}

fn count(process: &Process<'_>, outcome: &str) -> Option<f64> {
    process.metric(&format!("hookhold_deliveries_total{{outcome=\"{outcome}\",source=\"github\"}}"))
}

#[test]
fn a_source_accepts_only_certificates_of_its_ca_and_subject() {
    let (authority, other, pair) = (Authority::new(), Authority::new(), Pair::new(30));
    let genuine = authority.issue("client", "/O=Example/CN=client.example.com", "DNS:client.example.com");
    let colleague = authority.issue("colleague", "/O=Example/CN=other.example.com", "DNS:other.example.com");
    let forged = other.issue("client", "/O=Example/CN=client.example.com", "DNS:client.example.com");
    let condition = format!("client_ca = {:?}\nclient_subject = \"CN=client.example.com\"\n", authority.file("ca.pem"));
    let home = Home::new(&[("github", SECRET)], &config(&pair, &condition));
    let process = home.start();
    let mut expected = (0.0, 0.0);
    for args in [["--http1.1", "--tlsv1.3"], ["--http2", "--tlsv1.3"], ["--http2", "--tls-max"]] {
        let args = if args[1] == "--tls-max" { vec![args[0], "--tls-max", "1.2"] } else { args.to_vec() };
        let send = |certificate, path| deliver(&home, &pair, certificate, path, &args)[..3].to_owned();
        assert_eq!(send(Some(&genuine), "/hooks/github"), "200", "{args:?}");
        assert_eq!(send(None, "/hooks/github"), "401", "{args:?}");
        assert_eq!(send(Some(&colleague), "/hooks/github"), "401", "{args:?}");
        assert_eq!(send(Some(&forged), "/hooks/github"), "401", "{args:?}");
        assert_eq!(send(None, "/hooks/open"), "200", "{args:?}");
        assert_eq!(send(Some(&forged), "/hooks/open"), "200", "{args:?}");
        expected = (expected.0 + 1.0, expected.1 + 2.0);
        let found = (count(&process, "client_certificate_missing"), count(&process, "client_certificate_invalid"));
        assert_eq!(found, (Some(expected.0), Some(expected.1)), "{args:?}");
    }
    let log = home.log();
    for hint in [
        "expected one (client_ca of this source), found none",
        "found one of another CA",
        "expected the subject in client_subject, found other.example.com",
    ] {
        assert!(log.contains(hint), "{hint}: {log}");
    }
    let doctor = home.verb(&["doctor", "github"]);
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert_eq!(doctor.status.code(), Some(1), "{text}");
    assert!(text.contains("rejects the delivery as client_certificate_missing"), "{text}");
    assert!(text.contains("certain: client certificate: expected one issued by "), "{text}");
}

#[test]
fn a_reload_replaces_the_ca_and_removes_the_condition() {
    let (first, second, pair) = (Authority::new(), Authority::new(), Pair::new(30));
    let old = first.issue("client", "/CN=client", "URI:spiffe://example.com/client");
    let new = second.issue("client", "/CN=client", "URI:spiffe://example.com/client");
    let ca = first.file("current.pem");
    fs::copy(first.file("ca.pem"), &ca).expect("target/ can be written to");
    let home = Home::new(&[("github", SECRET)], &config(&pair, ""));
    let process = home.start();
    let send = |certificate| deliver(&home, &pair, certificate, "/hooks/github", &[])[..3].to_owned();
    assert_eq!(send(None), "200");
    home.configure(&config(&pair, &format!("client_ca = {ca:?}\nclient_subject = \"URI=spiffe://example.com/*\"\n")));
    assert!(process.reload());
    assert_eq!((send(None), send(Some(&old)), send(Some(&new))), ("401".into(), "200".into(), "401".into()));
    fs::copy(second.file("ca.pem"), &ca).expect("target/ can be written to");
    assert!(process.reload());
    assert_eq!((send(Some(&old)), send(Some(&new))), ("401".into(), "200".into()));
    fs::write(&ca, "no certificate").expect("target/ can be written to");
    assert!(!process.reload(), "an unusable file changes nothing");
    assert_eq!(send(Some(&new)), "200");
    home.configure(&config(&pair, ""));
    assert!(process.reload());
    assert_eq!(send(None), "200");
}

#[test]
fn a_session_without_a_certificate_ends_when_a_source_requires_one() {
    let (authority, pair) = (Authority::new(), Pair::new(30));
    let ca = authority.file("ca.pem");
    let home = Home::new(&[("github", SECRET)], &config(&pair, ""));
    let process = home.start();
    let session = authority.file("session");
    let session = session.to_str().expect("a path in target/");
    let resumes = |option| {
        let output = https::s_client(home.hooks, &["-tls1_2", option, session]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("New, TLSv1.2") || text.contains("Reused, TLSv1.2"), "{text}");
        text.contains("Reused, TLSv1.2")
    };
    assert!(!resumes("-sess_out"));
    assert!(resumes("-sess_in"), "the listener resumes sessions");
    home.configure(&config(&pair, &format!("client_ca = {ca:?}\n")));
    assert!(process.reload());
    assert!(!resumes("-sess_in"), "the session has no certificate");
}

#[test]
fn check_explains_each_error_in_the_condition() {
    let (authority, pair) = (Authority::new(), Pair::new(30));
    let ca = authority.file("ca.pem");
    let home = Home::new(&[("github", SECRET)], "");
    home.put("text", b"no certificate");
    for (options, expected) in [
        ("client_ca = \"missing.pem\"".into(), "client_ca: missing.pem: cannot read the file: "),
        ("client_ca = \"text\"".into(), "client_ca: text: expected a certificate chain in PEM, found no valid certificate"),
        ("client_subject = \"CN=a\"".into(), "client_subject: expected client_ca in the same source, found no client_ca"),
        (format!("client_ca = {ca:?}\nclient_subject = \"client.example.com\""), "client_subject: expected a subject such as "),
    ] {
        home.configure(&config(&pair, &options));
        let output = home.verb(&["check"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(2) && text.lines().count() == 1, "{options}: {text}");
        assert!(text.contains(&format!("sources.github.{expected}")), "{options}: {text}");
    }
    home.configure(&format!("[sources.github]\nprovider = \"github\"\nsecrets = [\"file:github\"]\nclient_ca = {ca:?}\n"));
    let output = home.verb(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("sources.github.client_ca: expected [server] tls_cert and tls_key, found neither; "), "{text}");
    home.configure(&format!("{}[sources.open]\nauth = \"none\"\nclient_ca = {ca:?}\n", pair.config()));
    let output = home.verb(&["check"]);
    assert!(output.status.success(), "a certificate can replace the addresses: {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn an_expired_certificate_is_rejected_on_an_open_connection() {
    let authority = Authority::new();
    let [cert, _] = authority.issue("client", "/CN=client", "DNS:client.example.com");
    let chain = [CertificateDer::from_pem_file(cert).expect("the test wrote it")];
    let certificate = ClientCertificate::new(&chain);
    let ca = ClientCa::read(&authority.file("ca.pem")).expect("a CA");
    let condition = ClientCondition::new(ca, SubjectPattern::parse("DNS=*.example.com"));
    let now = SystemClock.now();
    let after = |days: u64| UnixMillis(now.0 + Duration::from_secs(days * 86_400).as_millis() as u64);
    assert_eq!(condition.check(&certificate, now), Ok(()));
    assert_eq!(condition.check(&certificate, after(29)), Ok(()));
    let expired = condition.check(&certificate, after(31)).expect_err("the certificate is valid for 30 days");
    assert!(expired.contains("found an expired one"), "{expired}");
}
