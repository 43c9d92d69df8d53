//! Checks public-key signatures.

use crate::source::public_key::PublicKey;
use crate::verify::code::Code;
use crate::verify::content::Content;
use crate::verify::work::Work;

/// Returns true if one of `codes` is a signature of `content` by the owner of `key`. Adds the hashes and the checks to `work`.
pub(super) fn signed<'c>(key: &PublicKey, content: &Content<'_>, mut codes: impl Iterator<Item = &'c Code>, work: &Work) -> bool {
    let forms = || key.forms().inspect(|_| work.add_public_key_check());
    match key.digest(content.parts()) {
        Some(digest) => {
            work.add(content.size());
            codes.any(|code| forms().any(|key| key.verify_digest_sig(&digest, code.bytes()).is_ok()))
        }
        None => {
            // Ed25519 hashes the content twice, so the library needs it in one piece.
            let message = content.bytes();
            let forms = || forms().inspect(|_| work.add(message.len()));
            codes.any(|code| forms().any(|key| key.verify_sig(&message, code.bytes()).is_ok()))
        }
    }
}
