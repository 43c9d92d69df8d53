//! Creates certificates with the `openssl` command and sends deliveries with the `curl` command, so the client and hookhold
//! do not share a TLS library.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hookhold::certificate::CertificateFiles;

use crate::sdk::openssl_hmac;

/// Host name of every certificate in these tests.
pub const HOST: &str = "hooks.example.com";

/// Signing secret of the source `github`.
pub const SECRET: &str = "it is only for tests";

/// Configuration of the source that receives a [`Delivery`]. The file `github` contains the secret. The response deadline
/// is so long that no test reaches it.
pub const SOURCE: &str = "[sources.github]\nprovider = \"github\"\nsecrets = [\"file:github\"]\nlimits.respond_within = \"5m\"\n";

/// A self-signed certificate and its private key, in two files.
pub struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    /// Creates a certificate for [`HOST`] that is valid for `days` days, and its private key.
    pub fn new(days: u32) -> Pair {
        let pair = Pair { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to") };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-subj", "/CN=hooks.example.com", "-addext", "subjectAltName=DNS:hooks.example.com"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.arg("-days").arg(days.to_string()).arg("-out").arg(pair.cert()).arg("-keyout").arg(pair.key());
        let output = openssl.output().expect("openssl starts: tests/run installs it");
        assert!(output.status.success(), "{output:?}");
        pair
    }

    /// Returns the path of the certificate file.
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Returns the path of the private key file.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// Replaces the certificate and the private key with copies of the files `cert` and `key`. Uses a rename to replace each
    /// file, as ACME clients do.
    pub fn replace_with(&self, cert: &Path, key: &Path) {
        for (from, to) in [(cert, self.cert()), (key, self.key())] {
            let new = self.dir.path().join("new");
            fs::copy(from, &new).expect("target/ can be written to");
            fs::rename(&new, to).expect("target/ can be written to");
        }
    }

    /// Returns the paths of the certificate and the private key, for a server in the test process.
    pub fn files(&self) -> CertificateFiles {
        CertificateFiles { cert: self.cert(), key: self.key() }
    }

    /// Returns the configuration lines that enable TLS with this certificate.
    pub fn config(&self) -> String {
        format!("server.tls_cert = {:?}\nserver.tls_key = {:?}\n", self.cert(), self.key())
    }

    /// Returns the SHA-256 fingerprint of the certificate.
    pub fn fingerprint(&self) -> String {
        fingerprint(&fs::read(self.cert()).expect("the test wrote it"))
    }
}

/// Runs `openssl x509` with `args` on the certificate in `pem` and returns the output of the command.
pub fn x509(pem: &[u8], args: &[&str]) -> String {
    let output = with_input(Command::new("openssl").args(["x509", "-noout"]).args(args), pem);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("openssl prints text").trim().to_owned()
}

fn fingerprint(pem: &[u8]) -> String {
    x509(pem, &["-fingerprint", "-sha256"])
}

/// Performs a TLS handshake with the server at `address` and returns the SHA-256 fingerprint of the server's certificate.
pub fn served_fingerprint(address: SocketAddr) -> String {
    fingerprint(&s_client(address, &[]).stdout)
}

/// Runs `openssl s_client` with `args` and returns its output. The command performs a TLS handshake, then disconnects
/// without sending data.
pub fn s_client(address: SocketAddr, args: &[&str]) -> Output {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &address.to_string(), "-servername", HOST]).args(args);
    with_input(&mut openssl, b"")
}

/// A GitHub delivery whose signature the `openssl` command computes.
pub struct Delivery {
    pub id: String,
    pub body: String,
}

impl Delivery {
    /// Creates a genuine GitHub delivery with the delivery id `id`.
    pub fn new(id: &str) -> Delivery {
        Delivery { id: id.to_owned(), body: format!("{{\"zen\":\"Keep it logically awesome.\",\"id\":\"{id}\"}}") }
    }

    /// Returns the header fields of the delivery, including the signature.
    pub fn headers(&self) -> Vec<(String, String)> {
        let mac = openssl_hmac("sha256", SECRET.as_bytes(), self.body.as_bytes());
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            field("x-github-event", "push"),
            field("x-github-delivery", &self.id),
            field("x-hub-signature-256", &format!("sha256={}", base16ct::lower::encode_string(&mac))),
            field("content-type", "application/json"),
        ]
    }

    /// Returns a `curl` command that sends the header fields of this delivery. The caller adds the body. If `trust` is given,
    /// the command uses TLS and trusts only the certificate of `trust`. The command prints the response, followed by a line
    /// with the status and the HTTP version.
    pub fn curl(&self, address: SocketAddr, trust: Option<&Pair>) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "60", "-X", "POST", "-w", "\n%{http_code} %{http_version}"]);
        for (name, value) in self.headers() {
            curl.arg("-H").arg(format!("{name}: {value}"));
        }
        let scheme = if trust.is_some() { "https" } else { "http" };
        if let Some(pair) = trust {
            curl.arg("--cacert").arg(pair.cert());
        }
        curl.args(["--resolve", &format!("{HOST}:{}:{}", address.port(), address.ip())]);
        curl.arg(format!("{scheme}://{HOST}:{}/hooks/github", address.port()));
        curl
    }

    /// Sends the delivery with `curl` and returns the response status and the HTTP version, such as `200 2`.
    pub fn send(&self, address: SocketAddr, trust: Option<&Pair>, args: &[&str]) -> String {
        curl_status(&self.curl(address, trust).args(["--data-binary", &self.body]).args(args).output().expect("curl starts"))
    }
}

/// Asserts that `curl` succeeded, and returns the last line of its output.
pub fn curl_status(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "curl: {} {text}", String::from_utf8_lossy(&output.stderr));
    text.lines().last().expect("curl prints a status").to_owned()
}

fn with_input(command: &mut Command, input: &[u8]) -> Output {
    use std::io::Write;
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts: tests/run installs it");
    // Ignores errors, because a command that has already failed does not read its input.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input);
    child.wait_with_output().expect("the command ends")
}
