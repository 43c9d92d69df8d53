//! Reads secrets from environment variables (`env:NAME`) and from files (`file:PATH`). The configuration contains only such
//! references, never a secret itself. Logs and metrics show only the name of a secret. Messages and `Debug` output never
//! contain the bytes of a secret.

use std::fmt;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::diagnostic::SecretAccess;
use crate::reference::{self, REFERENCE};
use crate::toml_value::Item;

/// A secret with its name and its expiry time.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Name of the secret in logs, metrics and Kafka headers. The default is the name of the environment variable or the base
    /// name of the file.
    pub name: Arc<str>,
    /// Key id of a public key, by which a delivery names the key; `None` for a secret and for a key without an id.
    pub id: Option<Arc<str>>,
    /// Account of the sender to which the secret belongs; `None` if the operator has configured no account.
    pub account: Option<Arc<str>>,
    /// Bytes of the environment variable, or of the file without its final line break. Empty only if the reader of the configuration
    /// may do without secrets.
    pub bytes: Vec<u8>,
    /// Time at which the secret expires; `None` if the secret does not expire. At and after this time, the verifier rejects
    /// signatures made with the secret.
    pub not_after: Option<UnixMillis>,
}

impl Secret {
    /// Returns a secret that has no key id and no account, and that does not expire.
    pub fn new(name: impl Into<Arc<str>>, bytes: impl Into<Vec<u8>>) -> Secret {
        Secret { name: name.into(), id: None, account: None, bytes: bytes.into(), not_after: None }
    }

    /// Returns true if the reader of the configuration has not read the secret.
    pub fn is_absent(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns true if the secret is wrapped in whitespace or quotes, which is usually a copy-paste mistake.
    pub fn is_wrapped(&self) -> bool {
        let bare = self.bytes.trim_ascii();
        let quote = |byte: Option<&u8>| byte.is_some_and(|byte| b"\"'`".contains(byte));
        bare.len() < self.bytes.len() || (quote(bare.first()) && bare.first() == bare.last())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, masked)", self.name)
    }
}

/// Reads the secret to which `item` refers. `item` has the form `"env:NAME"`, `"file:PATH"` (relative to the directory of the file that contains `item`)
/// or `{ name = "…", account = "…", from = "env:…", not_after = 2027-01-01 }`. Reports a diagnostic and returns `None` if `item`
/// has another form, the variable is unset or empty, or the file is unreadable, empty or too large. No diagnostic contains text
/// that may be a secret.
pub fn read(item: Item) -> Option<Secret> {
    read_with(item, false, follow)
}

/// Reads the public key to which `item` refers, in the same forms as [`read`]. A public key is no secret, so `item` may also
/// contain its text. A table may also contain the key's `id`. `name` is the name of such a key if `item` names none.
pub fn read_public(item: Item, name: &str) -> Option<Secret> {
    let literal = |text: &str| Secret::new(name, text);
    let follow_public = |item: &Item| match item.as_written() {
        Some(text) if !text.is_empty() && !is_reference(item) => Some(literal(text)),
        _ => follow(item),
    };
    read_with(item, true, follow_public)
}

/// Returns true if `item` refers to an environment variable or to a file.
pub fn is_reference(item: &Item) -> bool {
    item.as_written().is_some_and(reference::is_reference)
}

fn read_with(item: Item, may_have_id: bool, follow: impl Fn(&Item) -> Option<Secret>) -> Option<Secret> {
    if !item.is_table() {
        return follow(&item);
    }
    let mut table = item.table()?;
    let name = table.take("name");
    let account = table.take("account");
    let from = table.take("from");
    let not_after = table.take("not_after");
    let id = if may_have_id { table.take("id") } else { None };
    if from.is_none() {
        table.missing("from", REFERENCE);
    }
    table.finish();
    let (is_named, name) = (name.is_some(), name.and_then(label));
    let (has_account, account) = (account.is_some(), account.and_then(self::account));
    let (has_id, id) = (id.is_some(), id.and_then(key_id));
    let (is_limited, end) = (not_after.is_some(), not_after.and_then(Item::end));
    let mut secret = follow(&from?)?;
    if is_named {
        secret.name = name?;
    }
    if has_account {
        secret.account = Some(account?);
    }
    if has_id {
        secret.id = Some(id?);
    }
    if is_limited {
        secret.not_after = Some(end?);
    }
    Some(secret)
}

fn label(item: Item) -> Option<Arc<str>> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let fits = |text: &str| !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(is_plain);
    let expected = format!("a name of 1 to {MAX_NAME} letters, digits, \"-\", \"_\" and \".\"");
    item.parse(expected, |text| fits(text).then(|| text.into()))
}

/// Reads the name of an account, which becomes a part of a URI path.
fn account(item: Item) -> Option<Arc<str>> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    let fits = |text: &str| (1..=MAX_ACCOUNT).contains(&text.len()) && text.bytes().all(is_plain);
    let expected = format!("an account of 1 to {MAX_ACCOUNT} visible ASCII characters except \"/\"");
    item.parse(expected, |text| fits(text).then(|| text.into()))
}

fn key_id(item: Item) -> Option<Arc<str>> {
    let fits = |text: &str| (1..=MAX_ID).contains(&text.len());
    item.parse(format!("a key id of 1 to {MAX_ID} bytes"), |text| fits(text).then(|| text.into()))
}

fn follow(item: &Item) -> Option<Secret> {
    let text = item.as_written().unwrap_or_default();
    let name = reference::referenced_variable(text).map(str::to_owned).or_else(|| {
        let path = reference::referenced_file(text, &item.location)?;
        Some(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    });
    let access = item.location.secrets();
    let absent = || name.clone().map(|name| Secret::new(name, Vec::new()));
    if let Some(absent) = absent().filter(|_| access == SecretAccess::None) {
        return Some(absent);
    }
    match reference::follow(text, &item.location, "secret") {
        Ok(bytes) => Some(Secret::new(name.unwrap_or_default(), bytes)),
        Err(_) if access == SecretAccess::Available && name.is_some() => absent(),
        Err(what) => item.reject(what),
    }
}

const MAX_NAME: usize = 64;
/// Maximum length of the name of an account in bytes.
const MAX_ACCOUNT: usize = 64;
/// Maximum length of a key id in bytes. A key id may be a URL.
const MAX_ID: usize = 512;
