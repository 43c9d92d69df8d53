//! Runs `hookhold` on a pseudo-terminal, presses keys, and reads the screen as text.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::wait_until;

/// A running `hookhold` and its screen. Dropping the value kills the process.
pub struct Screen {
    child: Box<dyn Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
    master: Box<dyn MasterPty + Send>,
    /// Keeps the terminal open after the end of the process, so that a test can read its mode.
    _slave: Box<dyn SlavePty + Send>,
}

impl Screen {
    /// Starts `hookhold dev` with these arguments and variables on a new terminal.
    pub fn start(args: &[&str], variables: &[(&str, &str)]) -> Screen {
        Screen::run(&[&["dev"], args].concat(), None, COLUMNS, variables)
    }

    /// Starts `hookhold` with these arguments and variables in the directory `dir`, on a new terminal with this number of columns.
    pub fn run(args: &[&str], dir: Option<&Path>, columns: u16, variables: &[(&str, &str)]) -> Screen {
        let size = PtySize { rows: ROWS, cols: columns, ..PtySize::default() };
        let pair = native_pty_system().openpty(size).expect("a pseudo-terminal");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_hookhold"));
        command.args(args);
        dir.into_iter().for_each(|dir| command.cwd(dir));
        ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "HOOKHOLD_LOG"].iter().for_each(|name| command.env_remove(name));
        command.env("TERM", "xterm-256color");
        variables.iter().for_each(|(name, value)| command.env(name, value));
        let child = pair.slave.spawn_command(command).expect("the binary has just been built");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size_of_screen(ROWS), size_of_screen(columns), 0)));
        let (into, mut output) = (screen.clone(), pair.master.try_clone_reader().expect("a reader"));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                into.lock().expect("no test panics with this lock").process(&bytes[..count]);
            }
        });
        let keys = pair.master.take_writer().expect("the first writer");
        Screen { child, keys, screen, master: pair.master, _slave: pair.slave }
    }

    /// Returns the text of the screen.
    pub fn text(&self) -> String {
        self.screen.lock().expect("no test panics with this lock").screen().contents()
    }

    /// Waits until the screen shows `part`, even if a line break of the terminal divides it.
    pub fn wait_for(&self, part: &str) {
        let is_shown = || self.text().replace('\n', "").contains(part);
        let mut last = String::new();
        wait_until(&format!("the screen shows {part:?}"), || {
            let text = self.text();
            if text != last {
                eprintln!("--- screen ---\n{text}");
                last = text;
            }
            is_shown()
        });
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("the terminal is open");
    }

    /// Returns the lines of deliveries, with placeholders for the time and for the id.
    pub fn deliveries(&self) -> Vec<String> {
        let text = self.text();
        let is_delivery = |line: &&str| line.split("  ").nth(1).is_some_and(|status| status.parse::<u16>().is_ok());
        text.lines().filter(is_delivery).map(without_time_and_id).collect()
    }

    /// Returns the last line with text.
    pub fn last_line(&self) -> String {
        self.text().trim_end().lines().last().unwrap_or_default().to_owned()
    }

    /// Returns true if the first occurrence of `part` has a colour.
    pub fn is_coloured(&self, part: &str) -> bool {
        self.has(part, |cell| cell.fgcolor() != vt100::Color::Default)
    }

    /// Returns true if the first occurrence of `part` is bold.
    pub fn is_bold(&self, part: &str) -> bool {
        self.has(part, vt100::Cell::bold)
    }

    fn has(&self, part: &str, has: impl Fn(&vt100::Cell) -> bool) -> bool {
        let parser = self.screen.lock().expect("no test panics with this lock");
        let rows: Vec<String> = parser.screen().rows(0, COLUMNS).collect();
        let (row, column) = rows.iter().enumerate().find_map(|(row, text)| Some((row, text.find(part)?))).expect("it is shown");
        has(parser.screen().cell(row as u16, column as u16).expect("inside the screen"))
    }

    /// Returns true if the terminal echoes keys and waits for whole lines, as before the start of `dev`.
    pub fn echoes(&self) -> bool {
        let modes = format!("{:?}", self.master.get_termios().expect("a terminal has modes").local_flags);
        let is_set = |name: &str| modes.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
        ["ECHO", "ICANON", "ISIG"].into_iter().all(is_set)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.process_id().and_then(|id| Pid::from_raw(id as i32)).expect("the process runs");
        kill_process(id, signal).expect("a child can be signalled until it is waited for");
    }

    /// Waits until the process exits, and returns its exit code.
    pub fn wait(&mut self) -> u32 {
        let mut status = None;
        wait_until("hookhold exits", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("waited for").exit_code()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces the time at the start of a line, and the id of a sample.
/// Returns the line of a delivery with placeholders for the time and for the id.
pub fn without_time_and_id(line: &str) -> String {
    let rest = line.split_once("  ").map_or("", |(_, rest)| rest);
    let words = rest.split(' ').map(|word| if word.starts_with("evt_") { "ID" } else { word });
    format!("TIME  {}", words.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
}

fn size_of_screen(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).expect("a screen has cells")
}

const ROWS: u16 = 50;
const COLUMNS: u16 = 140;
