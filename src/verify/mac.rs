//! Computes and compares HMACs. Prepares each key once, and clones the prepared state for each MAC. Compares MACs in constant
//! time.

use hmac::{Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::source::recipe::Algorithm;

/// A message authentication code (MAC) of any supported algorithm. The MAC is in the first `size` bytes of `bytes`.
#[derive(Clone, Copy)]
pub(super) struct Mac {
    bytes: [u8; MAX_MAC],
    size: usize,
}

impl Mac {
    /// Creates a MAC from the first `size` bytes of `bytes`. `size` is at most [`MAX_MAC`].
    pub(super) fn new(bytes: [u8; MAX_MAC], size: usize) -> Mac {
        Mac { bytes, size }
    }

    /// Returns the bytes of the MAC.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    fn of(mac: &[u8]) -> Mac {
        let mut bytes = [0; MAX_MAC];
        bytes[..mac.len()].copy_from_slice(mac);
        Mac { bytes, size: mac.len() }
    }
}

/// An HMAC key, prepared for one algorithm.
#[derive(Clone)]
pub(super) enum MacKey {
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
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> MacKey {
        const ANY: &str = "HMAC accepts keys of any length";
        match algorithm {
            Algorithm::Sha1 => MacKey::Sha1(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha256 => MacKey::Sha256(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha384 => MacKey::Sha384(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha512 => MacKey::Sha512(Hmac::new_from_slice(key).expect(ANY)),
        }
    }

    /// Computes the MAC of content that consists of several slices.
    pub(super) fn mac(&self, content: &[&[u8]]) -> Mac {
        each!(self.clone(), hmac => {
            let mut hmac = hmac;
            content.iter().for_each(|part| hmac.update(part));
            Mac::of(&hmac.finalize().into_bytes())
        })
    }

    /// Returns true if one of `macs` is the MAC of `content` under this key.
    pub(super) fn makes_one_of(&self, mut macs: impl Iterator<Item = Mac>, content: &[&[u8]]) -> bool {
        let own = self.mac(content);
        macs.any(|mac| bool::from(mac.bytes().ct_eq(own.bytes())))
    }
}

/// Computes the SHA-256 hash of the concatenated `parts`.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// Length of the longest MAC, in bytes.
pub(super) const MAX_MAC: usize = 64;
