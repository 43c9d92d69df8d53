//! Message authentication codes (HMAC). Each key is prepared once, and the prepared state is cloned for each delivery.

use hmac::{Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use crate::source::recipe::Algorithm;
use crate::verify::code::Code;
use crate::verify::content::Content;
use crate::verify::hash::Hash;

/// An HMAC key, prepared for one algorithm.
#[derive(Clone)]
pub(in crate::verify) enum MacKey {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

macro_rules! each {
    ($key:expr, $name:ident => $body:expr) => {
        match $key {
            MacKey::Sha1($name) => $body,
            MacKey::Sha256($name) => $body,
            MacKey::Sha384($name) => $body,
            MacKey::Sha512($name) => $body,
        }
    };
}

impl MacKey {
    /// Prepares an HMAC key from key bytes of any length.
    pub(in crate::verify) fn new(algorithm: Algorithm, key: &[u8]) -> MacKey {
        const ANY: &str = "HMAC accepts keys of any length";
        match algorithm {
            Algorithm::Sha1 => MacKey::Sha1(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha256 => MacKey::Sha256(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha384 => MacKey::Sha384(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha512 => MacKey::Sha512(Hmac::new_from_slice(key).expect(ANY)),
        }
    }

    /// Computes the MAC of content that consists of several slices.
    pub(in crate::verify) fn mac(&self, content: &Content<'_>) -> Hash {
        each!(self, hmac => {
            let mut hmac = hmac.clone();
            content.parts().for_each(|part| hmac.update(part));
            Hash::of(&hmac.finalize().into_bytes())
        })
    }

    /// Returns true if one of `codes` is the MAC of `content` under this key.
    pub(super) fn signed<'c>(&self, content: &Content<'_>, mut codes: impl Iterator<Item = &'c Code>) -> bool {
        let own = self.mac(content);
        codes.any(|code| code.equals(own.bytes()))
    }
}
