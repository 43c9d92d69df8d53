//! A CA of the tests. The `openssl` command creates the CA and the certificates, so hookhold does not check its own work.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::path::PathBuf;
use std::process::Command;

/// A CA and the certificates that it has issued, in a directory of their own.
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    /// Creates a CA, whose certificate is in the file `ca.pem`.
    pub fn new() -> Authority {
        let authority = Authority { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to") };
        let usage = "keyUsage=critical,keyCertSign";
        let args = ["-x509", "-days", "30", "-subj", "/CN=Test CA", "-addext", usage];
        run(authority.new_key("ca", "ca.pem").args(args));
        authority
    }

    /// Issues a certificate for a client. Returns the paths of the certificate and of its private key.
    pub fn issue(&self, name: &str, subject: &str, alternative: &str) -> [PathBuf; 2] {
        self.certificate(name, subject, alternative, "clientAuth", "30")
    }

    /// Like [`Authority::issue`], but the certificate ended a day ago.
    pub fn issue_expired(&self, name: &str, subject: &str, alternative: &str) -> [PathBuf; 2] {
        self.certificate(name, subject, alternative, "clientAuth", "-1")
    }

    /// Issues a certificate for a server. `alternative` has the server's names, such as `IP:127.0.0.1`.
    pub fn issue_server(&self, name: &str, alternative: &str) -> [PathBuf; 2] {
        self.certificate(name, "/CN=server", alternative, "serverAuth", "30")
    }

    /// Returns the path of a file in the directory of this CA.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn certificate(&self, name: &str, subject: &str, alternative: &str, usage: &str, days: &str) -> [PathBuf; 2] {
        let [request, certificate, key] = ["csr", "pem", "key"].map(|kind| self.file(&format!("{name}.{kind}")));
        let (alternative, usage) = (format!("subjectAltName={alternative}"), format!("extendedKeyUsage={usage}"));
        let extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &usage, "-addext", &alternative];
        run(self.new_key(name, &format!("{name}.csr")).args(["-subj", subject]).args(extensions));
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-req", "-copy_extensions", "copy", "-days", days]).arg("-in").arg(request);
        openssl.arg("-CA").arg(self.file("ca.pem")).arg("-CAkey").arg(self.file("ca.key"));
        run(openssl.arg("-out").arg(&certificate));
        [certificate, key]
    }

    /// Returns a command that makes a key and writes a certificate request or, with `-x509`, a certificate to the file `output`.
    fn new_key(&self, name: &str, output: &str) -> Command {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.arg("-keyout").arg(self.file(&format!("{name}.key"))).arg("-out").arg(self.file(output));
        openssl
    }
}

fn run(openssl: &mut Command) {
    let output = openssl.output().expect("openssl starts: tests/run installs it");
    assert!(output.status.success(), "{output:?}");
}
