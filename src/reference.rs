//! Follows references in the configuration: `env:NAME` stands for the content of an environment variable, and `file:PATH` for the
//! content of a file without its final line break. Messages never contain this content, because it may be a secret.

use std::io::Read;
use std::path::Path;

use crate::diagnostic::Location;

/// Returns true if the text refers to an environment variable or to a file.
pub fn is_reference(text: &str) -> bool {
    [VARIABLE, FILE].iter().any(|scheme| text.starts_with(scheme))
}

/// Returns the path of the file to which a reference at this position refers, or `None` if the text is no such reference. A relative
/// path is relative to the directory of the file with the reference.
pub fn referenced_file(text: &str, location: &Location) -> Option<std::path::PathBuf> {
    text.strip_prefix(FILE).map(|path| location.resolve(path))
}

/// Returns the name of the environment variable to which a reference refers, or `None` if the text is no such reference.
pub fn referenced_variable(text: &str) -> Option<&str> {
    text.strip_prefix(VARIABLE)
}

/// Returns the content to which a reference at this position refers. `noun` is the word for the content in messages, such as
/// `secret`. The error is the complete message.
pub fn follow(text: &str, location: &Location, noun: &str) -> Result<Vec<u8>, String> {
    match (referenced_variable(text), referenced_file(text, location)) {
        (Some(name), _) => read_variable(name, noun),
        (None, Some(path)) => read_file(&path, noun),
        (None, None) => Err(format!("expected {REFERENCE}, found another value; keep the secret itself out of this file")),
    }
}

fn read_variable(name: &str, noun: &str) -> Result<Vec<u8>, String> {
    use std::os::unix::ffi::OsStringExt;
    let is_legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if name.is_empty() || !name.chars().all(is_legal) {
        return Err("expected env:NAME, where NAME consists of letters, digits and \"_\", found an invalid string".to_owned());
    }
    let found = match std::env::var_os(name).map(OsStringExt::into_vec) {
        Some(bytes) if !bytes.is_empty() => return Ok(bytes),
        Some(_) => "empty",
        None => "unset",
    };
    Err(format!(
        "expected a {noun} in the environment variable {name}, found the variable {found}; export it in this shell, or set it in the service's environment"
    ))
}

/// Reads the content of a file without its final line break. `noun` is the word for the content in messages. The error is the complete
/// message.
pub fn read_file(path: &Path, noun: &str) -> Result<Vec<u8>, String> {
    let file = path.display();
    match contents(path) {
        Ok(bytes) if bytes.is_empty() => {
            Err(format!("expected {SIZE} with the {noun}, found {file}, which is empty; write the {noun} to this file"))
        }
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => {
            Err(format!("expected {SIZE} with the {noun}, found {file}, which is larger; check the path"))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("cannot read {file}: {error}; check the path and its permissions")),
    }
}

fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    if bytes.ends_with(b"\r") {
        bytes.pop();
    }
    Ok(bytes)
}

const VARIABLE: &str = "env:";
const FILE: &str = "file:";
/// The forms of a reference, for messages.
pub const REFERENCE: &str = "\"env:NAME\" or \"file:PATH\"";
const SIZE: &str = "a file of 1 B to 64 KiB";
/// Maximum size of a referenced file, in bytes. A PEM key has only a few KiB, so a larger file is not the intended file.
const MAX_FILE: u64 = 64 << 10;
