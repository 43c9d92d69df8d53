//! Hash functions over content that consists of several slices.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::source::recipe::Algorithm;

/// The output of a hash function or an HMAC: the first `size` bytes of `bytes`.
#[derive(Clone, Copy)]
pub(super) struct Hash {
    bytes: [u8; 64],
    size: usize,
}

impl Hash {
    /// Copies the output of a hash function, which is at most 64 bytes long.
    pub(super) fn of(output: &[u8]) -> Hash {
        let mut bytes = [0; 64];
        bytes[..output.len()].copy_from_slice(output);
        Hash { bytes, size: output.len() }
    }

    /// Returns the bytes of the hash.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// Computes the hash of the concatenated `parts`.
pub(super) fn hash<'p>(algorithm: Algorithm, parts: impl Iterator<Item = &'p [u8]>) -> Hash {
    match algorithm {
        Algorithm::Sha1 => Hash::of(&output::<Sha1>(parts)),
        Algorithm::Sha256 => Hash::of(&output::<Sha256>(parts)),
        Algorithm::Sha384 => Hash::of(&output::<Sha384>(parts)),
        Algorithm::Sha512 => Hash::of(&output::<Sha512>(parts)),
    }
}

/// Computes the SHA-256 hash of the concatenated `parts`.
pub(super) fn sha256<'p>(parts: impl Iterator<Item = &'p [u8]>) -> [u8; 32] {
    output::<Sha256>(parts).into()
}

fn output<'p, H: Digest>(parts: impl Iterator<Item = &'p [u8]>) -> sha2::digest::Output<H> {
    let mut hash = H::new();
    parts.for_each(|part| hash.update(part));
    hash.finalize()
}
