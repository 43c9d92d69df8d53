//! Starts the next process of an upgrade: the program that now stands at the path of this one, with the same arguments and
//! `--take-over`. If it fails, this process continues.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Program and arguments of the next process.
pub(super) struct UpgradeCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// False if the configuration came from standard input.
    can_read_config: bool,
    is_running: Arc<AtomicBool>,
}

impl UpgradeCommand {
    /// Returns the command for the program of this process. The caller must call this function at the start, because the path of a
    /// replaced program can no longer be found.
    pub(super) fn of_this_process(config: Option<&Path>) -> UpgradeCommand {
        let mut words = std::env::args_os();
        let name = words.next().map(PathBuf::from).unwrap_or_default();
        let mut arguments: Vec<OsString> = words.collect();
        if !arguments.iter().any(|argument| argument == TAKE_OVER) {
            arguments.push(TAKE_OVER.into());
        }
        UpgradeCommand {
            program: std::env::current_exe().unwrap_or(name),
            arguments,
            can_read_config: config != Some(Path::new("-")),
            is_running: Arc::default(),
        }
    }

    /// Starts the next process. Does nothing, except for a log line, if it cannot be started or if it already runs.
    pub(super) fn start(&self) {
        let program = self.program.display().to_string();
        if !self.can_read_config {
            return tracing::error!("upgrade: expected a configuration file, found standard input; name a file with --config");
        }
        if self.is_running.swap(true, Ordering::AcqRel) {
            return tracing::error!(program, "upgrade: expected no other upgrade, found one under way; wait until it has ended");
        }
        let mut command = Command::new(&self.program);
        // The sockets come from this process. The protocol of the service manager names the process for which they are meant.
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        let started = command.args(&self.arguments).stdin(Stdio::null()).spawn();
        let is_running = self.is_running.clone();
        let watch = |mut child: std::process::Child| {
            tracing::info!(program, process = child.id(), "upgrade: started the new process");
            thread::Builder::new().name("upgrade".into()).spawn(move || {
                let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::error!(process = child.id(), %ended, "upgrade: the new process has ended; see its log lines above");
                is_running.store(false, Ordering::Release);
            })
        };
        if let Err(error) = started.and_then(watch) {
            tracing::error!(program = %self.program.display(), %error, "upgrade: cannot start the new process; this process continues");
            self.is_running.store(false, Ordering::Release);
        }
    }
}

const TAKE_OVER: &str = "--take-over";
