//! The recipes that a source can name. The build embeds the recipes in `config/providers/` in the binary. The operator can add
//! recipes in a directory of recipe files, and replace built-in recipes there. This module does not read files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::source::read;
use crate::source::recipe::Recipe;
use crate::toml_value::TomlTable;

/// Name and TOML text of every built-in recipe, sorted by name. `build.rs` lists the files in `config/providers/`.
pub const PROVIDERS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// The built-in recipes and the recipes in the operator's directory. A file in the directory replaces the built-in recipe with
/// the same name. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    directory: Option<Arc<Path>>,
    /// The files in the directory, sorted by name.
    files: Arc<[RecipeFile]>,
    /// True if hookhold could not list the directory, so that an unknown name may be the name of a file in it.
    is_incomplete: bool,
}

/// One recipe in the operator's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeFile {
    /// The name of the recipe, which is the name of the file without `.toml`.
    pub name: String,
    /// The path of the file, for diagnostics.
    pub path: String,
    text: String,
    /// True if hookhold could read the file and the recipe has no mistakes.
    is_valid: bool,
}

impl RecipeFile {
    /// Checks the text of a recipe file. The second value contains the mistakes in the text.
    pub fn check(name: String, path: String, text: String) -> (RecipeFile, Vec<Diagnostic>) {
        let found = compile(&path, &text).err().map(|diagnostics| diagnostics.sorted()).unwrap_or_default();
        (RecipeFile { name, path, text, is_valid: found.is_empty() }, found)
    }

    /// Creates an entry for a file that hookhold could not read.
    pub fn unreadable(name: String, path: String) -> RecipeFile {
        RecipeFile { name, path, text: String::new(), is_valid: false }
    }

    /// Returns true if both files contain the same text.
    pub fn has_same_text(&self, other: &RecipeFile) -> bool {
        self.text == other.text
    }

    /// Returns true if the file replaces a built-in recipe.
    pub fn is_replacement(&self) -> bool {
        provider(&self.name).is_some()
    }
}

impl Providers {
    /// Adds the recipe files of a directory to the built-in recipes.
    pub fn with_directory(directory: PathBuf, mut files: Vec<RecipeFile>) -> Providers {
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Providers { directory: Some(directory.into()), files: files.into(), is_incomplete: false }
    }

    /// Returns the built-in recipes, for a directory that hookhold could not list.
    pub fn with_unreadable_directory(directory: PathBuf) -> Providers {
        Providers { is_incomplete: true, ..Providers::with_directory(directory, Vec::new()) }
    }

    /// Returns true if the list lacks recipes because hookhold could not list the directory.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Returns the directory of the operator's recipes, or `None` if there are only built-in recipes.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Returns the recipe files in the operator's directory, sorted by name.
    pub fn files(&self) -> &[RecipeFile] {
        &self.files
    }

    /// Returns the names of all recipes, sorted.
    pub fn names(&self) -> Vec<&str> {
        let own = self.files.iter().map(|file| file.name.as_str());
        let mut names: Vec<&str> = PROVIDERS.iter().map(|(name, _)| *name).chain(own).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the name that is nearest to an unknown name, or `None` if no name is near.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.names())
    }

    /// Compiles the recipe called `name`, so that a command can show its parameters. Returns `None` if there is no such recipe,
    /// or if the operator's recipe has mistakes.
    pub fn recipe(&self, name: &str) -> Option<Recipe> {
        match self.file(name) {
            Some(file) => compile(&file.path, &file.text).ok(),
            None => provider(name),
        }
    }

    /// Returns the operator's recipe called `name`, or `None` if the operator's directory has no such file.
    pub fn file(&self, name: &str) -> Option<&RecipeFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Parses the recipe called `name` into a TOML table that reports mistakes to `diagnostics`. Returns `None` if there is no
    /// such recipe. The flag is false for an invalid file, whose mistakes the configuration has already reported. The table
    /// does not report these mistakes again.
    pub(super) fn table(&self, name: &str, diagnostics: &Diagnostics) -> Option<(TomlTable, bool)> {
        match self.file(name) {
            Some(file) if file.is_valid => Some((TomlTable::parse(&file.path, &file.text, diagnostics)?, true)),
            Some(file) => {
                let unused = Diagnostics::default();
                let table = TomlTable::parse(&file.path, &file.text, &unused);
                table.or_else(|| built_in(STAND_IN, &unused)).map(|table| (table, false))
            }
            None => built_in(name, diagnostics).map(|table| (table, true)),
        }
    }
}

/// Compiles the built-in recipe called `name`. Returns `None` if no built-in recipe has this name.
pub fn provider(name: &str) -> Option<Recipe> {
    let (name, text) = PROVIDERS.iter().find(|(known, _)| *known == name)?;
    compile(&path(name), text).ok()
}

/// Compiles a recipe on its own, without the entry of a source. A recipe may read values that only a source sets.
fn compile(path: &str, text: &str) -> Result<Recipe, Diagnostics> {
    let read = |mut table: TomlTable, _: &Diagnostics| {
        let recipe = read::template(&mut table);
        table.finish();
        recipe
    };
    TomlTable::read(path, text, read)?
        .ok_or_else(|| Diagnostics::one(Path::new(path), 1, "", "expected a complete recipe, found an incomplete one".to_owned()))
}

fn built_in(name: &str, diagnostics: &Diagnostics) -> Option<TomlTable> {
    let (name, text) = PROVIDERS.iter().find(|(known, _)| *known == name)?;
    TomlTable::parse(&path(name), text, diagnostics)
}

fn path(name: &str) -> String {
    format!("config/providers/{name}.toml")
}

/// Name of the placeholder recipe, which hookhold uses if the provider is missing or unknown. This recipe has all required
/// parameters and accepts any text as a secret, so hookhold reports only the operator's own mistakes.
pub(super) const STAND_IN: &str = "stripe";
