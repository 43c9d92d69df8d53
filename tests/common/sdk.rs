//! Signs deliveries with the providers' own SDKs, which run in a child process (`node tests/sdk/sign.mjs`). For sources
//! without an SDK, the `openssl` command computes the MAC. No code in this file computes a signature, so the tests do not
//! check hookhold's verifier with hookhold's own code.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A request to sign. Each scheme uses only the fields that its provider signs or sends.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// Name of a scheme in `tests/sdk/sign.mjs`, such as `stripe` or `standard-webhooks`.
    pub scheme: &'a str,
    /// Secret in the format of the provider's dashboard.
    pub secret: &'a str,
    /// Message id.
    pub id: &'a str,
    /// Time of the signature, Unix seconds.
    pub timestamp: u64,
    /// Body of any bytes.
    pub body: &'a [u8],
}

/// The signed headers of a delivery, and the name of the signer.
#[derive(Deserialize)]
pub struct Signed {
    /// Package and version of the SDK, or `openssl` if the SDK cannot sign the body. No SDK can sign a body that is not
    /// UTF-8, and the SDKs of GitHub and Shopify cannot sign an empty body. The SDKs of Slack and Shopify can only verify,
    /// so they verify a signature that openssl has computed.
    pub by: String,
    /// Header names and values, in the order in which the provider sends them.
    pub headers: Vec<(String, String)>,
}

/// The child process that signs. Dropping the value ends the process.
pub struct Sdk {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Sdk {
    /// Starts the command in `HOOKHOLD_NODE`, or `node` if the variable is not set. If the packages are not installed,
    /// panics with the command that installs them.
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

    /// Signs `sample` with the provider's own SDK.
    pub fn sign(&mut self, sample: Sample<'_>) -> Signed {
        self.sign_for_url(sample, "")
    }

    /// Signs `sample` and `url`, for a provider that signs the URL to which it sends a delivery.
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

/// Computes the HMAC of `content` with the `openssl` command. `digest` is openssl's name of a digest, such as `sha256`.
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
