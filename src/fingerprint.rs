//! The fingerprint of an event, which tells whether two events with the same id came from the same account of a provider.

/// Fingerprint of an event: two keyed 48-bit hashes. The default, all zero, is the fingerprint of an event without a dedupe key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash of the account that the operator has configured for the secret, or of the bytes of the secret.
    pub secret: [u8; 6],
    /// Hash of the body.
    pub body: [u8; 6],
}

impl Fingerprint {
    /// Returns true if an event with this fingerprint and an event with the same id and the fingerprint `other` are different
    /// events: another account has signed another body. An event without a fingerprint differs from no event.
    pub fn is_other_event(&self, other: &Fingerprint) -> bool {
        self.is_known() && other.is_known() && self.secret != other.secret && self.body != other.body
    }

    /// Returns true if the same account has signed two different bodies.
    pub fn has_other_body(&self, other: &Fingerprint) -> bool {
        self.is_known() && other.is_known() && self.secret == other.secret && self.body != other.body
    }

    fn is_known(&self) -> bool {
        *self != Fingerprint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_account_with_another_body_is_another_event() {
        let print = |secret, body| Fingerprint { secret: [secret; 6], body: [body; 6] };
        let first = print(1, 1);
        let of = |other: Fingerprint| (first.is_other_event(&other), first.has_other_body(&other));
        assert_eq!(of(print(1, 1)), (false, false));
        assert_eq!(of(print(2, 1)), (false, false));
        assert_eq!(of(print(1, 2)), (false, true));
        assert_eq!(of(print(2, 2)), (true, false));
        assert_eq!(of(Fingerprint::default()), (false, false));
        assert!(!Fingerprint::default().is_other_event(&first));
    }
}
