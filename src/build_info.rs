//! Facts about this build: version, commit, target and features. `hookhold --version` prints them, and the metric
//! `hookhold_build_info` has the version and the commit as labels. `build.rs` passes the facts to this file.

/// Version of this build, such as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of this build as 12 hexadecimal digits, followed by `-dirty` if the working tree had other changes. `unknown` if
/// `deploy/release` did not build it, or found no git repository.
pub const COMMIT: &str = env!("HOOKHOLD_COMMIT");

/// Text of `hookhold --version` after the name of the program: the version, then one line for each other fact.
pub const REPORT: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("HOOKHOLD_COMMIT"),
    "\ntarget: ",
    env!("HOOKHOLD_TARGET"),
    "\nfeatures: ",
    env!("HOOKHOLD_FEATURES"),
);
