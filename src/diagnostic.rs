//! Collects diagnostics about files that operators write: one diagnostic for each mistake. Also finds the known name that is
//! nearest to a misspelt name. Does not depend on TOML.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use strsim::damerau_levenshtein;

/// One mistake in a file, printed as `FILE:LINE: KEY: WHAT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Path of the file, as given on the command line.
    pub file: String,
    /// Line of the mistake in the file, counted from 1.
    pub line: usize,
    /// Dotted path of the key; empty if the file is not valid TOML.
    pub key: String,
    /// Message with the expected value, the found value and the remedy. In JSON, the name of this field is `mistake`.
    #[serde(rename = "mistake")]
    pub what: String,
    /// Valid keys of the table that contains `key`, if `key` is an unknown key. Otherwise empty.
    #[serde(skip)]
    pub known: Vec<String>,
}

impl Diagnostic {
    fn location(&self) -> (&str, usize, &str) {
        (&self.file, self.line, &self.key)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// The diagnostics of one file. Clones share one list. `Display` writes one diagnostic per line, in the order of the lines
/// in the file.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics(Arc<Mutex<DiagnosticList>>);

#[derive(Debug, Default)]
struct DiagnosticList {
    diagnostics: Vec<Diagnostic>,
    misspelt: Vec<MisspeltKey>,
    /// True if the current pass over the file has found misspelt keys.
    has_new_misspelt: bool,
    secrets: SecretAccess,
    /// Hash of each value that a reference in the file stands for, by the dotted path of its key.
    references: BTreeMap<String, u64>,
}

/// The secrets that the reader of a file reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretAccess {
    /// All secrets. A secret that cannot be read is an error.
    #[default]
    Required,
    /// The secrets that can be read. The others are empty.
    Available,
    /// No secrets, because this machine does not have them. They are empty.
    None,
}

/// The diagnostic of a misspelt key, and the valid key that replaces the misspelt key in the next pass over the file.
#[derive(Debug)]
struct MisspeltKey {
    diagnostic: Diagnostic,
    meant: String,
}

impl Diagnostics {
    /// Returns a list with one diagnostic, for checks that do not read TOML.
    pub fn one(file: &Path, line: usize, key: &str, what: String) -> Diagnostics {
        let diagnostics = Diagnostics::default();
        let (file, key) = (file.display().to_string(), key.to_owned());
        diagnostics.add(Diagnostic { file, line, key, what, known: Vec::new() });
        diagnostics
    }

    /// Returns an empty list for a file of which the reader reads these secrets.
    pub fn with_secrets(secrets: SecretAccess) -> Diagnostics {
        let diagnostics = Diagnostics::default();
        diagnostics.lock().secrets = secrets;
        diagnostics
    }

    /// Returns the hash of each value that a reference in the file stands for, by the dotted path of its key. Secrets are no such
    /// values.
    pub(crate) fn references(&self) -> BTreeMap<String, u64> {
        self.lock().references.clone()
    }

    /// Returns true if the list contains no diagnostic.
    pub fn is_empty(&self) -> bool {
        let found = self.lock();
        found.diagnostics.is_empty() && found.misspelt.is_empty()
    }

    /// Adds a diagnostic to the list.
    pub fn add(&self, diagnostic: Diagnostic) {
        self.lock().diagnostics.push(diagnostic);
    }

    /// Returns every diagnostic once, sorted by file, line and key. Omits diagnostics about the value of a misspelt key,
    /// because the suggested key may be wrong.
    pub fn sorted(&self) -> Vec<Diagnostic> {
        let found = self.lock();
        let misspelt = || found.misspelt.iter().map(|misspelt| &misspelt.diagnostic);
        let is_guess = |other: &&Diagnostic| misspelt().any(|misspelt| misspelt.location() == other.location());
        let certain = found.diagnostics.iter().filter(|diagnostic| !is_guess(diagnostic));
        let mut all: Vec<Diagnostic> = certain.chain(misspelt()).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Returns true if the caller must read the file again, because the last pass over the file found misspelt keys. Before
    /// returning true, discards the other diagnostics of the last pass. The next pass reads each misspelt key as the nearest
    /// valid key, and adds the discarded diagnostics again unless a misspelt key caused them.
    pub(crate) fn read_again(&self) -> bool {
        let mut found = self.lock();
        let has_new_misspelt = std::mem::take(&mut found.has_new_misspelt);
        if has_new_misspelt {
            found.diagnostics.clear();
        }
        has_new_misspelt
    }

    fn lock(&self) -> MutexGuard<'_, DiagnosticList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.sorted().iter().map(Diagnostic::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

/// The position of a value in a file, and the list that collects the diagnostics about the value.
#[derive(Clone)]
pub struct Location {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) diagnostics: Diagnostics,
}

impl Location {
    /// Adds a diagnostic about the value at this position. `what` is the complete message, such as `cannot be set: REASON;
    /// REMEDY`.
    pub fn report(&self, what: impl fmt::Display) {
        self.diagnostics.add(self.diagnostic(what));
    }

