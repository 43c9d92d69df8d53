//! The built-in recipes, compiled into the binary. To add a provider, create the file `config/providers/NAME.toml`.

use crate::source::read;
use crate::source::recipe::Recipe;
use crate::toml_value::{Diagnostics, TomlTable};

/// Name and TOML text of every built-in recipe, sorted by name. `build.rs` lists the files in `config/providers/`.
pub const PROVIDERS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// Compiles the built-in recipe called `name`, so that a command can show the parameters of the recipe. Returns `None` if no
/// built-in recipe has this name.
pub fn provider(name: &str) -> Option<Recipe> {
    let mut table = table(name, &Diagnostics::default())?;
    read::recipe(&mut table)
}

/// Parses the built-in recipe called `name` into a TOML table that reports mistakes to `diagnostics`. Returns `None` if no
/// built-in recipe has this name.
pub(super) fn table(name: &str, diagnostics: &Diagnostics) -> Option<TomlTable> {
    let (_, text) = PROVIDERS.iter().find(|(known, _)| *known == name)?;
    TomlTable::parse(&format!("config/providers/{name}.toml"), text, diagnostics)
}
