//! Computes the fingerprint of an event: which account has signed the delivery, and which body it contains. The hashes depend on
//! the journal's hash key.
//!
//! Two secrets with the same `account` belong to the same account, and so do all keys that a sender publishes. Every other
//! secret is an account of its own.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;
use twox_hash::XxHash3_64;

use crate::source::{Key, Source};

/// An account that sends to a source.
pub(super) struct Account {
    /// Name of the account in `ce_source`: the configured account, or the name of the secret.
    pub(super) name: Arc<str>,
    /// Secret part of the fingerprint.
    pub(super) hash: [u8; 6],
}

/// The accounts that send to a source.
pub(super) struct Accounts {
    /// Name of each of the source's keys, with the account that signs with the key.
    by_key: Vec<(Arc<str>, Account)>,
    /// Account of all deliveries without a proof.
    unsigned: Account,
    /// True if the source has several accounts, or has had another account since the start of the process. The journal may then
    /// contain an event under the key of its account although the id of the event is new.
    pub(super) are_several: bool,
}

impl Accounts {
    /// Returns the accounts of a source. `previous` are the accounts of the source before a reload.
    pub(super) fn of(hash_key: &[u8; 16], source: &Source, previous: Option<&Accounts>) -> Accounts {
        let account = |key: &Key| Account { name: key.account().clone(), hash: account_hash(hash_key, source, key) };
        let by_key = source.keys.iter().map(|key| (key.name.clone(), account(key))).collect();
        let unsigned = Account { name: UNSIGNED.into(), hash: short_hash(hash_key, UNSIGNED, b"") };
        let accounts = Accounts { by_key, unsigned, are_several: false };
        let are_several = {
            let before = previous.into_iter().flat_map(|previous| previous.all(source));
            let mut hashes = accounts.all(source).chain(before).map(|account| account.hash);
            let first = hashes.next();
            hashes.any(|hash| Some(hash) != first) || previous.is_some_and(|previous| previous.are_several)
        };
        Accounts { are_several, ..accounts }
    }

    /// Returns the account that signs with the key named `key`, or the account of unsigned deliveries if `key` is `None`.
    pub(super) fn signing_with(&self, key: Option<&str>) -> &Account {
        let named = |key: &str| self.by_key.iter().find(|(name, _)| **name == *key);
        key.and_then(named).map_or(&self.unsigned, |(_, account)| account)
    }

    fn all(&self, source: &Source) -> impl Iterator<Item = &Account> {
        let unsigned = source.recipe.accepts_without_proof().then_some(&self.unsigned);
        self.by_key.iter().map(|(_, account)| account).chain(unsigned)
    }
}

/// Returns the body part of a fingerprint: 48 bits of XXH3. A cryptographic hash is not necessary. With two bodies of the same
/// hash, an account could only make hookhold treat its event as a duplicate of another account's event, or the other way round.
/// An account that knows the other body in advance achieves the same by sending this body.
pub(super) fn body_hash(hash_key: &[u8; 16], body: &[u8]) -> [u8; 6] {
    let [seed @ .., _, _, _, _, _, _, _, _] = *hash_key;
    short(XxHash3_64::oneshot_with_seed(u64::from_le_bytes(seed), body))
}

fn account_hash(hash_key: &[u8; 16], source: &Source, key: &Key) -> [u8; 6] {
    match key.configured().account.as_deref() {
        Some(account) => short_hash(hash_key, "account", account.as_bytes()),
        // The sender signs with these keys for all of its accounts.
        None if source.is_published(key) => short_hash(hash_key, "published", b""),
        None => short_hash(hash_key, "secret", key.secret_bytes()),
    }
}

/// Returns 48 bits of a keyed hash. `kind` separates hashes of different kinds of text.
fn short_hash(hash_key: &[u8; 16], kind: &str, bytes: &[u8]) -> [u8; 6] {
    let mut hasher = SipHasher13::new_with_key(hash_key);
    hasher.write(kind.as_bytes());
    hasher.write(&[0]);
    hasher.write(bytes);
    short(hasher.finish())
}

fn short(hash: u64) -> [u8; 6] {
    let [short @ .., _, _] = hash.to_le_bytes();
    short
}

