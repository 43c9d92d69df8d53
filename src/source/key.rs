//! Decodes a configured secret into a signing key. Each key has a name. hookhold never prints the bytes of a key. The verifier
//! prepares each key for the algorithm of the recipe.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use subtle::ConstantTimeEq;

use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::source::recipe::{Encoding, KeyFormat};

/// The decoded key of one configured secret.
#[derive(Clone)]
pub struct Key {
    /// The secret's name, as used in logs, metrics and record headers.
    pub name: Arc<str>,
    /// The authentication scheme and the secret's name, such as `mac-sha256:2026-11`.
    pub auth: Arc<str>,
    /// The time at which the key expires, or `None` if the key never expires.
    pub not_after: Option<UnixMillis>,
    configured: Secret,
    bytes: Vec<u8>,
}

impl Key {
    /// Decodes a configured secret with the steps of `format`. If decoding fails, returns the part of the diagnostic after the
    /// word "found": the secret's name, the reason and, for some reasons, a remedy. This text never contains the secret.
    pub fn decode(secret: &Secret, format: &KeyFormat, scheme: &str) -> Result<Key, String> {
        let text =
            format.strip.iter().fold(&secret.bytes[..], |rest, prefix| rest.strip_prefix(prefix.as_bytes()).unwrap_or(rest));
        let bytes = match format.encoding {
            None => Some(text.to_vec()),
            Some(Encoding::Hex) => base16ct::mixed::decode_vec(text).ok(),
            Some(Encoding::Base64) => STANDARD_PAD_INDIFFERENT.decode(text).ok(),
            Some(Encoding::Base64Url) => URL_SAFE_PAD_INDIFFERENT.decode(text).ok(),
        };
        let name = &secret.name;
        let bytes = bytes.ok_or_else(|| {
            let remedy = if secret.is_wrapped() { "; remove the whitespace or quotes around the secret" } else { "" };
            format!("{name}, which cannot be decoded{remedy}")
        })?;
        if bytes.is_empty() {
            return Err(format!("{name}, which is empty after decoding"));
        }
        let auth = format!("{scheme}:{name}").into();
        Ok(Key { name: name.clone(), auth, not_after: secret.not_after, configured: secret.clone(), bytes })
    }

    /// Returns the configured secret, so that `hookhold doctor` can try other ways to decode the secret.
    pub fn configured(&self) -> &Secret {
        &self.configured
    }

    /// Returns the decoded bytes of the key.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true if the key has not expired at `now`.
    pub fn is_valid_at(&self, now: UnixMillis) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }

    /// Returns true if this key expires and `other`, a key of the same source, expires later or never.
    pub fn is_outlived_by(&self, other: &Key) -> bool {
        self.not_after.is_some_and(|end| other.not_after.is_none_or(|later| later > end))
    }

    /// Returns true if both keys consist of the same bytes.
    pub fn is_same_secret(&self, other: &Key) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, masked)", self.auth)
    }
}
