//! Decodes a configured secret into the key of a proof. A key has a name and is never printed. The verifier prepares keys for
//! use.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use subtle::ConstantTimeEq;

use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::source::recipe::{Encoding, KeyFormat};

/// One secret of a source, decoded.
#[derive(Clone)]
pub struct Key {
    /// The secret's name in logs, metrics and headers.
    pub name: Arc<str>,
    /// The scheme and the secret's name, such as `mac-sha256:2026-11`.
    pub auth: Arc<str>,
    /// The time at which the key expires, or `None` if the key does not expire.
    pub not_after: Option<UnixMillis>,
    configured: Secret,
    bytes: Vec<u8>,
}

impl Key {
    /// Decodes a configured secret by the steps of `format`. The error is the text after `found` in a diagnostic and never
    /// contains the secret.
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

    /// Returns the configured secret, so that `hookhold doctor` can decode it in other ways.
    pub fn configured(&self) -> &Secret {
        &self.configured
    }

    /// Returns the decoded bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True if the key has not expired at `now`.
    pub fn is_valid_at(&self, now: UnixMillis) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }

    /// True if `other` expires later than this key. Both keys belong to the same source.
    pub fn is_outlived_by(&self, other: &Key) -> bool {
        self.not_after.is_some_and(|end| other.not_after.is_none_or(|later| later > end))
    }

    /// True if both keys have the same bytes.
    pub fn is_same_secret(&self, other: &Key) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, masked)", self.auth)
    }
}