    /// Adds the diagnostic `expected X, found Y` about the value at this position. `found` may end with a semicolon and a
    /// remedy.
    pub fn expected(&self, expected: impl fmt::Display, found: impl fmt::Display) {
        self.report(format_args!("expected {expected}, found {found}"));
    }

    /// Returns the dotted path of the key at this position.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the position of a key in the table at this position.
    pub fn below(&self, key: &str) -> Location {
        let path = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Location { key: path, ..self.clone() }
    }

    /// Returns a path that the file names. A relative path is relative to the directory of the file.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match Path::new(&*self.file).parent() {
            Some(directory) if !path.as_os_str().is_empty() => directory.join(path),
            _ => path.to_owned(),
        }
    }

    /// Returns the secrets that the reader of the file reads.
    pub(crate) fn secrets(&self) -> SecretAccess {
        self.diagnostics.lock().secrets
    }

    /// Returns true if secrets may be missing. The checks of the files for TLS and of references are then left out.
    pub(crate) fn may_lack_secrets(&self) -> bool {
        self.secrets() != SecretAccess::Required
    }

    /// Notes the value that a reference at this position stands for.
    pub(crate) fn note_reference(&self, value: &str) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let key = self.key.split('[').next().unwrap_or_default().to_owned();
        self.diagnostics.lock().references.insert(key, hasher.finish());
    }

    /// Returns true if the list contains a diagnostic about this value or about a value inside this value.
    pub(crate) fn has_diagnostic(&self) -> bool {
        let is_here = |diagnostic: &Diagnostic| {
            let rest = diagnostic.key.strip_prefix(&self.key);
            diagnostic.file == *self.file && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.diagnostics.lock().diagnostics.iter().any(is_here)
    }

    /// Adds a diagnostic about an unknown key. `known` lists the valid keys of the table. If `meant` is `Some`, the next pass
    /// over the file reads the unknown key as the valid key in `meant`.
    pub(crate) fn unknown(&self, what: impl fmt::Display, known: Vec<String>, meant: Option<&str>) {
        let diagnostic = Diagnostic { known, ..self.diagnostic(what) };
        let mut found = self.diagnostics.lock();
        match meant {
            Some(meant) => {
                found.misspelt.push(MisspeltKey { diagnostic, meant: meant.to_owned() });
                found.has_new_misspelt = true;
            }
            None => found.diagnostics.push(diagnostic),
        }
    }

    /// Returns the valid key that replaces the key at this position, or `None` if no earlier pass reported the key as
    /// misspelt.
    pub(crate) fn meant(&self) -> Option<String> {
        let location = (&*self.file, self.line, &*self.key);
        let found = self.diagnostics.lock();
        found.misspelt.iter().find(|misspelt| misspelt.diagnostic.location() == location).map(|misspelt| misspelt.meant.clone())
    }

    fn diagnostic(&self, what: impl fmt::Display) -> Diagnostic {
        let (file, key) = (self.file.to_string(), self.key.clone());
        Diagnostic { file, line: self.line, key, what: what.to_string(), known: Vec::new() }
    }
}

/// Returns the known name that is nearest to `name`. Returns `None` if the nearest name differs from `name` in more than a
/// third of the letters and in more than one letter.
pub fn nearest<'a, S: AsRef<str> + ?Sized + 'a>(name: &str, known: impl IntoIterator<Item = &'a S>) -> Option<&'a str> {
    let apart = |known: &'a S| (damerau_levenshtein(name, known.as_ref()), known.as_ref());
    let (distance, near) = known.into_iter().map(apart).min()?;
    let letters = name.chars().count().max(near.chars().count());
    (distance <= (letters / 3).max(1)).then_some(near)
}

/// Returns `; did you mean NAME?` for the nearest known name, or an empty string if no known name is near.
pub fn did_you_mean<'a, S: AsRef<str> + ?Sized + 'a>(name: &str, known: impl IntoIterator<Item = &'a S>) -> String {
    nearest(name, known).map_or(String::new(), |near| format!("; did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_may_differ_in_a_third() {
        let known = ["provider", "secrets", "bootstrap.servers", "id"];
        for (name, near) in [
            ("provder", Some("provider")),
            ("secrt", Some("secrets")),
            ("secerts", Some("secrets")),
            ("bootstrap_servers", Some("bootstrap.servers")),
            ("di", Some("id")),
            ("topic", None),
            ("secret_from_vault", None),
        ] {
            assert_eq!(nearest(name, known), near, "{name}");
        }
    }
}
