//! Tests that doctor names the change that an API gateway, a serverless function or a proxy has made to a body. Each change is
//! tested with two providers.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::process::{Home, post};
use crate::sdk::{Sample, Sdk};
use crate::{SECRETS, SIGNED, SOURCES, Signed, TWILIO, causes, examine};

const BODY: &str = "{\"id\":\"evt_1\",\"text\":\"a + b = c & é\"}";
const LINES: &str = "{\n\"id\": 1\n}\n";

#[test]
fn a_body_that_a_gateway_changed_is_found() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let quoted = serde_json::to_string(BODY).expect("text");
    let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("payload", BODY).finish();
    for (scheme, secret) in SIGNED {
        for (signed, arrived, expected) in [
            (BODY, STANDARD.encode(BODY), "body_base64"),
            (BODY, format!("{}\n", STANDARD.encode(BODY)), "body_base64"),
            (BODY, quoted.clone(), "body_stringified"),
            (BODY, serde_json::to_string(&quoted).expect("text"), "body_stringified"),
            (BODY, format!("{{\"body\":{quoted},\"isBase64Encoded\":false}}"), "body_envelope"),
            (BODY, format!("{{\"body\":\"{}\",\"isBase64Encoded\":true}}", STANDARD.encode(BODY)), "body_envelope"),
            (BODY, format!("{{\"Records\":[{{\"kind\":1}},{{\"body\":{quoted}}}]}}"), "body_envelope"),
            (BODY, form.clone(), "body_form_wrapped"),
            (BODY, format!("{}=", &form["payload=".len()..]), "body_form_wrapped"),
            (&form, BODY.to_owned(), "body_form_wrapped"),
            (LINES, LINES.replace('\n', "\r\n"), "body_newline"),
            (&LINES.replace('\n', "\r\n"), LINES.to_owned(), "body_newline"),
            (LINES, LINES.trim_end().to_owned(), "body_newline"),
        ] {
            let request = Signed::new(&mut sdk, scheme, secret, signed).with(&arrived);
            assert_eq!(causes(&home, scheme, &request), [expected], "{scheme}: {signed:?} arrived as {arrived:?}");
        }
    }
}

/// The signature of most providers does not show which body was signed, so doctor cannot prove that an empty body is not the
/// signed one. A signed hash of the body shows it.
#[test]
fn an_emptied_body_is_likely_and_proved_by_a_hash() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    for (scheme, secret) in SIGNED {
        let request = Signed::new(&mut sdk, scheme, secret, BODY).with("");
        assert_eq!(causes(&home, scheme, &request), ["body_emptied?", "other_secret?", "body_changed?"], "{scheme}");
        for left in ["undefined", "[object Object]\n"] {
            let request = Signed::new(&mut sdk, scheme, secret, BODY).with(left);
            assert_eq!(causes(&home, scheme, &request), ["body_emptied?", "other_secret?", "body_changed?"], "{scheme}: {left}");
        }
        let mut request = Signed::new(&mut sdk, scheme, secret, BODY).with(BODY);
        request.truncate(request.len() - BODY.len());
        assert_eq!(causes(&home, scheme, &request)[0], "body_incomplete?", "{scheme}: the recording lacks the body");
    }
    let hash = |body: &str| base16ct::lower::encode_string(&<sha2::Sha256 as sha2::Digest>::digest(body));
    let target = format!("/hooks/twilio?bodySHA256={}", hash(BODY));
    let sample = Sample { scheme: "twilio", secret: TWILIO, id: "", timestamp: 0, body: BODY.as_bytes() };
    let headers = sdk.sign_for_url(sample, &format!("https://hooks.example.com{target}")).headers;
    assert_eq!(causes(&home, "twilio", &post(&target, &headers, b"")), ["body_emptied"]);
    assert_eq!(causes(&home, "twilio", &post(&target, &headers, b"{}")), ["body_changed"]);
    let quoted = serde_json::to_string(BODY).expect("text");
    assert_eq!(causes(&home, "twilio", &post(&target, &headers, quoted.as_bytes())), ["body_stringified"]);
}

