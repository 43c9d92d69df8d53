//! Parses configured public keys. hookhold parses them with the configuration, so that `hookhold check` reports a wrong key.

use std::collections::BTreeMap;
use std::iter;
use std::ops::RangeInclusive;
use std::sync::Arc;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicKeyComponents as RsaPublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512, RsaPssSaltLength,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use serde::de::IgnoredAny;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Encode, Header, SliceReader, Tag};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::source::recipe::{JwtKeyKind, PublicKeyAlgorithm, PublicKeyFormat};

/// A public key, parsed for one algorithm.
#[derive(Clone)]
pub(crate) struct PublicKey {
    /// The key in the form that the library needs.
    parsed: ParsedPublicKey,
    /// The key for RSA-PSS signatures with the longest salt that fits, which is the default of `openssl dgst`. `None` for every
    /// other algorithm.
    with_longest_salt: Option<ParsedPublicKey>,
    algorithm: PublicKeyAlgorithm,
}

/// A key for JSON Web Tokens.
#[derive(Clone)]
pub(crate) struct JwtKey {
    /// The key in the form that the JWT library needs.
    pub(crate) decoding: DecodingKey,
    secret: Option<Vec<u8>>,
}

impl PublicKey {
    /// Parses the bytes of a key: a SubjectPublicKeyInfo in DER, or the bare key in the usual format of its algorithm. Rejects
    /// bytes that are not a key for `algorithm`. An error is the text that follows the name of the key in a diagnostic.
    pub(crate) fn parse(algorithm: PublicKeyAlgorithm, key: &[u8]) -> Result<PublicKey, String> {
        let word = algorithm.word();
        let parsed = ParsedPublicKey::new(implementation(algorithm), key).map_err(|_| {
            format!("which is not a key for {word}; compare algorithm and key_format with the provider's documentation")
        })?;
        // aws-lc checks the size of an RSA key only when it checks a signature.
        if let Some(sizes) = rsa_sizes(algorithm) {
            let bits = rsa_bits(&parsed).unwrap_or_default();
            if !sizes.contains(&bits) {
                let (least, most) = (sizes.start(), sizes.end());
                return Err(format!("which has {bits} bits; {word} needs {least} to {most} bits"));
            }
        }
        if algorithm == PublicKeyAlgorithm::Ed25519 && is_placeholder(&parsed) {
            return Err("which is a placeholder; write the key from the provider's dashboard to it".to_owned());
        }
        let with_longest_salt = longest_salt(algorithm).and_then(|variant| ParsedPublicKey::new(variant, key).ok());
        Ok(PublicKey { parsed, with_longest_salt, algorithm })
    }

    /// Returns the forms of the key with which a signature can verify, the usual one first.
    pub(crate) fn forms(&self) -> impl Iterator<Item = &ParsedPublicKey> {
        iter::once(&self.parsed).chain(&self.with_longest_salt)
    }

    /// Returns the hash of the concatenated `parts` that the key signs, or `None` if the algorithm signs the parts themselves.
    pub(crate) fn digest<'p>(&self, parts: impl Iterator<Item = &'p [u8]>) -> Option<Digest> {
        use PublicKeyAlgorithm::*;
        let mut context = digest::Context::new(match self.algorithm {
            Ed25519 => return None,
            RsaPkcs1Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            EcdsaP256Der | EcdsaP256Fixed | RsaPkcs1Sha256 | RsaPssSha256 => &digest::SHA256,
            RsaPkcs1Sha512 | RsaPssSha512 => &digest::SHA512,
        });
        parts.for_each(|part| context.update(part));
        Some(context.finish())
    }
}

impl JwtKey {
    /// Creates an HMAC key.
    pub(crate) fn of_secret(secret: Vec<u8>) -> Option<JwtKey> {
        Some(JwtKey { decoding: DecodingKey::from_secret(&secret).ok()?, secret: Some(secret) })
    }

