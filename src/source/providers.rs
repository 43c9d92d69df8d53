//! The recipes that are compiled in. A provider is a file: to add one, add `config/providers/NAME.toml` and its line here;
//! a test holds this list equal to the directory.

use crate::source::read;
use crate::source::recipe::Recipe;
use crate::toml_value::{Diagnostics, TomlTable};

macro_rules! recipes {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../config/providers/", $name, ".toml"))),)*]
    };
}

/// Every compiled-in recipe: its name and its text, in the order of their names.
pub const PROVIDERS: &[(&str, &str)] =
    recipes! { "github" "shopify" "shopify-events" "slack" "standard-webhooks" "stripe" "svix" "twilio" };

/// The recipe called `name`, compiled; for showing what it says. `None` when there is no such recipe.
pub fn provider(name: &str) -> Option<Recipe> {
    let mut table = table(name, &Diagnostics::default())?;
    read::recipe(&mut table)
}

/// The recipe called `name`, as a table that notes its mistakes in `mistakes`.
pub(super) fn table(name: &str, mistakes: &Diagnostics) -> Option<TomlTable> {
    let (_, text) = PROVIDERS.iter().find(|(known, _)| *known == name)?;
    TomlTable::parse(&format!("config/providers/{name}.toml"), text, mistakes)
}
