//! Parses configured public keys. A key is parsed when the configuration is read, so that `hookhold check` reports a wrong key.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicKeyComponents as RsaPublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use x509_cert::der::{Decode, Encode};

use crate::source::recipe::{JwtKeyKind, PublicKeyAlgorithm, PublicKeyFormat};

/// A public key, parsed for one algorithm.
#[derive(Clone)]
pub(crate) struct PublicKey(pub(crate) ParsedPublicKey);

/// A key for JSON Web Tokens.
#[derive(Clone)]
pub(crate) struct JwtKey {
    /// The key in the form that the JWT library needs.
    pub(crate) decoding: DecodingKey,
    secret: Option<Vec<u8>>,
}

impl PublicKey {
    /// Parses the bytes of a key: a SubjectPublicKeyInfo in DER, or the bare key in the usual format of its algorithm. Returns
    /// `None` if the bytes are not a key for `algorithm`.
    pub(crate) fn parse(algorithm: PublicKeyAlgorithm, key: &[u8]) -> Option<PublicKey> {
        ParsedPublicKey::new(implementation(algorithm), key).ok().map(PublicKey)
    }
}

impl JwtKey {
    /// Creates an HMAC key.
    pub(crate) fn of_secret(secret: Vec<u8>) -> Option<JwtKey> {
        Some(JwtKey { decoding: DecodingKey::from_secret(&secret).ok()?, secret: Some(secret) })
    }

    /// Parses the bytes of a public key of this kind.
    pub(crate) fn of_public_key(kind: JwtKeyKind, key: &[u8]) -> Option<JwtKey> {
        let algorithm = match kind {
            JwtKeyKind::Secret => return None,
            JwtKeyKind::Rsa => PublicKeyAlgorithm::RsaPkcs1Sha256,
            JwtKeyKind::Ec => PublicKeyAlgorithm::EcdsaP256Fixed,
            JwtKeyKind::Ed => PublicKeyAlgorithm::Ed25519,
        };
        let parsed = PublicKey::parse(algorithm, key)?;
        let der: PublicKeyX509Der<'_> = parsed.0.as_der().ok()?;
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()));
        let decoding = match kind {
            JwtKeyKind::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            JwtKeyKind::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            _ => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        Some(JwtKey { decoding: decoding.ok()?, secret: None })
    }

    /// Returns the bytes of an HMAC key, or `None` for a public key.
    pub(crate) fn secret(&self) -> Option<&[u8]> {
        self.secret.as_deref()
    }
}

/// Decodes the text of a public key into the bytes that [`PublicKey::parse`] reads. Returns `None` if the text does not have
/// this format.
pub(crate) fn der(format: PublicKeyFormat, text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    match format {
        PublicKeyFormat::Pem => pem(text),
        PublicKeyFormat::RawHex => base16ct::mixed::decode_vec(text).ok(),
        PublicKeyFormat::RawBase64 | PublicKeyFormat::SpkiBase64 => {
            let lines: String = text.split_ascii_whitespace().collect();
            STANDARD_PAD_INDIFFERENT.decode(lines).ok()
        }
        PublicKeyFormat::Jwk => jwk(text),
    }
}

fn pem(text: &str) -> Option<Vec<u8>> {
    let document = pem::parse(text).ok()?;
    match document.tag() {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Some(document.into_contents()),
        "CERTIFICATE" => {
            let certificate = x509_cert::Certificate::from_der(document.contents()).ok()?;
            certificate.tbs_certificate().subject_public_key_info().to_der().ok()
        }
        _ => None,
    }
}

/// Returns the key of a JSON Web Key in DER. Ignores the parameters `alg`, `use` and `kid`, because the recipe names the
/// algorithm.
fn jwk(text: &str) -> Option<Vec<u8>> {
    let key: Jwk = serde_json::from_str(text).ok()?;
    let number = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    match key.algorithm {
        AlgorithmParameters::RSA(key) => {
            let components = RsaPublicKeyComponents { n: number(&key.n)?, e: number(&key.e)? };
            let der: PublicKeyX509Der<'_> = components.as_der().ok()?;
            Some(der.as_ref().to_vec())
        }
        AlgorithmParameters::EllipticCurve(key) => Some([&[4][..], &number(&key.x)?, &number(&key.y)?].concat()),
        AlgorithmParameters::OctetKeyPair(key) => number(&key.x),
        _ => None,
    }
}

fn implementation(algorithm: PublicKeyAlgorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        PublicKeyAlgorithm::Ed25519 => &ED25519,
        PublicKeyAlgorithm::EcdsaP256Der => &ECDSA_P256_SHA256_ASN1,
        PublicKeyAlgorithm::EcdsaP256Fixed => &ECDSA_P256_SHA256_FIXED,
        PublicKeyAlgorithm::RsaPkcs1Sha1 => &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        PublicKeyAlgorithm::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        PublicKeyAlgorithm::RsaPkcs1Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        PublicKeyAlgorithm::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        PublicKeyAlgorithm::RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
    }
}
