//! Puts the terminal into raw mode, and restores it at every end, even after a panic. Prints lines above a footer.

use std::io::{self, Stdout, Write};
use std::panic;
use std::sync::Once;

use crossterm::cursor::MoveToColumn;
use crossterm::terminal::{Clear, ClearType, disable_raw_mode, enable_raw_mode, size};
use crossterm::{queue, style::Print};

use super::delivery_line::painted;

/// Terminal in raw mode. Dropping this value restores the terminal.
pub(super) struct RawTerminal {
    out: Stdout,
    footer: String,
    has_colour: bool,
}

impl RawTerminal {
    /// Starts raw mode. A panic on any thread restores the terminal before its message, so that the message is readable.
    pub(super) fn start(has_colour: bool) -> io::Result<RawTerminal> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let earlier = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                let _ = disable_raw_mode();
                earlier(panic);
            }));
        });
        enable_raw_mode()?;
        Ok(RawTerminal { out: io::stdout(), footer: String::new(), has_colour })
    }

    /// Prints `text` above the footer.
    pub(super) fn print(&mut self, text: &str) -> io::Result<()> {
        queue!(self.out, MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        // In raw mode, a line feed does not return to the first column.
        for line in text.lines() {
            queue!(self.out, Print(line), Print("\r\n"))?;
        }
        self.draw_footer()
    }

    /// Replaces the footer. Shows as much of it as fits on one line, because only one line is cleared later.
    pub(super) fn set_footer(&mut self, footer: String) -> io::Result<()> {
        self.footer = footer;
        queue!(self.out, MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        self.draw_footer()
    }

    /// Draws the footer again, because the terminal has another width.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        self.set_footer(self.footer.clone())
    }

    fn draw_footer(&mut self) -> io::Result<()> {
        let width = size().map_or(DEFAULT_WIDTH, |(columns, _)| columns.into());
        let shown: String = self.footer.chars().take(width.saturating_sub(1)).collect();
        queue!(self.out, Print(painted(&shown, anstyle::Style::new().bold(), self.has_colour)))?;
        self.out.flush()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = queue!(self.out, MoveToColumn(0), Clear(ClearType::FromCursorDown));
        let _ = self.out.flush();
        let _ = disable_raw_mode();
    }
}

/// Width of a terminal that does not know its width.
const DEFAULT_WIDTH: usize = 80;
