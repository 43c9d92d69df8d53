//! A configured secret as the key of a proof: decoded, labelled, made ready once, and never printed.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use subtle::ConstantTimeEq;

use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::source::recipe::{Encoding, KeyFormat};

/// One secret of a source, ready to check with.
#[derive(Clone)]
pub struct Key {
    /// What logs, metrics and headers call it.
    pub name: Arc<str>,
    /// Scheme and name, such as `mac-sha256:2026-11`.
    pub auth: Arc<str>,
    /// From this moment on nothing is accepted that it signed; `None`: it has no end.
    pub not_after: Option<UnixMillis>,
    configured: Secret,
    bytes: Vec<u8>,
    ready: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Key {
    /// Follows the steps of `format` over a configured secret. `Err` says what the secret is not, without showing it.
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
            let why = if secret.is_wrapped() { ": white space or quotation marks stand around it" } else { "" };
            format!("the secret {name} cannot be decoded{why}")
        })?;
        if bytes.is_empty() {
            return Err(format!("the secret {name} is empty once decoded"));
        }
        let auth = format!("{scheme}:{name}").into();
        let (name, configured) = (name.clone(), secret.clone());
        Ok(Key { name, auth, not_after: secret.not_after, configured, bytes, ready: OnceLock::new() })
    }

    /// The configured secret, so that it can be decoded in another way.
    pub fn configured(&self) -> &Secret {
        &self.configured
    }

    /// False once its time is over.
    pub fn is_valid_at(&self, now: UnixMillis) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }

    /// True when another key of the same source stays valid for longer than this one.
    pub fn is_outlived_by(&self, other: &Key) -> bool {
        self.not_after.is_some_and(|end| other.not_after.is_none_or(|later| later > end))
    }

    /// True when both hold the same secret.
    pub fn is_same_secret(&self, other: &Key) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }

    /// What `make` prepares from the key's bytes: made at the first call, then kept. The verifier prepares one type only.
    pub fn ready<T: Any + Send + Sync>(&self, make: impl FnOnce(&[u8]) -> T) -> &T {
        let ready = self.ready.get_or_init(|| Arc::new(make(&self.bytes)));
        ready.downcast_ref().expect("a key serves one recipe, and a recipe has one kind of proof")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, masked)", self.auth)
    }
}
