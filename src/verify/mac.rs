//! Message authentication codes: the key is prepared once and cloned per delivery, codes are compared in constant time.

use hmac::{Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::source::key::Key;
use crate::source::recipe::Algorithm;

/// A code of any algorithm: the first `size` bytes count.
#[derive(Clone, Copy)]
pub struct Code {
    bytes: [u8; MAX_CODE],
    size: usize,
}

impl Code {
    /// `size` is at most [`MAX_CODE`].
    pub fn new(bytes: [u8; MAX_CODE], size: usize) -> Code {
        Code { bytes, size }
    }

    /// The code itself.
    pub fn bytes(&self) -> &[u8] {
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
pub enum Mac {
    /// HMAC-SHA1.
    Sha1(Hmac<Sha1>),
    /// HMAC-SHA256.
    Sha256(Hmac<Sha256>),
    /// HMAC-SHA384.
    Sha384(Hmac<Sha384>),
    /// HMAC-SHA512.
    Sha512(Hmac<Sha512>),
}

macro_rules! each {
    ($mac:expr, $name:ident => $body:expr) => {
        match $mac {
            Mac::Sha1($name) => $body,
            Mac::Sha256($name) => $body,
            Mac::Sha384($name) => $body,
            Mac::Sha512($name) => $body,
        }
    };
}

impl Mac {
    /// Prepares a key of any length.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Mac {
        const ANY: &str = "HMAC takes keys of any length";
        match algorithm {
            Algorithm::Sha1 => Mac::Sha1(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha256 => Mac::Sha256(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha384 => Mac::Sha384(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha512 => Mac::Sha512(Hmac::new_from_slice(key).expect(ANY)),
        }
    }

    /// The code of a content in parts.
    pub fn code(&self, content: &[&[u8]]) -> Code {
        each!(self.clone(), mac => {
            let mut mac = mac;
            content.iter().for_each(|part| mac.update(part));
            Code::of(&mac.finalize().into_bytes())
        })
    }
}

/// True when one of `codes` is the code of `content` under `key`.
pub fn fits(key: &Key, algorithm: Algorithm, content: &[&[u8]], mut codes: impl Iterator<Item = Code>) -> bool {
    let own = key.ready(|bytes| Mac::new(algorithm, bytes)).code(content);
    codes.any(|code| bool::from(code.bytes().ct_eq(own.bytes())))
}

/// SHA-256 of bytes in parts.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The longest code, in bytes.
pub const MAX_CODE: usize = 64;
