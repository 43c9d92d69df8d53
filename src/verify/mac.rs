//! Computes and compares HMACs. A key is prepared once, and its state is cloned for each delivery. Codes are compared in
//! constant time.

use hmac::{Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::source::recipe::Algorithm;

/// A message authentication code of any algorithm: the first `size` bytes of `bytes`.
#[derive(Clone, Copy)]
pub(super) struct Code {
    bytes: [u8; MAX_CODE],
    size: usize,
}

impl Code {
    /// Creates a code from the first `size` bytes, at most [`MAX_CODE`].
    pub(super) fn new(bytes: [u8; MAX_CODE], size: usize) -> Code {
        Code { bytes, size }
    }

    /// Returns the code's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    fn of(code: &[u8]) -> Code {
        let mut bytes = [0; MAX_CODE];
        bytes[..code.len()].copy_from_slice(code);
        Code { bytes, size: code.len() }
    }
}

/// A prepared key.
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
    /// Prepares a key of any length.
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> MacKey {
        const ANY: &str = "HMAC takes keys of any length";
        match algorithm {
            Algorithm::Sha1 => MacKey::Sha1(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha256 => MacKey::Sha256(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha384 => MacKey::Sha384(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha512 => MacKey::Sha512(Hmac::new_from_slice(key).expect(ANY)),
        }
    }

    /// Computes the code of content given in parts.
    pub(super) fn code(&self, content: &[&[u8]]) -> Code {
        each!(self.clone(), hmac => {
            let mut hmac = hmac;
            content.iter().for_each(|part| hmac.update(part));
            Code::of(&hmac.finalize().into_bytes())
        })
    }

    /// True if one of `codes` is this key's code of `content`.
    pub(super) fn makes_one_of(&self, mut codes: impl Iterator<Item = Code>, content: &[&[u8]]) -> bool {
        let own = self.code(content);
        codes.any(|code| bool::from(code.bytes().ct_eq(own.bytes())))
    }
}

/// Computes SHA-256 over bytes given in parts.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// Length of the longest code, in bytes.
pub(super) const MAX_CODE: usize = 64;
