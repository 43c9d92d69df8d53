//! The bytes of a signature, a MAC or a hash as a request states them. A code has any length up to [`MAX_CODE`], so that RSA
//! signatures and DER sequences fit. Codes of up to 64 bytes need no allocation.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_PAD_INDIFFERENT};

use crate::source::recipe::Encoding;

/// The decoded bytes of a signature, a MAC or a hash.
#[derive(Clone)]
pub(super) enum Code {
    /// A code of at most [`SHORT`] bytes: the first `size` bytes of the array.
    Short([u8; SHORT], usize),
    /// A longer code.
    Long(Box<[u8]>),
}

impl Code {
    /// Decodes the text of a code. Returns `None` if the text is empty, does not have this encoding, or is longer than
    /// [`MAX_CODE`] bytes after decoding.
    pub(super) fn decode(encoding: Encoding, text: &str) -> Option<Code> {
        let longest = match encoding {
            Encoding::Hex => text.len() / 2,
            Encoding::Base64 | Encoding::Base64Url => text.len() / 4 * 3 + 3,
        };
        if text.is_empty() || longest > MAX_CODE + 3 {
            return None;
        }
        let mut bytes = [0; SHORT + 3];
        if longest <= bytes.len() {
            let size = decode_into(encoding, text, &mut bytes)?;
            if size <= SHORT {
                let mut short = [0; SHORT];
                short.copy_from_slice(&bytes[..SHORT]);
                return Some(Code::Short(short, size));
            }
        }
        let mut bytes = vec![0; longest];
        let size = decode_into(encoding, text, &mut bytes)?;
        bytes.truncate(size);
        (size <= MAX_CODE).then(|| Code::Long(bytes.into()))
    }

    /// Returns the bytes of the code.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Code::Short(bytes, size) => &bytes[..*size],
            Code::Long(bytes) => bytes,
        }
    }

    /// Returns true if the code consists of `expected`. The comparison takes the same time wherever the bytes differ.
    pub(super) fn equals(&self, expected: &[u8]) -> bool {
        verify_slices_are_equal(self.bytes(), expected).is_ok()
    }
}

fn decode_into(encoding: Encoding, text: &str, bytes: &mut [u8]) -> Option<usize> {
    match encoding {
        Encoding::Hex => base16ct::mixed::decode(text, bytes).ok().map(<[u8]>::len),
        Encoding::Base64 => STANDARD.decode_slice(text, bytes).ok(),
        Encoding::Base64Url => URL_SAFE_PAD_INDIFFERENT.decode_slice(text, bytes).ok(),
    }
}

/// Length of the longest code that needs no allocation, in bytes: a SHA-512 hash or an Ed25519 signature.
pub(super) const SHORT: usize = 64;
/// Maximum length of a code, in bytes: a signature with an RSA key of 8,192 bits.
pub(super) const MAX_CODE: usize = 1024;
