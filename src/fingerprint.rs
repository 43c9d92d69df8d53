//! The fingerprint of an event, which tells whether two events with the same id came from the same account of a provider.

/// Fingerprint of an event: two keyed 48-bit hashes. The default, all zero, is the fingerprint of an event without a dedupe key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash of the account that the operator has configured for the secret, or of the bytes of the secret.
    pub secret: [u8; 6],
    /// Hash of the body.
    pub body: [u8; 6],
}
