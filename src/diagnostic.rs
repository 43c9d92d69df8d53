//! Diagnostics in text that people write: what each one says, the list they are collected in, and what was perhaps meant.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// One thing that is wrong in a file, printed as `FILE:LINE: KEY: WHAT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// The file as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The dotted path of the key; empty when the text is not TOML.
    pub key: String,
    /// What is wrong, and what is allowed; `mistake` in JSON.
    #[serde(rename = "mistake")]
    pub what: String,
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

/// All mistakes found so far; a clone is a handle to the same list. Prints one per line, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics(Arc<Mutex<Vec<Diagnostic>>>);

impl Diagnostics {
    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Adds one.
    pub fn add(&self, mistake: Diagnostic) {
        self.lock().push(mistake);
    }

    /// Every mistake once, sorted by file, line and key.
    pub fn sorted(&self) -> Vec<Diagnostic> {
        let mut all = self.lock().clone();
        all.sort();
        all.dedup();
        all
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Diagnostic>> {
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

/// Where a value stands, and where to note a mistake about it.
#[derive(Clone)]
pub struct Location {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) mistakes: Diagnostics,
}

impl Location {
    /// Notes a mistake here: `what` is wrong; `allowed` says what would be right.
    pub fn wrong(&self, what: impl fmt::Display, allowed: impl fmt::Display) {
        let (file, key) = (self.file.to_string(), self.key.clone());
        self.mistakes.add(Diagnostic { file, line: self.line, key, what: format!("{what}; allowed: {allowed}") });
    }

    /// The dotted path of the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The same place, with the path of a key below it.
    pub fn below(&self, key: &str) -> Location {
        let path = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Location { key: path, ..self.clone() }
    }
}

/// The known name that differs from `name` in the fewest letters, when that is at most a third of them.
pub fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let (distance, near) = known.iter().map(|known| (letters_apart(name, known), known.as_str())).min()?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(near)
}

fn letters_apart(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
