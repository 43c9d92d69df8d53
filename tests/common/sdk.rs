//! Creates signed deliveries with the providers' own SDKs. The SDKs run in a child process (`node tests/sdk/sign.mjs`). If a
//! provider has no SDK, or the SDK cannot sign the delivery, the `openssl` command computes the signature. No code in this file
//! computes a signature, so the tests do not check hookhold's verifier with hookhold's own code.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A delivery to sign. A signature scheme uses only the fields that the provider signs or sends.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// Name of the signature scheme in `tests/sdk/sign.mjs`, such as `stripe` or `standard-webhooks`.
    pub scheme: &'a str,
    /// Secret to sign with, in the format of the provider's dashboard.
    pub secret: &'a str,
    /// Message id of the delivery.
    pub id: &'a str,
    /// Signing time of the delivery, Unix seconds.
    pub timestamp: u64,
    /// Request body, not necessarily UTF-8.
    pub body: &'a [u8],
}

/// Headers of a signed delivery, and the name of the signer.
#[derive(Deserialize)]
pub struct Signed {
    /// Package and version of the SDK that signed or verified the delivery, or `openssl` if the SDK cannot handle the body. No
    /// SDK can handle a body that is not UTF-8, and the SDKs of GitHub and Shopify reject an empty body. The SDKs of Slack and
    /// Shopify cannot compute a signature, so openssl computes the signature and the SDK verifies it.
    pub by: String,
    /// Names and values of the signed request headers, in the order in which the provider sends them.
    pub headers: Vec<(String, String)>,
}

/// Child process that signs deliveries with the providers' SDKs. The process ends when this value is dropped.
pub struct Sdk {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Sdk {
    /// Starts the signing process with the command in `HOOKHOLD_NODE`, or with `node` if the variable is not set. If the
    /// npm packages are not installed, panics with the command that installs them.
    pub fn start() -> Sdk {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
        assert!(dir.join("node_modules/stripe").is_dir(), "no SDKs in tests/sdk: run tests/run, or `npm ci` in tests/sdk");
        let node = std::env::var_os("HOOKHOLD_NODE").unwrap_or_else(|| "node".into());
        let mut child = Command::new(node)
            .arg(dir.join("sign.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts: tests/run installs it");
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Sdk { child, requests, answers }
    }

    /// Signs the delivery `sample` with the provider's own SDK.
    pub fn sign(&mut self, sample: Sample<'_>) -> Signed {
        self.sign_for_url(sample, "")
    }

    /// Signs the delivery `sample` for a provider whose signature also covers the URL. `url` is the URL to which the
    /// provider sends the delivery.
    pub fn sign_for_url(&mut self, sample: Sample<'_>, url: &str) -> Signed {
        #[derive(Serialize)]
        struct Request<'a> {
            scheme: &'a str,
            secret: &'a str,
            id: &'a str,
            timestamp: u64,
            url: &'a str,
            body: String,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Reply {
            Signed(Signed),
            Failed { error: String },
        }
        let Sample { scheme, secret, id, timestamp, body } = sample;
        let request = Request { scheme, secret, id, timestamp, url, body: STANDARD.encode(body) };
        let mut line = serde_json::to_string(&request).expect("a request is strings and a number");
        line.push('\n');
        let requests = self.requests.as_mut().expect("open until dropped");
        requests.write_all(line.as_bytes()).and_then(|()| requests.flush()).expect("the signer is alive");
        line.clear();
        self.answers.read_line(&mut line).expect("the signer answers with text");
        match serde_json::from_str(&line).unwrap_or_else(|error| panic!("the signer answered {line:?}: {error}")) {
            Reply::Signed(signed) => signed,
            Reply::Failed { error } => panic!("the {scheme} SDK failed: {error}"),
        }
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

/// Computes the HMAC of `content` with the `openssl` command. `digest` is the openssl name of a hash function, such as
/// `sha256`.
pub fn openssl_hmac(digest: &str, key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args([
            "dgst",
            &format!("-{digest}"),
            "-mac",
            "HMAC",
            "-macopt",
            &format!("hexkey:{}", base16ct::lower::encode_string(key)),
            "-binary",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl starts: tests/run installs it");
    child.stdin.take().expect("stdin is piped").write_all(content).expect("openssl reads all of it");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success() && !output.stdout.is_empty(), "openssl dgst: {}", output.status);
    output.stdout
}
