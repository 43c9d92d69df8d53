//! Checks public-key signatures.

use crate::source::public_key::PublicKey;
use crate::verify::code::Code;
use crate::verify::content::Content;

/// Returns true if one of `codes` is a signature of `content` by the owner of `key`.
pub(super) fn signed<'c>(key: &PublicKey, content: &Content<'_>, mut codes: impl Iterator<Item = &'c Code>) -> bool {
    match key.digest(content.parts()) {
        Some(digest) => codes.any(|code| key.forms().any(|key| key.verify_digest_sig(&digest, code.bytes()).is_ok())),
        None => {
            // Ed25519 hashes the content twice, so the library needs it in one piece.
            let message = content.bytes();
            codes.any(|code| key.forms().any(|key| key.verify_sig(&message, code.bytes()).is_ok()))
        }
    }
}
