//! Strings that stand for another text: `"env:NAME"` for the content of an environment variable, and `"file:PATH"` for the content of
//! a file. Every string value of the configuration may be such a reference. Secrets follow references on their own, because a message
//! must never contain their text.

use std::sync::OnceLock;

use crate::diagnostic::Location;
use crate::reference;

/// A string, which may be a reference. The text of a reference is read when a reader first asks for it, because the reader of a
/// secret must be the only one that reads its file.
#[derive(Clone)]
pub(super) struct TomlText {
    /// The string as the file contains it.
    pub(super) written: String,
    /// The text that a reference stands for, or `None` if there is no such text. Empty before a reader has asked for it.
    text: OnceLock<Option<String>>,
}

impl TomlText {
    pub(super) fn new(written: String) -> TomlText {
        TomlText { written, text: OnceLock::new() }
    }

    /// Returns the string, or the text that the reference stands for. If there is no such text, reports the reason and returns `None`.
    /// A reader that may lack secrets may also lack the other variables and files, so it reports nothing.
    pub(super) fn resolved(&self, location: &Location) -> Option<&str> {
        if !reference::is_reference(&self.written) {
            return Some(&self.written);
        }
        let read = || {
            let bytes = reference::follow(&self.written, location, "value").and_then(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|_| "expected a text in UTF-8, found another encoding; save it as UTF-8".to_owned())
            });
            match bytes {
                Ok(text) => {
                    location.note_reference(&text);
                    Some(text)
                }
                Err(_) if location.may_lack_secrets() => None,
                Err(what) => {
                    location.report(what);
                    None
                }
            }
        };
        self.text.get_or_init(read).as_deref()
    }

    /// Returns true if a reader has asked for the text of a reference that stands for none.
    pub(super) fn is_unresolved(&self) -> bool {
        matches!(self.text.get(), Some(None))
    }
}
