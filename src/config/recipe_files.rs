//! Reads the recipe files in `[providers] dir`. The reader reports every file that it cannot read, and every mistake in all other
//! files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::source::{Providers, RecipeFile};
use crate::toml_value::TomlTable;
use crate::units::bytes_text;

/// Takes the option `dir` out of the section `[providers]` and reads the recipes in this directory. A relative path is relative
/// to the directory of the configuration file. Reports a directory that it cannot list to the section. Returns the
/// mistakes in the files.
pub(super) fn take(section: &mut TomlTable) -> (Providers, Vec<Diagnostic>) {
    let Some(item) = section.take("dir") else { return (Providers::default(), Vec::new()) };
    let Some(dir) = item.parse(DIRECTORY, |text| (!text.is_empty()).then(|| item.location.resolve(text))) else {
        return (Providers::with_unreadable_directory(PathBuf::new()), Vec::new());
    };
    read(&dir).unwrap_or_else(|what| {
        item.location.report(what);
        (Providers::with_unreadable_directory(dir), Vec::new())
    })
}

/// Reads the recipes in a directory. Returns the recipes, and the mistakes in the files. The error is a message about a directory
/// that hookhold cannot list.
pub(super) fn read(dir: &Path) -> Result<(Providers, Vec<Diagnostic>), String> {
    let (mut files, mut in_files) = (Vec::new(), Vec::new());
    for path in list(dir)? {
        let (file, found) = read_file(&path);
        files.push(file);
        in_files.extend(found);
    }
    Ok((Providers::with_directory(dir.to_owned(), files), in_files))
}

/// Returns the paths of the recipe files in a directory. Skips files without the extension `toml`, and hidden files such as the
/// links of a Kubernetes volume. Rejects a directory that it cannot list, or that has too many files.
fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.take(MAX_FILES + 1).collect::<io::Result<Vec<_>>>());
    let entries =
        entries.map_err(|error| format!("cannot read {}: {error}; check the path and its permissions", dir.display()))?;
    if entries.len() > MAX_FILES {
        return Err(format!(
            "expected a directory with at most {MAX_FILES} files, found {} with more; move the recipes to a directory of their own",
            dir.display()
        ));
    }
    let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "toml") && !is_hidden(path)).collect();
    paths.sort();
    Ok(paths)
}

/// Reads one recipe file and checks its recipe.
fn read_file(path: &Path) -> (RecipeFile, Vec<Diagnostic>) {
    let (shown, name) = (path.display().to_string(), path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let unreadable = |line: usize, what: String| {
        let diagnostic = Diagnostic { file: shown.clone(), line, key: String::new(), what, known: Vec::new() };
        (RecipeFile::unreadable(name.clone(), shown.clone()), vec![diagnostic])
    };
    if !is_name(&name) {
        return unreadable(1, format!("expected {NAME}, found another name; rename the file"));
    }
    let bytes = match contents(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return unreadable(
                1,
                match error.kind() {
                    ErrorKind::FileTooLarge => {
                        format!(
                            "expected a recipe of at most {}, found a larger file; shorten it or remove it",
                            bytes_text(MAX_SIZE)
                        )
                    }
                    ErrorKind::InvalidInput => {
                        "expected a file, found a directory, a pipe or a device; remove it from the directory".to_owned()
                    }
                    _ => format!("cannot read the file: {error}; check its permissions"),
                },
            );
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => RecipeFile::check(name, shown, text),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            unreadable(line, "expected a recipe in UTF-8, found other bytes; save the file in UTF-8".to_owned())
        }
    }
}

/// Reads a file. Opens only regular files, because opening a pipe would wait for a writer.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-' || letter == '_';
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    name.len() <= MAX_NAME && starts_well && name.chars().all(plain)
}

const DIRECTORY: &str = "a directory of recipes such as \"/etc/hookhold/providers\"";
const NAME: &str =
    "a name of 1 to 64 lower-case letters, digits, \"-\" and \"_\" before .toml that begins with a letter or digit";
/// Maximum length of a recipe's name, which is also the maximum length of the name of a source.
const MAX_NAME: usize = 64;
/// Maximum size of a recipe file, in bytes. The largest built-in recipe has less than a tenth of this size.
const MAX_SIZE: u64 = 64 << 10;
/// Maximum number of files in the directory, of any kind.
const MAX_FILES: usize = 1000;
