//! Collects diagnostics about files that operators write, one message per mistake, and finds the known name nearest to a
//! misspelt name. Does not depend on TOML.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use strsim::damerau_levenshtein;

/// One mistake in a file, printed as `FILE:LINE: KEY: WHAT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Path of the file, as given on the command line.
    pub file: String,
    /// Number of the line, counted from 1.
    pub line: usize,
    /// Dotted path of the key. Empty if the text is not TOML.
    pub key: String,
    /// The message: the expected value, the found value and the remedy. The name in JSON is `mistake`.
    #[serde(rename = "mistake")]
    pub what: String,
    /// Known keys of the same table, if this key is unknown.
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

/// The diagnostics of one file. A clone is a handle to the same list. `Display` writes one diagnostic per line, in the order of
/// the file.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics(Arc<Mutex<DiagnosticList>>);

#[derive(Debug, Default)]
struct DiagnosticList {
    diagnostics: Vec<Diagnostic>,
    misspelt: Vec<MisspeltKey>,
    /// True if the current pass has found misspelt keys.
    has_new_misspelt: bool,
}

/// An unknown key, and the known key that replaces it in the next pass.
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

    /// True if the list has no diagnostic.
    pub fn is_empty(&self) -> bool {
        let found = self.lock();
        found.diagnostics.is_empty() && found.misspelt.is_empty()
    }

    /// Adds a diagnostic.
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

    /// Returns true if the last pass over the text found misspelt keys. In that case, discards the other diagnostics of that
    /// pass. The next pass reads each misspelt key as the nearest known key, and reports the discarded mistakes again, except
    /// for consequences of the misspelling.
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

/// The position of a value, and the list that collects mistakes about the value.
#[derive(Clone)]
pub struct Location {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) diagnostics: Diagnostics,
}

impl Location {
    /// Reports a mistake at this position. `what` has the form `cannot …: REASON; REMEDY`.
    pub fn report(&self, what: impl fmt::Display) {
        self.diagnostics.add(self.diagnostic(what));
    }

    /// Reports `expected X, found Y`. `found` may end with a semicolon and a remedy.
    pub fn expected(&self, expected: impl fmt::Display, found: impl fmt::Display) {
        self.report(format_args!("expected {expected}, found {found}"));
    }

    /// Returns the dotted path of the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the position of a key in the table at this position.
    pub fn below(&self, key: &str) -> Location {
        let path = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Location { key: path, ..self.clone() }
    }

    /// True if a mistake in this value or in an inner value has been reported.
    pub(crate) fn has_diagnostic(&self) -> bool {
        let is_here = |diagnostic: &Diagnostic| {
            let rest = diagnostic.key.strip_prefix(&self.key);
            diagnostic.file == *self.file && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.diagnostics.lock().diagnostics.iter().any(is_here)
    }

    /// Reports an unknown key in a table with the keys `known`. If `meant` is set, the next pass reads the key as `meant`.
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

    /// Returns the known key that replaces this key, if an earlier pass reported this key as misspelt.
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

/// Returns the nearest known name if it differs from `name` in at most a third of the letters, or in one letter.
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