#[test]
fn a_query_that_was_signed_in_another_order_is_found() {
    let square = "[sources.square]\npublic_url = \"https://hooks.example.com\"\nauth = \"mac\"\nalgorithm = \"sha256\"\n\
                  encoding = \"base64\"\nsignature = { from = \"header:x-square\" }\ncontent = [\"url\", \"body\"]\n\
                  secrets = [\"file:github-key\"]\n\
                  [sources.path]\nauth = \"mac\"\nalgorithm = \"sha256\"\ncontent = [\"method\", \"path-and-query\", \"body\"]\n\
                  signature = { from = \"header:x-path\" }\nsecrets = [\"file:github-key\"]\n";
    let (home, mut sdk) = (Home::new(SECRETS, &(SOURCES.to_owned() + square)), Sdk::start());
    let form = "CallSid=CA1&CallStatus=completed";
    for (signed, arrived) in [
        ("tenant=7&agent=3", "agent=3&tenant=7"),
        ("agent=3&tenant=7", "tenant=7&agent=3"),
        ("c=1&a=2&b=3", "a=2&b=3&c=1"),
        ("g=1&b=2&f=3&a=4&e=5&c=6&d=7", "a=4&b=2&c=6&d=7&e=5&f=3&g=1"),
        ("a=1&b&a=%20", "b&a=%20&a=1"),
        ("z=1&y=2&x=3&w=4&v=5&u=6&t=7&s=8&r=9&q=10", "q=10&r=9&s=8&t=7&u=6&v=5&w=4&x=3&y=2&z=1"),
    ] {
        let sample = Sample { scheme: "twilio", secret: TWILIO, id: "", timestamp: 0, body: form.as_bytes() };
        let url = |name: &str| format!("https://hooks.example.com/hooks/{name}?{signed}");
        let headers = sdk.sign_for_url(sample, &url("twilio")).headers;
        let request = post(&format!("/hooks/twilio?{arrived}"), &headers, form.as_bytes());
        assert_eq!(causes(&home, "twilio", &request), ["query_order"], "{signed} arrived as {arrived}");
        let code = crate::sdk::openssl_hmac("sha256", crate::GITHUB.as_bytes(), format!("{}{BODY}", url("square")).as_bytes());
        let headers = [("x-square".to_owned(), STANDARD.encode(code))];
        let request = post(&format!("/hooks/square?{arrived}"), &headers, BODY.as_bytes());
        assert_eq!(causes(&home, "square", &request), ["query_order"], "{signed} arrived as {arrived}");
        let content = format!("POST/hooks/path?{signed}{BODY}");
        let code = crate::sdk::openssl_hmac("sha256", crate::GITHUB.as_bytes(), content.as_bytes());
        let headers = [("x-path".to_owned(), base16ct::lower::encode_string(&code))];
        let request = post(&format!("/hooks/path?{arrived}"), &headers, BODY.as_bytes());
        assert_eq!(causes(&home, "path", &request), ["query_order"], "{signed} arrived as {arrived}");
    }
    let (_, line) = examine(
        &home,
        "square",
        &post("/hooks/square?b=hush&a=1", &[("x-square".to_owned(), STANDARD.encode([0; 32]))], BODY.as_bytes()),
        &[],
    );
    assert!(!line.to_string().contains("query_order") && !line.to_string().contains("hush"), "{line}");
}

