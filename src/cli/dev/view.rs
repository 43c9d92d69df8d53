//! Prints the stream of `hookhold dev` in one of three forms: lines above a footer on a terminal, plain lines, or JSON objects.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::terminal::RawTerminal;

/// The output of `dev`.
pub(super) struct DevView {
    output: ViewOutput,
    has_colour: bool,
}

enum ViewOutput {
    Terminal(RawTerminal),
    Lines,
    Json,
}

impl DevView {
    /// Starts the output. Uses the terminal only if the standard input and the standard output are terminals.
    pub(super) fn start(json: bool) -> io::Result<DevView> {
        let has_colour = !json && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        let has_keys = !json && io::stdin().is_terminal() && io::stdout().is_terminal();
        let output = match () {
            () if json => ViewOutput::Json,
            () if has_keys => ViewOutput::Terminal(RawTerminal::start(has_colour)?),
            () => ViewOutput::Lines,
        };
        Ok(DevView { output, has_colour })
    }

    /// Returns true if the operator can press keys.
    pub(super) fn has_keys(&self) -> bool {
        matches!(self.output, ViewOutput::Terminal(_))
    }

    /// Prints a text, or the same content as JSON objects.
    pub(super) fn print(&mut self, text: impl FnOnce(bool) -> String, json: impl FnOnce() -> Vec<Value>) -> io::Result<()> {
        match &mut self.output {
            ViewOutput::Terminal(terminal) => terminal.print(&text(self.has_colour)),
            ViewOutput::Lines => {
                let mut out = io::stdout().lock();
                writeln!(out, "{}", text(self.has_colour))?;
                out.flush()
            }
            ViewOutput::Json => {
                let mut out = io::stdout().lock();
                json().iter().try_for_each(|object| writeln!(out, "{object}"))?;
                out.flush()
            }
        }
    }

    /// Prints a message that is no result: on the terminal, or to standard error.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        match &mut self.output {
            ViewOutput::Terminal(terminal) => terminal.print(text),
            ViewOutput::Lines | ViewOutput::Json => writeln!(io::stderr(), "{text}"),
        }
    }

    /// Replaces the footer of the terminal.
    pub(super) fn set_footer(&mut self, footer: String) -> io::Result<()> {
        match &mut self.output {
            ViewOutput::Terminal(terminal) => terminal.set_footer(footer),
            ViewOutput::Lines | ViewOutput::Json => Ok(()),
        }
    }

    /// Draws the footer of the terminal again.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        match &mut self.output {
            ViewOutput::Terminal(terminal) => terminal.redraw(),
            ViewOutput::Lines | ViewOutput::Json => Ok(()),
        }
    }
}
