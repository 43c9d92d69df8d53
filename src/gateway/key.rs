//! Computes the dedupe key of an event: a keyed hash of the source, the event type and the identity, or of this key and an
//! account if an event of another account has the same id.

use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

use crate::event_key::EventKey;
use crate::verify::Identity;

/// Returns the dedupe key of an event, or `None` for a keyless event. The key is a hash of the source name, the event type and
/// the identity, and the hash function uses the secret `hash_key`. In the hash input, the length of each field precedes the
/// field, so different lists of fields never produce the same input.
pub(super) fn of(hash_key: &[u8; 16], source: &str, event_type: Option<&str>, identity: &Identity) -> Option<EventKey> {
    let mut hasher = SipHasher24::new_with_key(hash_key);
    let mut field = |bytes: &[u8]| {
        hasher.write(&(bytes.len() as u64).to_le_bytes());
        hasher.write(bytes);
    };
    field(source.as_bytes());
    field(event_type.unwrap_or_default().as_bytes());
    match identity {
        Identity::Keyless => return None,
        Identity::Id { alternative, fields, body_sha256 } => {
            match alternative {
                // Omit the number of alternative 0, because hookhold computed the keys in existing journals without this
                // number.
                0 => field(b"id"),
                other => field(format!("id {other}").as_bytes()),
            }
            fields.iter().for_each(|text| field(text.as_bytes()));
            body_sha256.iter().for_each(|digest| field(digest));
        }
        Identity::Ids { fields, body_sha256 } => {
            field(b"ids");
            fields.iter().for_each(|text| field(text.as_bytes()));
            body_sha256.iter().for_each(|digest| field(digest));
        }
        Identity::SignedContent(digest) => {
            field(b"content");
            field(digest);
        }
        Identity::BodyWindow(digest, _) => {
            field(b"body");
            field(digest);
        }
    }
    Some(EventKey(hasher.finish128().as_bytes()))
}

/// Returns the key of an event whose id another account's event has. `key` is the key of the id, and `account` is the secret
/// part of the event's fingerprint. Both keys have the same first byte, so that one shard of the dedupe table contains both.
pub(super) fn of_account(hash_key: &[u8; 16], key: &EventKey, account: &[u8; 6]) -> EventKey {
    let mut hasher = SipHasher24::new_with_key(hash_key);
    hasher.write(b"account");
    hasher.write(&key.0);
    hasher.write(account);
    let mut of_account = hasher.finish128().as_bytes();
    of_account[0] = key.0[0];
    EventKey(of_account)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(fields: &[&str], body: Option<[u8; 32]>) -> Identity {
        Identity::Id { alternative: 0, fields: fields.iter().map(|text| text.to_string()).collect(), body_sha256: body }
    }

    fn with_alternative(alternative: usize, id: Identity) -> Identity {
        let Identity::Id { fields, body_sha256, .. } = id else { panic!("expected an id") };
        Identity::Id { alternative, fields, body_sha256 }
    }

    #[test]
    fn different_events_have_different_keys() {
        let key = [7; 16];
        let all = [
            of(&key, "a", Some("t"), &id(&["1"], None)),
            of(&key, "b", Some("t"), &id(&["1"], None)),
            of(&key, "a", Some("u"), &id(&["1"], None)),
            of(&key, "a", None, &id(&["1"], None)),
            of(&key, "at", None, &id(&["1"], None)),
            of(&key, "a", Some("t"), &id(&["1", ""], None)),
            of(&key, "a", Some("t"), &id(&["", "1"], None)),
            of(&key, "a", Some("t"), &id(&["1"], Some([0; 32]))),
            of(&key, "a", Some("t"), &id(&["1"], Some([1; 32]))),
            of(&key, "a", Some("t"), &with_alternative(1, id(&["1"], None))),
            of(&key, "a", Some("t"), &with_alternative(2, id(&["1"], None))),
            of(&key, "a", Some("t"), &with_alternative(1, id(&["1"], Some([0; 32])))),
            of(&key, "a", Some("t"), &Identity::SignedContent([0; 32])),
            of(&[8; 16], "a", Some("t"), &id(&["1"], None)),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(of(&key, "a", Some("t"), &Identity::Keyless), None);
        assert_eq!(all[0], of(&key, "a", Some("t"), &id(&["1"], None)));
    }

    #[test]
    fn each_account_has_its_own_key_in_the_shard_of_the_id() {
        let keys: Vec<EventKey> = (0..200).map(|n: u8| EventKey([n; 16])).collect();
        let all = keys.iter().flat_map(|key| [[1; 6], [2; 6]].map(|account| (*key, of_account(&[7; 16], key, &account))));
        let mut distinct = std::collections::HashSet::new();
        for (key, of_account) in all {
            assert_eq!(of_account.0[0], key.0[0]);
            distinct.insert(of_account);
        }
        assert_eq!(distinct.len(), 2 * keys.len());
        assert!(keys.iter().all(|key| !distinct.contains(key)));
        let other = [of_account(&[7; 16], &keys[1], &[1; 6]), of_account(&[8; 16], &keys[1], &[1; 6])];
        assert_ne!(other[0], other[1], "the key depends on the journal's hash key");
    }

    /// Compares the hash with fixed values. If the hash changed, hookhold would not recognise the retry of an event that an
    /// existing journal contains, and would store the event again.
    #[test]
    fn keys_in_existing_journals_stay_valid() {
        let key = |identity: &Identity| base16ct::lower::encode_string(&of(&[7; 16], "a", Some("t"), identity).expect("a key").0);
        assert_eq!(key(&id(&["1"], None)), "c85224916f7a9cb63bb32a9844b733b5");
        assert_eq!(key(&id(&["1", "2"], Some([1; 32]))), "e807164f5d717bd7554b046ee53652d8");
        assert_eq!(key(&Identity::SignedContent([0; 32])), "10a13f725b5110183d5fec9d65406724");
    }
}