/// A URL in the provider's dashboard can contain a user name and a password, which the provider then signs.
#[test]
fn credentials_in_the_signed_url_are_found_and_masked() {
    let square = "auth = \"mac\"\nalgorithm = \"sha256\"\nencoding = \"base64\"\nsignature = { from = \"header:x-square\" }\n\
                  content = [\"url\", \"body\"]\n";
    let mut sdk = Sdk::start();
    let form = "CallSid=CA1&CallStatus=completed";
    for (signed, configured) in [
        ("https://user:hush@hooks.example.com", "https://hooks.example.com"),
        ("https://hooks.example.com", "https://user:hush@hooks.example.com"),
        ("http://user:hush@hooks.example.com", "https://user:hush@hooks.example.com"),
        ("https://user:hush@hooks.example.com/in", "https://user:quiet@hooks.example.com/in"),
    ] {
        for (source, recipe) in [("twilio", "provider = \"twilio\"\n"), ("square", square)] {
            let entry = format!("[sources.{source}]\n{recipe}public_url = {configured:?}\nsecrets = [\"file:twilio-key\"]\n");
            let home = Home::new(SECRETS, &entry);
            let url = format!("{signed}/hooks/{source}");
            let sample = Sample { scheme: "twilio", secret: TWILIO, id: "", timestamp: 0, body: form.as_bytes() };
            let mut headers = match source {
                "twilio" => sdk.sign_for_url(sample, &url).headers,
                _ => {
                    let code = crate::sdk::openssl_hmac("sha256", TWILIO.as_bytes(), format!("{url}{form}").as_bytes());
                    vec![("x-square".to_owned(), STANDARD.encode(code))]
                }
            };
            headers.push(("authorization".to_owned(), format!("Basic {}", STANDARD.encode("user:hush"))));
            let request = post(&format!("/hooks/{source}"), &headers, form.as_bytes());
            assert_eq!(causes(&home, source, &request), ["public_url"], "{source}: {signed} instead of {configured}");
            let (_, line) = examine(&home, source, &request, &[]);
            let printed = line.to_string();
            assert!(!printed.contains("hush") && !printed.contains("quiet") && printed.contains("user:***@"), "{printed}");
        }
    }
}

/// A sender may sign a body before it compresses it. Node's module `zlib` and the library of Zstandard compress the body.
#[test]
fn a_body_that_was_signed_before_its_compression_is_found() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let formats = [
        ("gzip", by_node("gzipSync")),
        ("deflate", by_node("deflateSync")),
        ("deflate", by_node("deflateRawSync")),
        ("br", by_node("brotliCompressSync")),
        ("zstd", zstd::encode_all(BODY.as_bytes(), 0).expect("memory is enough")),
    ];
    for (scheme, secret) in SIGNED {
        let signed = Signed::new(&mut sdk, scheme, secret, BODY);
        for (coding, body) in &formats {
            let mut headers = signed.headers.clone();
            headers.push(("Content-Encoding".to_owned(), (*coding).to_owned()));
            let request = post(&format!("/hooks/{scheme}"), &headers, body);
            assert_eq!(causes(&home, scheme, &request), ["body_compressed"], "{scheme}: {coding}");
            let of_compressed = post(&format!("/hooks/{scheme}"), &headers, b"{\"id\":\"evt_1\"}");
            assert_eq!(causes(&home, scheme, &of_compressed)[0], "body_decompressed?", "{scheme}: {coding}");
        }
    }
}

/// A binary body is no text whose characters were converted. Doctor must not report the bytes of a compressed body as lost
/// characters.
#[test]
fn a_binary_body_is_not_called_converted() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    for (scheme, secret) in SIGNED {
        let signed = Signed::new(&mut sdk, scheme, secret, "{}");
        for body in [by_node("gzipSync"), by_node("brotliCompressSync"), vec![0, 0xff, 0x80, 1]] {
            assert_eq!(causes(&home, scheme, &signed.with(&body)), ["other_secret?", "body_changed?"], "{scheme}");
        }
        let converted = String::from_utf8_lossy(&by_node("gzipSync")).into_owned();
        assert_eq!(causes(&home, scheme, &signed.with(&converted))[0], "body_charset?", "{scheme}");
    }
}

/// Returns [`BODY`], compressed by this function of Node's module `zlib`.
fn by_node(function: &str) -> Vec<u8> {
    let node = std::env::var_os("HOOKHOLD_NODE").unwrap_or_else(|| "node".into());
    let code = format!("process.stdout.write(require('zlib').{function}(require('fs').readFileSync(0)))");
    let mut child = Command::new(node)
        .args(["-e", &code])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts: tests/run installs it");
    child.stdin.take().expect("stdin is piped").write_all(BODY.as_bytes()).expect("node reads all of it");
    let output = child.wait_with_output().expect("node ends");
    assert!(output.status.success() && !output.stdout.is_empty(), "{function}: {}", output.status);
    output.stdout
}
