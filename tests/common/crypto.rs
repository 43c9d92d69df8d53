//! Makes keys and signatures with Node's crypto, the npm library jose and the `openssl` command. No code in this file computes
//! a signature, so the tests do not check hookhold's verifier with hookhold's own code.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// A key pair. Each field except the last two contains the public key in one text format.
#[derive(Clone, Deserialize)]
pub struct KeyPair {
    /// `BEGIN PUBLIC KEY`.
    pub pem: String,
    /// `BEGIN RSA PUBLIC KEY`; empty for other kinds of key.
    pub pkcs1: String,
    /// SubjectPublicKeyInfo in Base64.
    pub spki: String,
    /// The bare key in Base64: RSAPublicKey, an uncompressed point, or 32 bytes.
    pub raw: String,
    /// JSON Web Key.
    pub jwk: String,
    /// `BEGIN PRIVATE KEY`.
    pub private: String,
    /// JSON Web Key of the private key.
    pub private_jwk: String,
}

/// Returns a new key pair of a kind such as `rsa-2048`, `p-256` or `ed25519`.
pub fn key_pair(kind: &str) -> KeyPair {
    serde_json::from_value(ask(json!({ "make": kind }))).expect("a key pair")
}

/// Returns the key pair of this kind that all tests of the process share, because an RSA key takes long to make.
pub fn shared_key_pair(kind: &'static str) -> KeyPair {
    static PAIRS: Mutex<Vec<(&str, KeyPair)>> = Mutex::new(Vec::new());
    let mut pairs = PAIRS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, pair)) = pairs.iter().find(|(have, _)| *have == kind) {
        return pair.clone();
    }
    let pair = key_pair(kind);
    pairs.push((kind, pair.clone()));
    pair
}

/// Signs `content` with Node's crypto. `algorithm` is hookhold's name of a public-key algorithm.
pub fn sign(algorithm: &str, key: &KeyPair, content: &[u8]) -> Vec<u8> {
    signature(json!({ "sign": algorithm, "key": key.private, "content": STANDARD.encode(content) }))
}

/// Computes the HMAC of `content` with Node's crypto. `hash` is a name such as `sha256`.
pub fn hmac(hash: &str, secret: &[u8], content: &[u8]) -> Vec<u8> {
    let (key, content) = (STANDARD.encode(secret), STANDARD.encode(content));
    signature(json!({ "sign": format!("hmac-{hash}"), "key": key, "content": content }))
}

/// Computes the hash of `content` with Node's crypto.
pub fn hash(hash: &str, content: &[u8]) -> Vec<u8> {
    signature(json!({ "sign": format!("hash-{hash}"), "content": STANDARD.encode(content) }))
}

/// Returns a JSON Web Token of jose with this header, such as `{"alg": "ES256"}`.
pub fn jwt(header: Value, claims: Value, key: &KeyPair) -> String {
    token(json!({ "jwt": header, "claims": claims, "key": key.private }))
}

/// Returns a JSON Web Token of jose that is signed with a secret.
pub fn jwt_with_secret(header: Value, claims: Value, secret: &[u8]) -> String {
    token(json!({ "jwt": header, "claims": claims, "key": { "secret": STANDARD.encode(secret) } }))
}

/// Signs `content` with the `openssl` command. `options` are those of `openssl dgst`, such as `-sha1`.
pub fn openssl_sign(options: &[&str], key: &KeyPair, content: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (key_file, input) = (directory.path().join("key.pem"), directory.path().join("content"));
    std::fs::write(&key_file, &key.private).and_then(|()| std::fs::write(&input, content)).expect("a temporary file");
    let key_file = key_file.to_str().expect("UTF-8");
    openssl(&[&["dgst"], options, &["-sign", key_file, input.to_str().expect("UTF-8")]].concat())
}

/// Returns a certificate in PEM that `openssl` has made for the key pair. The certificate expires after `days` days.
pub fn certificate(key: &KeyPair, days: u32) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file: PathBuf = directory.path().join("key.pem");
    std::fs::write(&file, &key.private).expect("a temporary file");
    let (file, days) = (file.to_str().expect("UTF-8"), days.to_string());
    let output = openssl(&["req", "-x509", "-key", file, "-subj", "/CN=messageverificationcerts.example", "-days", &days]);
    String::from_utf8(output).expect("PEM is text")
}

fn openssl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(args).output().expect("openssl starts: tests/run installs it");
    assert!(output.status.success() && !output.stdout.is_empty(), "openssl {args:?}: {output:?}");
    output.stdout
}

fn signature(request: Value) -> Vec<u8> {
    let reply = ask(request);
    STANDARD.decode(reply["signature"].as_str().expect("a signature")).expect("Base64")
}

fn token(request: Value) -> String {
    ask(request)["token"].as_str().expect("a token").to_owned()
}

/// The child process that runs `tests/sdk/crypto.mjs`. The process ends with the test process, when its input closes.
struct Node {
    _child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

fn ask(request: Value) -> Value {
    let mut node = node();
    let mut line = request.to_string();
    line.push('\n');
    node.requests.write_all(line.as_bytes()).and_then(|()| node.requests.flush()).expect("node is alive");
    line.clear();
    node.answers.read_line(&mut line).expect("node answers with text");
    let reply: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("node answered {line:?}: {error}"));
    assert!(reply.get("error").is_none(), "{request}: {reply}");
    reply
}

fn node() -> MutexGuard<'static, Node> {
    static NODE: OnceLock<Mutex<Node>> = OnceLock::new();
    let start = || {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
        assert!(dir.join("node_modules/jose").is_dir(), "jose is missing: run tests/run, or `npm ci` in tests/sdk");
        let node = std::env::var_os("HOOKHOLD_NODE").unwrap_or_else(|| "node".into());
        let mut child = Command::new(node)
            .arg(dir.join("crypto.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts: tests/run installs it");
        let requests = child.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Mutex::new(Node { _child: child, requests, answers })
    };
    NODE.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner)
}
