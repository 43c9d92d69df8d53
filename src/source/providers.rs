//! The compiled-in recipes. To add a provider, add the file `config/providers/NAME.toml` and its name here. A test compares
//! this list with the directory.

use crate::source::read;
use crate::source::recipe::Recipe;
use crate::toml_value::{Diagnostics, TomlTable};

macro_rules! recipes {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../config/providers/", $name, ".toml"))),)*]
    };
}

/// The name and text of every compiled-in recipe, sorted by name.
pub const PROVIDERS: &[(&str, &str)] =
    recipes! { "github" "shopify" "shopify-events" "slack" "standard-webhooks" "stripe" "svix" "twilio" };

/// Compiles the recipe called `name` to show its content. Returns `None` for an unknown name.
pub fn provider(name: &str) -> Option<Recipe> {
    let mut table = table(name, &Diagnostics::default())?;
    read::recipe(&mut table)
}

/// Parses the recipe called `name` as a table that reports to `diagnostics`.
pub(super) fn table(name: &str, diagnostics: &Diagnostics) -> Option<TomlTable> {
    let (_, text) = PROVIDERS.iter().find(|(known, _)| *known == name)?;
    TomlTable::parse(&format!("config/providers/{name}.toml"), text, diagnostics)
}