    /// Parses the bytes of a public key of this kind. Reports an error in the form of [`PublicKey::parse`].
    pub(crate) fn of_public_key(kind: JwtKeyKind, key: &[u8]) -> Result<JwtKey, String> {
        const LIBRARY: &str = "which the JWT library rejects; ask the provider for another key";
        let algorithm = match kind {
            JwtKeyKind::Rsa => PublicKeyAlgorithm::RsaPkcs1Sha256,
            JwtKeyKind::Ec => PublicKeyAlgorithm::EcdsaP256Fixed,
            JwtKeyKind::Ed => PublicKeyAlgorithm::Ed25519,
            JwtKeyKind::Secret => return Err("which is a public key; use secrets".to_owned()),
        };
        let parsed = PublicKey::parse(algorithm, key)?;
        let der: PublicKeyX509Der<'_> = parsed.parsed.as_der().map_err(|_| LIBRARY)?;
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()));
        let decoding = match kind {
            JwtKeyKind::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            JwtKeyKind::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            _ => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        Ok(JwtKey { decoding: decoding.map_err(|_| LIBRARY)?, secret: None })
    }

    /// Returns the bytes of an HMAC key, or `None` for a public key.
    pub(crate) fn secret(&self) -> Option<&[u8]> {
        self.secret.as_deref()
    }
}

/// Decodes the text of a public key into the bytes that [`PublicKey::parse`] reads. An error is the text that follows the name
/// of the key in a diagnostic. The error contains nothing from the text, because the text may be a private key.
pub(crate) fn der(format: PublicKeyFormat, text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let text = std::str::from_utf8(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)).map_err(|_| NOT_TEXT)?.trim();
    let is_pem = text.contains("-----BEGIN ");
    if is_pem && format != PublicKeyFormat::Pem {
        return Err(if text.contains("PRIVATE KEY-----") { PRIVATE } else { IS_PEM });
    }
    let bytes = match format {
        PublicKeyFormat::Pem => pem(text)?,
        PublicKeyFormat::RawHex => base16ct::mixed::decode_vec(text).map_err(|_| NOT_HEX)?,
        PublicKeyFormat::RawBase64 | PublicKeyFormat::SpkiBase64 => {
            let lines: String = text.split_ascii_whitespace().collect();
            STANDARD_PAD_INDIFFERENT.decode(lines).map_err(|_| NOT_BASE64)?
        }
        PublicKeyFormat::Jwk => jwk(text)?,
    };
    if is_private(&bytes) { Err(PRIVATE) } else { Ok(bytes) }
}

fn pem(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.contains("PRIVATE KEY-----") {
        return Err(PRIVATE);
    }
    let mut documents = pem::parse_many(text).map_err(|_| NOT_PEM)?;
    let document = documents.pop().ok_or(NOT_PEM)?;
    if !documents.is_empty() || text.matches("-----BEGIN ").count() > 1 {
        return Err(SEVERAL);
    }
    match document.tag() {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Ok(document.into_contents()),
        "CERTIFICATE" => {
            let certificate = x509_cert::Certificate::from_der(document.contents()).map_err(|_| NOT_CERTIFICATE)?;
            certificate.tbs_certificate().subject_public_key_info().to_der().map_err(|_| NOT_CERTIFICATE)
        }
        _ => Err(OTHER_PEM),
    }
}

/// Returns the key of a JSON Web Key in DER. Ignores the parameters `alg`, `use` and `kid`, because the recipe names the
/// algorithm.
fn jwk(text: &str) -> Result<Vec<u8>, &'static str> {
    let members: BTreeMap<String, IgnoredAny> = serde_json::from_str(text).map_err(|_| NOT_JWK)?;
    if ["d", "k"].iter().any(|secret| members.contains_key(*secret)) {
        return Err(PRIVATE);
    }
    if members.contains_key("keys") {
        return Err(KEY_SET);
    }
    let key: Jwk = serde_json::from_str(text).map_err(|_| NOT_JWK)?;
    let number = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| NOT_JWK);
    match key.algorithm {
        AlgorithmParameters::RSA(key) => {
            let components = RsaPublicKeyComponents { n: number(&key.n)?, e: number(&key.e)? };
            let der: PublicKeyX509Der<'_> = components.as_der().map_err(|_| NOT_JWK)?;
            Ok(der.as_ref().to_vec())
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Ok([&[UNCOMPRESSED][..], &number(&key.x)?, &number(&key.y)?].concat())
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => number(&key.x),
        _ => Err(OTHER_JWK),
    }
}

