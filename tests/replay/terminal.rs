//! Runs a command on a pseudo-terminal, and answers its question.

use std::io::{Read, Write};
use std::path::Path;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

/// Runs `hookhold` with these arguments in the directory `dir`, enters `answer`, and returns the exit code and the text of the terminal.
pub fn run(dir: &Path, args: &[&str], answer: &str) -> (u32, String) {
    let size = PtySize { rows: 40, cols: 200, ..PtySize::default() };
    let pair = native_pty_system().openpty(size).expect("a pseudo-terminal");
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_hookhold"));
    command.args(args);
    command.cwd(dir);
    let mut child = pair.slave.spawn_command(command).expect("the binary has just been built");
    drop(pair.slave);
    let mut keys = pair.master.take_writer().expect("the first writer");
    keys.write_all(answer.as_bytes()).and_then(|()| keys.flush()).expect("the terminal is open");
    let mut output = pair.master.try_clone_reader().expect("a reader");
    let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
    // The terminal ends with an error.
    while let Ok(count @ 1..) = output.read(&mut bytes) {
        text.extend_from_slice(&bytes[..count]);
    }
    (child.wait().expect("a child can be waited for").exit_code(), String::from_utf8_lossy(&text).into_owned())
}