/// Name of the account of all deliveries without a proof.
const UNSIGNED: &str = "none";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceDefaults;
    use crate::toml_value::{Diagnostics, TomlTable};

    fn source(entry: &str) -> Source {
        let defaults = SourceDefaults {
            providers: Default::default(),
            public_url: None,
            topic: "t".into(),
            max_body: 1 << 20,
            request_deadline: std::time::Duration::from_secs(8),
            window: std::time::Duration::from_secs(60),
        };
        let diagnostics = Diagnostics::default();
        let source = TomlTable::parse("test", entry, &diagnostics)
            .and_then(|entry| Source::compile("shop", entry, &defaults, &diagnostics));
        source.unwrap_or_else(|| panic!("{diagnostics}"))
    }

    fn accounts(entry: &str) -> Accounts {
        Accounts::of(&[7; 16], &source(entry), None)
    }

    fn stripe(secrets: &str) -> String {
        format!("provider = \"stripe\"\nsecrets = [{secrets}]")
    }

    #[test]
    fn secrets_belong_together_by_their_account() {
        let both = stripe("{ name = \"a\", from = \"env:PATH\" }, { name = \"b\", from = \"env:HOME\" }");
        let accounts_of_both = accounts(&both);
        let [a, b] = ["a", "b"].map(|name| accounts_of_both.signing_with(Some(name)));
        assert!(accounts_of_both.are_several && a.hash != b.hash);
        assert_eq!((&*a.name, &*b.name), ("a", "b"));

        let rotation = both.replace("\" }", "\", account = \"acct\" }");
        let of_rotation = accounts(&rotation);
        let [old, new] = ["a", "b"].map(|name| of_rotation.signing_with(Some(name)));
        assert!(!of_rotation.are_several && old.hash == new.hash && old.hash != a.hash);
        assert_eq!((&*old.name, &*new.name), ("acct", "acct"));

        let renamed = accounts(&stripe("{ name = \"c\", from = \"env:PATH\" }"));
        assert_eq!(renamed.signing_with(Some("c")).hash, a.hash, "the secret counts, not its name");
        let other_journal = Accounts::of(&[8; 16], &source(&both), None);
        assert_ne!(other_journal.signing_with(Some("a")).hash, a.hash, "the hash depends on the journal's hash key");
    }

    #[test]
    fn a_reload_remembers_that_there_was_another_account() {
        let [one, other] = ["env:PATH", "env:HOME"].map(|from| source(&stripe(&format!("{from:?}"))));
        let first = Accounts::of(&[7; 16], &one, None);
        assert!(!first.are_several && !Accounts::of(&[7; 16], &one, Some(&first)).are_several);
        let second = Accounts::of(&[7; 16], &other, Some(&first));
        assert!(second.are_several && Accounts::of(&[7; 16], &other, Some(&second)).are_several);
    }

    #[test]
    fn published_keys_belong_to_no_account() {
        let key = |id, text| format!("{{ id = {id:?}, from = {text:?} }}");
        let keys = [
            key("1", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
            key("2", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
        ];
        let recipe = "auth = \"signature\"\nalgorithm = \"ed25519\"\nkey_format = \"raw-hex\"\ncontent = [\"body\"]\n\
                      signature = { from = \"header:S\" }";
        let configured = format!("{recipe}\npublic_keys = [{}]", keys.join(", "));
        assert!(accounts(&configured).are_several);
        let fetch = "fetch = { url = \"https://acme.example/keys\", key_id = \"header:K\" }";
        assert!(!accounts(&format!("{configured}\n{fetch}")).are_several);
    }

    #[test]
    fn deliveries_without_a_proof_belong_to_one_account() {
        let open = accounts("auth = \"none\"\nallow_from = [\"192.0.2.0/24\"]\nevent = { id = \"json:/id\" }");
        assert!(!open.are_several);
        assert_eq!(&*open.signing_with(None).name, UNSIGNED);
    }

    /// Compares the hashes with fixed values. If a hash changed, hookhold would take a retry of an event in an existing journal
    /// for an event of another account.
    #[test]
    fn fingerprints_in_existing_journals_stay_valid() {
        let text = |hash: [u8; 6]| base16ct::lower::encode_string(&hash);
        assert_eq!(text(body_hash(&[7; 16], b"{}")), "cf2fd88c4083");
        assert_eq!(text(body_hash(&[7; 16], &[b'x'; 1000])), "6b0a538c6d4a");
        assert_eq!(text(short_hash(&[7; 16], "account", b"acct")), "859d1096c7b9");
        assert_ne!(body_hash(&[7; 16], b""), body_hash(&[7; 16], b"\0"));
    }
}
