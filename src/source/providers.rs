//! The built-in recipes, compiled into the binary. To add a provider, create the file `config/providers/NAME.toml` and add its
//! name to the list in this module. A test compares the list with the directory.

use crate::source::read;
use crate::source::recipe::Recipe;
use crate::toml_value::{Diagnostics, TomlTable};

macro_rules! recipes {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../config/providers/", $name, ".toml"))),)*]
    };
}

/// Name and TOML text of every built-in recipe, sorted by name.
pub const PROVIDERS: &[(&str, &str)] =
    recipes! { "github" "shopify" "shopify-events" "slack" "standard-webhooks" "stripe" "svix" "twilio" };

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
