//! Finds configured secrets that the sender probably does not sign with: a copy with a line break or in quotation marks, a
//! placeholder, an API key in place of the signing secret, or a text without the form of the sender's secrets. With such a secret,
//! every genuine delivery would be rejected, and some senders never try again.
//!
//! These are warnings and not errors, because the operator of a sender can choose any text as the secret. The messages never contain
//! the secret.

use std::fmt;

use super::Source;
use super::key::Key;
use super::key_kind::foreign_kind;
use crate::toml_value::Item;

/// The form of all secrets that a sender issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// The secret begins with this text.
    StartsWith(String),
    /// The secret consists of this number of hexadecimal digits.
    Hex(usize),
}

impl SecretForm {
    /// Reads an item such as `"starts-with:whsec_"` or `"hex:32"`. Reports a diagnostic and returns `None` if it is invalid.
    pub(super) fn read(item: Item) -> Option<SecretForm> {
        item.parse(EXPECTED, |text| match text.split_once(':')? {
            ("starts-with", prefix) if !prefix.is_empty() => Some(SecretForm::StartsWith(prefix.to_owned())),
            ("hex", count) => count.parse().ok().filter(|count| (1..=MAX_DIGITS).contains(count)).map(SecretForm::Hex),
            _ => None,
        })
    }

    /// Returns a text of this form that consists of these random digits as far as possible.
    pub fn example(&self, digits: &str) -> String {
        match self {
            SecretForm::StartsWith(prefix) => format!("{prefix}{digits}"),
            SecretForm::Hex(count) => digits.chars().cycle().take(*count).collect(),
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            SecretForm::StartsWith(prefix) => text.starts_with(prefix.as_bytes()),
            SecretForm::Hex(count) => text.len() == *count && text.iter().all(u8::is_ascii_hexdigit),
        }
    }
}

impl fmt::Display for SecretForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretForm::StartsWith(prefix) => write!(f, "a text that begins with {prefix}"),
            SecretForm::Hex(count) => write!(f, "{count} hexadecimal digits"),
        }
    }
}

impl Source {
    /// Returns the name of each secret with which the sender probably does not sign, and the reason with a remedy.
    pub fn doubtful_secrets(&self) -> Vec<(&str, String)> {
        let secrets = self.keys.iter().filter(|key| !key.is_public && !key.configured().is_absent());
        secrets.filter_map(|key| Some((&*key.name, self.doubt(key)?))).collect()
    }

    fn doubt(&self, key: &Key) -> Option<String> {
        let text = &key.configured().bytes[..];
        let forms = &self.recipe.setup.secret_forms;
        let page = &self.recipe.setup.secret;
        let page = if page.is_empty() { "the sender".to_owned() } else { format!("the place that the sender names: {page}") };
        let copy = format!("copy the signing secret from {page}");
        if text.trim_ascii().len() < text.len() {
            return Some(
                "begins or ends with a space or a line break; remove it, for example with `printf` in place of `echo`".into(),
            );
        }
        if key.configured().is_wrapped() {
            return Some("is in quotation marks; remove them".into());
        }
        if text.is_ascii() && text.iter().any(|byte| byte.is_ascii_control()) {
            return Some(format!("contains a line break or another control character; {copy}"));
        }
        if is_placeholder(text) {
            return Some(format!("is a placeholder; {copy}"));
        }
        if forms.iter().any(|form| form.matches(text)) {
            return None;
        }
        if let Some(kind) = foreign_kind(text).filter(|_| self.provider.is_some()) {
            return Some(format!("is {kind}; {copy}"));
        }
        let forms: Vec<String> = forms.iter().map(SecretForm::to_string).collect();
        (!forms.is_empty()).then(|| format!("does not look like a signing secret, which is {}; {copy}", forms.join(" or ")))
    }
}

/// Returns true for texts that examples contain in place of a secret.
fn is_placeholder(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let is_bracketed = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
    let is_filler = text.chars().all(|letter| "x*.…-_".contains(letter));
    let is_named = PLACEHOLDERS.iter().any(|word| text.replace(['-', ' '], "_") == *word);
    is_filler || is_named || text.ends_with("...") || text.ends_with('…') || is_bracketed('<', '>') || is_bracketed('{', '}')
}

const PLACEHOLDERS: [&str; 8] =
    ["changeme", "change_me", "todo", "placeholder", "your_secret", "your_signing_secret", "your_webhook_secret", "replace_me"];
const MAX_DIGITS: usize = 1024;
const EXPECTED: &str = "\"starts-with:TEXT\" or \"hex:NUMBER\"";
