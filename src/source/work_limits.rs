//! Limits the work of the proof checks. The operator determines the number of keys and of alternative contents, and the sender
//! determines the number of signatures. This file limits both numbers, so that their product is limited.

use crate::source::key::Key;
use crate::source::recipe::Proof;

/// The work that the keys and the recipe of a source cause for each part of a signature header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkLimits {
    /// Number of hashes for one signature group: the number of alternative contents for each secret or public key.
    hashes_per_group: usize,
    /// Number of public-key checks for one signature or token.
    checks_per_signature: usize,
}

impl WorkLimits {
    /// Counts the work for a source with these proofs and keys.
    pub(crate) fn new(proofs: &[Proof], keys: &[Key]) -> WorkLimits {
        let mut limits = WorkLimits { hashes_per_group: 0, checks_per_signature: 0 };
        for (index, proof) in proofs.iter().enumerate() {
            let keys = keys.iter().filter(|key| key.for_proof(index).is_some()).count();
            let contents = proof.signed().map_or(0, |signed| signed.contents.len());
            limits.hashes_per_group += contents * keys;
            if proof.uses_public_keys() {
                limits.checks_per_signature += contents.max(1) * keys;
            }
        }
        limits
    }

    /// Returns an error if the keys cause too much work. The error consists of the expected and the found amount, as a
    /// diagnostic needs them.
    pub(crate) fn validate(self) -> Result<(), (String, usize)> {
        let each = "for each signature, which is one for each key and alternative content";
        match self {
            WorkLimits { hashes_per_group: found, .. } if found > MAX_HASHES_PER_GROUP => {
                Err((format!("at most {MAX_HASHES_PER_GROUP} hashes {each}"), found))
            }
            WorkLimits { checks_per_signature: found, .. } if found > MAX_CHECKS_PER_SIGNATURE => {
                Err((format!("at most {MAX_CHECKS_PER_SIGNATURE} public-key checks {each}"), found))
            }
            _ => Ok(()),
        }
    }

    /// Returns the maximum number of signature groups in a request.
    pub(crate) fn max_groups(self) -> usize {
        (MAX_HASHES / self.hashes_per_group.max(1)).clamp(MIN_GROUPS, MAX_GROUPS)
    }

    /// Returns the maximum number of public-key signatures in a request.
    pub(crate) fn max_public_key_signatures(self) -> usize {
        (MAX_QUICK_CHECKS / self.checks_per_signature.max(1)).clamp(MIN_SIGNATURES, MAX_PUBLIC_KEY_SIGNATURES)
    }

    /// Returns true if the public-key checks of one request may take longer than a request thread should be busy.
    pub(crate) fn has_many_checks(self) -> bool {
        self.checks_per_signature * self.max_public_key_signatures() > MAX_QUICK_CHECKS
    }
}

/// Maximum number of secrets and public keys of a source. DocuSign signs with at most 100 keys.
pub(crate) const MAX_KEYS: usize = 128;
/// Maximum number of hashes for one signature group. Twilio's recipe has 12 alternatives, so a source may have ten secrets.
const MAX_HASHES_PER_GROUP: usize = 128;
/// Maximum number of public-key checks for one signature or token. Providers publish at most a few keys at a time.
const MAX_CHECKS_PER_SIGNATURE: usize = 32;
/// Number of hashes that the signature groups of a request may cost together. A request may have [`MIN_GROUPS`] groups even if
/// they cost more.
const MAX_HASHES: usize = 32;
/// Number of signature groups that each request may have. Providers send two groups while they rotate a secret.
const MIN_GROUPS: usize = 2;
/// Maximum number of signature groups in a request to a source with few keys.
pub(crate) const MAX_GROUPS: usize = 8;
/// Number of public-key signatures that each request may have.
const MIN_SIGNATURES: usize = 2;
/// Maximum number of public-key signatures in a request to a source with few keys.
const MAX_PUBLIC_KEY_SIGNATURES: usize = MAX_GROUPS;
/// Number of public-key checks that take about a millisecond.
const MAX_QUICK_CHECKS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_keys_allow_fewer_groups_but_always_two() {
        let groups = |hashes_per_group| WorkLimits { hashes_per_group, checks_per_signature: 0 }.max_groups();
        assert_eq!([0, 1, 4, 5, 8, 12, 16, 17, 128].map(groups), [8, 8, 8, 6, 4, 2, 2, 2, 2]);
        let most = |hashes: usize| hashes * groups(hashes);
        assert_eq!((1..=MAX_HASHES_PER_GROUP).map(most).max(), Some(MIN_GROUPS * MAX_HASHES_PER_GROUP));
    }

    #[test]
    fn more_public_keys_allow_fewer_signatures_but_always_two() {
        let limits = |checks_per_signature| WorkLimits { hashes_per_group: 0, checks_per_signature };
        let signatures = |checks| limits(checks).max_public_key_signatures();
        assert_eq!([0, 1, 2, 3, 8, 9, 32].map(signatures), [8, 8, 8, 5, 2, 2, 2]);
        assert_eq!([1, 2, 3, 8, 9, 32].map(|checks| limits(checks).has_many_checks()), [false, false, false, false, true, true]);
    }
}