/// Returns the key id (`kid`) of a JSON Web Key, or `None` for another text and for a key without an id.
pub(crate) fn jwk_id(text: &[u8]) -> Option<Arc<str>> {
    let key: Jwk = serde_json::from_slice(text).ok()?;
    key.common.key_id.map(Into::into)
}

/// Returns true for a private key in DER: a sequence that begins with a version number. A public key begins with another
/// element or with the modulus, which has more than one byte.
fn is_private(der: &[u8]) -> bool {
    let Ok(mut reader) = SliceReader::new(der) else { return false };
    let version = Header::decode(&mut reader).ok().filter(|header| header.tag() == Tag::Sequence);
    version.and_then(|_| u8::decode(&mut reader).ok()).is_some()
}

/// Returns the length of the modulus of an RSA key in bits.
fn rsa_bits(key: &ParsedPublicKey) -> Option<u32> {
    let der: PublicKeyX509Der<'_> = key.as_der().ok()?;
    let info = SubjectPublicKeyInfoRef::from_der(der.as_ref()).ok()?;
    let mut reader = SliceReader::new(info.subject_public_key.as_bytes()?).ok()?;
    Header::decode(&mut reader).ok()?;
    let modulus = UintRef::decode(&mut reader).ok()?;
    let (first, rest) = modulus.as_bytes().split_first()?;
    Some(u8::BITS - first.leading_zeros() + rest.len() as u32 * u8::BITS)
}

fn rsa_sizes(algorithm: PublicKeyAlgorithm) -> Option<RangeInclusive<u32>> {
    use PublicKeyAlgorithm::*;
    match algorithm {
        RsaPkcs1Sha1 => Some(1024..=8192),
        RsaPkcs1Sha256 | RsaPkcs1Sha512 | RsaPssSha256 | RsaPssSha512 => Some(2048..=8192),
        Ed25519 | EcdsaP256Der | EcdsaP256Fixed => None,
    }
}

/// Returns true for an Ed25519 key whose inner bytes are all equal, such as 32 zeros. Such a key is a placeholder. Some of these
/// keys are points of small order, and anyone can sign for such a point.
fn is_placeholder(key: &ParsedPublicKey) -> bool {
    let bytes = key.as_ref();
    let inner = bytes.get(bytes.len().saturating_sub(31)..bytes.len().saturating_sub(1)).unwrap_or_default();
    inner.iter().all(|byte| *byte == inner[0])
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

/// Returns the implementation of RSA-PSS with the longest salt, or `None` for another algorithm. The usual implementation accepts
/// only a salt as long as the hash (RFC 7518).
fn longest_salt(algorithm: PublicKeyAlgorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        PublicKeyAlgorithm::RsaPssSha256 => Some(&const { RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max) }),
        PublicKeyAlgorithm::RsaPssSha512 => Some(&const { RSA_PSS_2048_8192_SHA512.with_pss_salt_length(RsaPssSaltLength::Max) }),
        _ => None,
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// First byte of an elliptic-curve point that is written with both coordinates.
const UNCOMPRESSED: u8 = 4;
const PRIVATE: &str =
    "which contains a private or symmetric key; write only the public key to it, for example with `openssl pkey -pubout`";
const SEVERAL: &str = "which contains several PEM documents; write each key to its own file";
const NOT_TEXT: &str = "which is not text; write the key in the form of key_format to it";
const IS_PEM: &str = "which is a PEM document; set key_format = \"pem\"";
const NOT_PEM: &str = "which is not a PEM document; compare key_format with the key, and refer to a file with \"file:PATH\"";
const OTHER_PEM: &str = "which is another kind of PEM document; use BEGIN PUBLIC KEY, BEGIN RSA PUBLIC KEY or BEGIN CERTIFICATE";
const NOT_CERTIFICATE: &str = "which is not a valid certificate; download it again";
const NOT_HEX: &str = "which is not hexadecimal; compare key_format with the key, and refer to a file with \"file:PATH\"";
const NOT_BASE64: &str = "which is not Base64; compare key_format with the key, and refer to a file with \"file:PATH\"";
const NOT_JWK: &str = "which is not a JSON Web Key; compare key_format with the key, and refer to a file with \"file:PATH\"";
const KEY_SET: &str = "which is a set of JSON Web Keys; write each key of the set to its own file";
const OTHER_JWK: &str = "which is a JSON Web Key of another kind; use RSA, EC with P-256 or OKP with Ed25519";
