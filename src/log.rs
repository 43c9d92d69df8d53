//! Sets up logging as text or as JSON, and escapes text from outside hookhold for log lines.
//!
//! hookhold writes log lines to standard error, so standard output contains only the output of a verb. A log line never
//! contains a secret or a body.

use std::io;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).with_env_var(FILTER_VARIABLE);
    let lines = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).with_writer(io::stderr);
    let started = match format {
        Format::Text => lines.with_ansi(colour).with_target(false).try_init(),
        Format::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
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
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(WITHOUT_DELIVERIES));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || PrintedLines(print.clone()));
    if lines.with_ansi(false).with_target(false).try_init().is_err() {
        tracing::debug!("logging was already started");
    }
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

/// Default log filter of [`start_without_deliveries`].
const WITHOUT_DELIVERIES: &str = "warn,hookhold::server::outcome_log=off";
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
