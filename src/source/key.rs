//! Decodes a configured secret or public key for the proofs of a recipe. Each key has a name. hookhold never prints the bytes
//! of a secret. The verifier prepares each secret for its algorithm.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq;

use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::source::key_kind;
use crate::source::public_key::{self, JwtKey, PublicKey};
use crate::source::recipe::{Algorithm, Encoding, KeyFormat, Proof};

/// A configured secret or public key, decoded for every proof that can use it.
#[derive(Clone)]
pub struct Key {
    /// The key's name, as used in logs, metrics and record headers.
    pub name: Arc<str>,
    /// The id by which a delivery names a public key, or `None` if the key has no id.
    pub id: Option<Arc<str>>,
    /// The time at which the key expires, or `None` if the key never expires.
    pub not_after: Option<UnixMillis>,
    /// True for a public key, false for a secret.
    pub is_public: bool,
    configured: Secret,
    /// The decoded key for each proof of the recipe, or `None` for a proof that cannot use the key.
    decoded: Vec<Option<DecodedKey>>,
}

/// A key, decoded in the format that a proof names.
#[derive(Clone)]
pub(crate) enum DecodedKey {
    /// The bytes of a secret.
    Secret(Vec<u8>),
    /// A public key for signed content.
    Public(PublicKey),
    /// A secret or public key for JSON Web Tokens.
    Jwt(JwtKey),
}

impl Key {
    /// Decodes a configured secret or public key for `proofs`. An error is the text that follows `found` in a diagnostic. The
    /// error never contains the secret.
    pub fn decode(configured: &Secret, is_public: bool, proofs: &[Proof]) -> Result<Key, String> {
        let (text, name) = (&configured.bytes[..], &configured.name);
        if configured.is_absent() {
            return Ok(Key::absent(configured, is_public, proofs));
        }
        if let Some(error) = key_kind::encoding_error(text).filter(|_| !is_public) {
            return Err(format!("{name}, {error}"));
        }
        let (mut decoded, mut first_error) = (Vec::with_capacity(proofs.len()), None);
        for proof in proofs {
            match if is_public { decoded_public(proof, text) } else { decoded_secret(proof, text) } {
                Ok(key) => decoded.push(key),
                Err(error) => {
                    decoded.push(None);
                    first_error = first_error.or(Some(error));
                }
            }
        }
        if decoded.iter().all(Option::is_none) {
            let foreign = key_kind::foreign_kind(text).filter(|_| !is_public);
            let kind = foreign.map(|kind| format!("which is {kind} instead of a signing secret"));
            let error = kind.or(first_error).unwrap_or_else(|| CANNOT_BE_DECODED.to_owned());
            let remedy = if configured.is_wrapped() { "; remove the whitespace or quotes around the secret" } else { "" };
            return Err(format!("{name}, {error}{}", if is_public { "" } else { remedy }));
        }
        let id = configured.id.clone().or_else(|| public_key::jwk_id(text).filter(|_| is_public));
        Ok(Key { name: name.clone(), id, not_after: configured.not_after, is_public, configured: configured.clone(), decoded })
    }

    /// Returns a key that verifies nothing, for a secret that the reader of the configuration has not read.
    fn absent(configured: &Secret, is_public: bool, proofs: &[Proof]) -> Key {
        let Secret { name, id, not_after, .. } = configured.clone();
        Key { name, id, not_after, is_public, configured: configured.clone(), decoded: vec![None; proofs.len()] }
    }

    /// Returns a secret with the same name and the decoded bytes `bytes`, which never expires, so that `hookhold doctor` can
    /// try other ways to decode the secret.
    pub fn with_bytes(&self, bytes: Vec<u8>, proofs: &[Proof]) -> Key {
        let decoded = proofs.iter().map(|proof| of_bytes(proof, bytes.clone()).ok().flatten()).collect();
        let configured = Secret::new(self.name.clone(), bytes);
        Key { name: self.name.clone(), id: None, not_after: None, is_public: false, configured, decoded }
    }

    /// Returns the configured secret or public key, so that `hookhold doctor` can try other ways to decode it.
    pub fn configured(&self) -> &Secret {
        &self.configured
    }

    /// Returns the key for the proof with this index in the recipe, or `None` if the proof cannot use the key.
    pub(crate) fn for_proof(&self, proof: usize) -> Option<&DecodedKey> {
        self.decoded.get(proof)?.as_ref()
    }

    /// Returns the bytes of the secret for the proof with this index, or `None` if the proof does not use this secret.
    pub(crate) fn secret_for(&self, proof: usize) -> Option<&[u8]> {
        match self.for_proof(proof)? {
            DecodedKey::Secret(bytes) => Some(bytes),
            DecodedKey::Jwt(key) => key.secret(),
            DecodedKey::Public(_) => None,
        }
    }

    /// Returns the name of the sender's account: the configured account, or the name of the key.
    pub fn account(&self) -> &Arc<str> {
        self.configured.account.as_ref().unwrap_or(&self.name)
    }

    /// Returns the bytes of the secret after decoding, or the configured text of a public key.
    pub(crate) fn secret_bytes(&self) -> &[u8] {
        self.decoded.iter().flatten().find_map(DecodedKey::secret).unwrap_or(&self.configured.bytes)
    }

