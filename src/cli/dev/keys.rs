//! Reads the keys that the operator presses, and gives each key its meaning.

use std::thread;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::Sender;

use super::samples::SampleKind;
use super::update::DevUpdate;

/// The meaning of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyCommand {
    /// Send a sample of the chosen provider.
    Send(SampleKind),
    /// Choose the provider with this index.
    Choose(usize),
    /// Choose the next provider.
    ChooseNext,
    /// Post the last event to the local program again.
    Replay,
    /// Show the keys.
    Help,
    /// End the command.
    Quit,
}

/// Returns the meaning of a key; `None` if it has none.
pub(super) fn command(key: KeyEvent) -> Option<KeyCommand> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(KeyCommand::Quit);
    }
    match key.code {
        KeyCode::Char('g') => Some(KeyCommand::Send(SampleKind::Genuine)),
        KeyCode::Char('d') => Some(KeyCommand::Send(SampleKind::Duplicate)),
        KeyCode::Char('t') => Some(KeyCommand::Send(SampleKind::Tampered)),
        KeyCode::Char('s') => Some(KeyCommand::Send(SampleKind::Stale)),
        KeyCode::Char(digit @ '1'..='9') => Some(KeyCommand::Choose(digit as usize - '1' as usize)),
        KeyCode::Tab => Some(KeyCommand::ChooseNext),
        KeyCode::Char('r') => Some(KeyCommand::Replay),
        KeyCode::Char('?' | 'h') => Some(KeyCommand::Help),
        KeyCode::Char('q') => Some(KeyCommand::Quit),
        _ => None,
    }
}

/// Starts the thread that reads keys. The thread ends with the process, because a read of the terminal cannot be cancelled.
pub(super) fn read_keys(updates: Sender<DevUpdate>) -> std::io::Result<()> {
    let read = move || {
        while let Ok(event) = event::read() {
            let update = match event {
                Event::Key(key) if key.kind == KeyEventKind::Press => DevUpdate::Key(key),
                Event::Resize(..) => DevUpdate::Resized,
                _ => continue,
            };
            if updates.blocking_send(update).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("keys".to_owned()).spawn(read).map(drop)
}

/// The line below the stream. `others` is true if there are several providers.
pub(super) fn footer(chosen: &str, has_others: bool, forwards: bool) -> String {
    let tab = if has_others { "  Tab next" } else { "" };
    let replay = if forwards { "  r replay" } else { "" };
    format!("{chosen}: g genuine  d duplicate  t tampered  s stale{tab}{replay}  ? help  q quit")
}

/// The text of the key `?`.
pub(super) const HELP: &str = "
  g  send a genuine sample               d  send the last genuine sample again
  t  send a tampered sample              s  send a genuine but stale sample
  1-9, Tab  choose another provider      r  post the last event to --forward again
  q, Ctrl-C  end                         ?  show this help
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_of_the_help_has_a_meaning() {
        for letter in "gdtsr?q19".chars() {
            assert!(command(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE)).is_some(), "{letter}");
        }
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(command(interrupt), Some(KeyCommand::Quit));
        assert_eq!(command(KeyEvent::new(KeyCode::Char('x'), KeyModifiers::NONE)), None);
    }
}
