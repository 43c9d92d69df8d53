//! Trace of a life: one line for each action and for each disk operation. Two runs of one seed must have the same trace.

use std::fmt::{self, Write};

/// Use of the lines of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceMode {
    Discard,
    /// Keeps the lines, so that the test can compare two runs of a seed.
    Keep,
    /// Prints the lines at once, between the log lines of the journal.
    Print,
}

/// Trace of one life.
pub struct Trace {
    mode: TraceMode,
    text: String,
    lines: u64,
}

impl Trace {
    pub fn new(mode: TraceMode) -> Trace {
        Trace { mode, text: String::new(), lines: 0 }
    }

    /// Adds one line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        self.lines += 1;
        match self.mode {
            TraceMode::Discard => {}
            TraceMode::Keep => writeln!(self.text, "{line}").expect("a string accepts every write"),
            TraceMode::Print => crate::say(&line.to_string()),
        }
    }

    /// Returns the number of lines.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Returns the lines that the trace has stored, and leaves an empty trace.
    pub fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}