    /// Returns true if the key has not expired at `now`.
    pub fn is_valid_at(&self, now: UnixMillis) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }

    /// Returns true if this key expires and the key `other` of the same source expires later or never.
    pub fn is_outlived_by(&self, other: &Key) -> bool {
        self.not_after.is_some_and(|end| other.not_after.is_none_or(|later| later > end))
    }

    /// Returns true if both keys consist of the same bytes in the configuration or after decoding.
    pub fn is_same_secret(&self, other: &Key) -> bool {
        self.secret_bytes().ct_eq(other.secret_bytes()).into()
    }
}

impl DecodedKey {
    fn secret(&self) -> Option<&[u8]> {
        match self {
            DecodedKey::Secret(bytes) => Some(bytes),
            DecodedKey::Jwt(key) => key.secret(),
            DecodedKey::Public(_) => None,
        }
    }
}

impl KeyFormat {
    /// Decodes the text of a secret. Returns `None` if the text does not have this format, or if it is empty before the hash.
    pub fn decode(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.unhashed(text).filter(|bytes| !bytes.is_empty()).map(|bytes| self.hashed(bytes))
    }

    fn unhashed(&self, text: &[u8]) -> Option<Vec<u8>> {
        let text = self.strip.iter().fold(text, |rest, prefix| rest.strip_prefix(prefix.as_bytes()).unwrap_or(rest));
        match self.encoding {
            None => Some(text.to_vec()),
            Some(Encoding::Hex) => base16ct::mixed::decode_vec(text).ok(),
            Some(Encoding::Base64) => LENIENT.decode(text).ok(),
            Some(Encoding::Base64Url) => LENIENT_URL.decode(text).ok(),
        }
    }

    fn hashed(&self, bytes: Vec<u8>) -> Vec<u8> {
        match self.hash {
            None => bytes,
            Some(Algorithm::Sha1) => digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes).as_ref().to_vec(),
            Some(_) => digest::digest(&SHA256, &bytes).as_ref().to_vec(),
        }
    }
}

/// Returns the format of the secrets that a proof uses, or `None` if the proof uses no secret.
pub(crate) fn key_format(proof: &Proof) -> Option<&KeyFormat> {
    match proof {
        Proof::Mac(proof) => Some(&proof.key_format),
        Proof::Digest(proof) => Some(&proof.key_format),
        Proof::Token(proof) => Some(&proof.key_format),
        Proof::Jwt(jwt) if !proof.uses_public_keys() => Some(&jwt.key_format),
        Proof::Basic => Some(&AS_WRITTEN),
        Proof::PublicKey(_) | Proof::Jwt(_) | Proof::None => None,
    }
}

/// Decodes the text of a secret for a proof. Returns `None` if the proof uses no secret.
fn decoded_secret(proof: &Proof, text: &[u8]) -> Result<Option<DecodedKey>, String> {
    let Some(format) = key_format(proof) else { return Ok(None) };
    let bytes = format.unhashed(text).ok_or(CANNOT_BE_DECODED)?;
    if bytes.is_empty() {
        return Err("which is empty after decoding".to_owned());
    }
    of_bytes(proof, format.hashed(bytes))
}

fn of_bytes(proof: &Proof, bytes: Vec<u8>) -> Result<Option<DecodedKey>, String> {
    if key_format(proof).is_none() {
        return Ok(None);
    }
    Ok(match proof {
        Proof::Basic if !is_credential(&bytes) => return Err(NO_CREDENTIAL.to_owned()),
        Proof::Jwt(_) => JwtKey::of_secret(bytes).map(DecodedKey::Jwt),
        _ => Some(DecodedKey::Secret(bytes)),
    })
}

/// Returns true for credentials of HTTP Basic authentication. The user name or the password may be empty, but not both.
fn is_credential(bytes: &[u8]) -> bool {
    bytes.contains(&b':') && bytes != b":"
}

/// Decodes the text of a public key for a proof. Returns `None` if the proof uses no public key.
fn decoded_public(proof: &Proof, text: &[u8]) -> Result<Option<DecodedKey>, String> {
    let key = match proof {
        Proof::PublicKey(proof) => {
            let der = public_key::der(proof.key_format, text)?;
            PublicKey::parse(proof.algorithm, &der).map(DecodedKey::Public)?
        }
        Proof::Jwt(jwt) if proof.uses_public_keys() => {
            let der = public_key::der(jwt.public_key_format, text)?;
            JwtKey::of_public_key(jwt.key_kind(), &der).map(DecodedKey::Jwt)?
        }
        _ => return Ok(None),
    };
    Ok(Some(key))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, masked)", self.name)
    }
}

/// Base64 as providers write secrets: with or without padding, and with any value in the unused bits of the last character. The
/// libraries of Standard Webhooks ignore these bits, and some senders set them.
const AS_SENDERS_WRITE: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, AS_SENDERS_WRITE);
const LENIENT_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, AS_SENDERS_WRITE);
static AS_WRITTEN: KeyFormat = KeyFormat { strip: Vec::new(), encoding: None, hash: None };
const CANNOT_BE_DECODED: &str = "which cannot be decoded";
const NO_CREDENTIAL: &str = "which is not a user name and a password; write it as USER:PASSWORD";
