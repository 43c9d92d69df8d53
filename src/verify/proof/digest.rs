//! Checks plain hashes over content that contains the secret.

use crate::source::recipe::Algorithm;
use crate::verify::code::Code;
use crate::verify::content::Content;
use crate::verify::hash::hash;

/// Returns true if one of `codes` is the hash of `content`.
pub(super) fn signed<'c>(algorithm: Algorithm, content: &Content<'_>, mut codes: impl Iterator<Item = &'c Code>) -> bool {
    let own = hash(algorithm, content.parts());
    codes.any(|code| code.equals(own.bytes()))
}
