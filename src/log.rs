//! The log: set up once, as text for people or as JSON for machines, and the one way by which outside text enters it.
//!
//! It goes to standard error, so that a verb's own output stays clean. It never holds a secret or a body.

use std::io;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One readable line per record.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging; a second call changes nothing. `HOOKHOLD_LOG` filters as in `hookhold=debug`; the default is `info`.
///
/// Colour appears only when `colour` is set: the caller knows whether standard error is a terminal.
pub fn start(format: Format, colour: bool) {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).with_env_var(FILTER_VARIABLE);
    let lines = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).with_writer(io::stderr);
    let started = match format {
        Format::Text => lines.with_ansi(colour).with_target(false).try_init(),
        Format::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
}

/// Makes outside text safe to print on one line: escaped, and cut at [`OUTSIDE_TEXT_LIMIT`] characters.
pub fn escaped(outside: &str) -> String {
    let mut shown: String = outside.chars().take(OUTSIDE_TEXT_LIMIT).flat_map(char::escape_debug).collect();
    if outside.chars().nth(OUTSIDE_TEXT_LIMIT).is_some() {
        shown.push('…');
    }
    shown
}

/// Characters of outside text that one log line shows.
pub const OUTSIDE_TEXT_LIMIT: usize = 120;

const FILTER_VARIABLE: &str = "HOOKHOLD_LOG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_cannot_forge_or_flood_a_line() {
        assert_eq!(escaped("/hooks/\n2026 ERROR \u{1b}[31m"), "/hooks/\\n2026 ERROR \\u{1b}[31m");
        assert_eq!(escaped(&"é".repeat(OUTSIDE_TEXT_LIMIT)).chars().count(), OUTSIDE_TEXT_LIMIT);
        assert_eq!(escaped(&"a".repeat(1_000_000)).chars().count(), OUTSIDE_TEXT_LIMIT + 1);
    }
}
