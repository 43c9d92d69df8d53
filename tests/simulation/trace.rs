//! Trace of a life: one line for each action and for each disk operation. Two runs of one seed must have the same trace.

use std::fmt::{self, Write};

/// Trace of one life.
#[derive(Default)]
pub struct Trace {
    /// The lines; `None` if the test does not compare this life with another run of its seed.
    text: Option<String>,
    lines: u64,
}

impl Trace {
    /// Creates an empty trace that keeps its lines.
    pub fn recording() -> Trace {
        Trace { text: Some(String::new()), lines: 0 }
    }

    /// Adds one line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        self.lines += 1;
        if let Some(text) = &mut self.text {
            writeln!(text, "{line}").expect("a string accepts every write");
        }
    }

    /// Returns the number of lines.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Returns the text, and leaves an empty trace.
    pub fn take_text(&mut self) -> String {
        self.text.take().unwrap_or_default()
    }
}
