//! Lists the recipes in `config/providers/` for `src/source/providers.rs`, so that a new recipe file needs no change in Rust.
//! Passes the commit, the target and the enabled features of the build to `src/build_info.rs`. Turns on the planted bugs of
//! `src/journal/planted.rs` if the environment variable `HOOKHOLD_PLANTS` exists.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(hookhold_plants)");
    println!("cargo::rerun-if-env-changed=HOOKHOLD_PLANTS");
    if env::var_os("HOOKHOLD_PLANTS").is_some() {
        println!("cargo::rustc-cfg=hookhold_plants");
    }
    pass_build_info();
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts");
    let directory = Path::new(&root).join(DIRECTORY);
    println!("cargo::rerun-if-changed={}", directory.display());
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("cannot read {}: {error}", directory.display()));
    let mut names: Vec<String> = entries.map(|entry| name(&entry.expect("config/providers/ is readable").path())).collect();
    names.sort();
    let mut list = String::from("&[\n");
    for name in &names {
        let path = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{DIRECTORY}/{name}.toml\")");
        writeln!(list, "    ({name:?}, include_str!({path})),").expect("a String accepts every write");
    }
    list.push_str("]\n");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    fs::write(Path::new(&out).join("recipes.rs"), list).expect("OUT_DIR is writable");
}

/// Passes facts about the build to the crate. The commit comes from the environment, because a build script that asks git would
/// compile the crate again after each commit.
fn pass_build_info() {
    println!("cargo::rerun-if-env-changed=HOOKHOLD_COMMIT");
    let commit = env::var("HOOKHOLD_COMMIT").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=HOOKHOLD_COMMIT={commit}");
    println!("cargo::rustc-env=HOOKHOLD_TARGET={}", env::var("TARGET").expect("cargo sets TARGET for build scripts"));
    let features = features();
    println!("cargo::rustc-env=HOOKHOLD_FEATURES={}", if features.is_empty() { "none".to_owned() } else { features.join(" ") });
}

/// Returns the names of the enabled cargo features, sorted.
fn features() -> Vec<String> {
    let variables = env::vars().filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_owned));
    let mut features: Vec<String> = variables.map(|name| name.to_ascii_lowercase().replace('_', "-")).collect();
    features.retain(|name| name != "default");
    features.sort();
    features
}

/// Returns the name of the recipe in this file. Ends the build if the file is not a recipe.
fn name(path: &Path) -> String {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    let name = file.strip_suffix(".toml").filter(|name| !name.is_empty() && name.bytes().all(is_plain));
    let name = name.unwrap_or_else(|| {
        panic!(
            "{}: expected a recipe such as acme.toml with lower-case letters, digits and \"-\", found another name; rename or remove the file",
            path.display()
        )
    });
    name.to_owned()
}

const DIRECTORY: &str = "config/providers";
