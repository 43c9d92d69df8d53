//! Asks the operator on the terminal before a verb changes something for good.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

use super::UsageError;

/// Prints what `show` writes and then the question, and returns true if the operator confirms. Fails with the text `without_terminal`
/// if there is no terminal.
pub(super) fn confirm(
    without_terminal: &str,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    question: &str,
) -> Result<bool, Box<dyn Error>> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UsageError(without_terminal.to_owned()).into());
    }
    let mut terminal = anstream::stderr();
    show(&mut terminal)?;
    write!(terminal, "{question} [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
