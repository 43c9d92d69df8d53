//! Planted bugs, with which `tests/simulation/plant` shows that the simulation finds bugs. Only a build with the environment
//! variable `HOOKHOLD_PLANTS` contains them.

/// Returns true if the environment variable `HOOKHOLD_PLANT` names this bug.
#[cfg(hookhold_plants)]
pub(super) fn is_planted(bug: &str) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("HOOKHOLD_PLANT").ok());
    PLANTED.as_deref() == Some(bug)
}

/// Returns false, because this build contains no planted bugs.
#[cfg(not(hookhold_plants))]
pub(super) const fn is_planted(_bug: &str) -> bool {
    false
}

#[cfg(all(hookhold_plants, not(debug_assertions)))]
compile_error!("expected a build for tests, found a release build with planted bugs; unset HOOKHOLD_PLANTS");
