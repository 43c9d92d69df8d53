//! Sets up logging as text or as JSON, and escapes text from outside hookhold for log lines.
//!
//! hookhold writes log lines to standard error, so standard output contains only the output of a verb. A log line never
//! contains a secret or a body.

use std::io;
use std::sync::Arc;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text per log record.
    #[default]
    Text,
    /// One line with a JSON object per log record.
    Json,
}

/// Starts logging. Later calls have no effect. The environment variable `HOOKHOLD_LOG` sets the log filter, such as
/// `hookhold=debug`. The default log filter is `info`. The caller may set `colour` to true only if standard error is a
/// terminal.
pub fn start(format: Format, colour: bool) {
    let filter = filter().unwrap_or_else(|| Targets::new().with_default(Level::INFO));
    let lines = layer().with_writer(io::stderr);
    let started = match format {
        Format::Text => registry().with(lines.with_ansi(colour).with_target(false)).with(filter).try_init(),
        Format::Json => registry().with(lines.json().flatten_event(true).with_ansi(false)).with(filter).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
}

/// Starts logging for a command that shows each delivery itself. Passes every log line to `print`, as text without colours. The
/// environment variable `HOOKHOLD_LOG` sets the log filter. The default log filter admits warnings and errors, except the warnings
/// about rejected deliveries.
pub fn start_without_deliveries(print: impl Fn(&str) + Send + Sync + 'static) {
    let print: LinePrinter = Arc::new(print);
    let filter = filter().unwrap_or_else(|| {
        Targets::new().with_default(Level::WARN).with_target(REJECTED_DELIVERIES, tracing::level_filters::LevelFilter::OFF)
    });
    let lines = layer().with_writer(move || PrintedLines(print.clone())).with_ansi(false).with_target(false);
    if registry().with(lines).with(filter).try_init().is_err() {
        tracing::debug!("logging was already started");
    }
}

/// Returns the log filter that the environment variable sets; `None` if it is not set, or cannot be parsed.
fn filter() -> Option<Targets> {
    let text = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.trim().is_empty())?;
    let filter = text.parse();
    if filter.is_err() {
        let found = escaped(&text);
        eprintln!(
            "hookhold: {FILTER_VARIABLE}: expected levels such as debug or hookhold=debug, found {found}; using the default"
        );
    }
    filter.ok()
}

/// Function that prints one log line.
type LinePrinter = Arc<dyn Fn(&str) + Send + Sync>;

/// Writer that passes each log line to a function. The log writes each line at once.
struct PrintedLines(LinePrinter);

impl io::Write for PrintedLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Truncates text from outside hookhold to [`OUTSIDE_TEXT_LIMIT`] characters, and escapes the text for safe printing on one
/// line.
pub fn escaped(outside: &str) -> String {
    let mut shown: String = outside.chars().take(OUTSIDE_TEXT_LIMIT).flat_map(char::escape_debug).collect();
    if outside.chars().nth(OUTSIDE_TEXT_LIMIT).is_some() {
        shown.push('…');
    }
    shown
}

/// Maximum length of a text from outside hookhold in a log line, in characters before escaping.
pub const OUTSIDE_TEXT_LIMIT: usize = 120;

/// Module that logs rejected deliveries.
const REJECTED_DELIVERIES: &str = "hookhold::server::outcome_log";
const FILTER_VARIABLE: &str = "HOOKHOLD_LOG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_cannot_forge_or_flood_log_lines() {
        assert_eq!(escaped("/hooks/\n2026 ERROR \u{1b}[31m"), "/hooks/\\n2026 ERROR \\u{1b}[31m");
        assert_eq!(escaped(&"é".repeat(OUTSIDE_TEXT_LIMIT)).chars().count(), OUTSIDE_TEXT_LIMIT);
        assert_eq!(escaped(&"a".repeat(1_000_000)).chars().count(), OUTSIDE_TEXT_LIMIT + 1);
    }
}
