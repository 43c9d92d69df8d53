//! `hookhold completions`: writes completions for shells and the man pages. Both come from the definition of the command line.

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, ExitStatus, UsageError, VerbResult};

/// Write completions for a shell, or the man pages.
///
/// Without --dir, prints the completions, which your shell reads at its start. With --dir, writes a file into the directory, with the
/// name that the shell expects. For man, writes one page for each command.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell: bash, elvish, fish, powershell or zsh; or man for the man pages.
    #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
    target: CompletionTarget,
    /// Existing directory in which to write the files. Required for man.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CompletionTarget {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
    Man,
}

impl CompletionTarget {
    /// Returns the shell, or `None` for the man pages.
    fn shell(self) -> Option<Shell> {
        match self {
            CompletionTarget::Bash => Some(Shell::Bash),
            CompletionTarget::Elvish => Some(Shell::Elvish),
            CompletionTarget::Fish => Some(Shell::Fish),
            CompletionTarget::Powershell => Some(Shell::PowerShell),
            CompletionTarget::Zsh => Some(Shell::Zsh),
            CompletionTarget::Man => None,
        }
    }
}

/// Prints the completions, or writes the files.
pub(super) fn run(args: CompletionsArgs) -> VerbResult {
    let mut out = anstream::stdout().lock();
    match (args.target.shell(), args.dir) {
        (Some(shell), None) => {
            let mut completions = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut completions);
            out.write_all(&completions)?;
        }
        (None, None) => {
            let what = "--dir: expected a directory for the man pages, found none; add --dir DIR";
            return Err(UsageError(what.to_owned()).into());
        }
        (shell, Some(dir)) => {
            let written = match shell {
                Some(shell) => clap_complete::generate_to(shell, &mut Cli::command(), NAME, &dir),
                None => clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &dir).map(|()| dir.clone()),
            };
            let remedy = "create the directory, or check its permissions";
            let written = written.map_err(|error| format!("--dir: cannot write to {}: {error}; {remedy}", dir.display()))?;
            writeln!(out, "wrote {}", written.display())?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

const NAME: &str = "hookhold";
const EXAMPLES: &str = "\
Examples:
  source <(hookhold completions bash)                                         in ~/.bashrc
  hookhold completions zsh --dir ~/.zfunc                                     with fpath+=~/.zfunc in ~/.zshrc
  hookhold completions fish --dir ~/.config/fish/completions
  hookhold completions man --dir /usr/local/share/man/man1";
