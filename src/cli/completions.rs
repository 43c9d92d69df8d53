//! `hookhold completions`: writes completions for shells and the man pages. Both come from the definition of the command line.

use std::error::Error;
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

/// Prints the completions, or writes the files and prints their paths.
pub(super) fn run(args: CompletionsArgs) -> VerbResult {
    let mut out = anstream::stdout().lock();
    match (args.target.shell(), args.dir) {
        (Some(shell), None) => {
            let mut completions = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut completions);
            out.write_all(&completions)?;
        }
        (None, None) => {
            return Err(UsageError("--dir: expected a directory for the man pages, found none; add --dir DIR".into()).into());
        }
        (shell, Some(dir)) => {
            let in_dir = |error: std::io::Error| -> Box<dyn Error> {
                format!("--dir: cannot write to {}: {error}; create the directory, or check its permissions", dir.display())
                    .into()
            };
            let written = match shell {
                Some(shell) => vec![clap_complete::generate_to(shell, &mut Cli::command(), NAME, &dir).map_err(in_dir)?],
                None => write_man_pages(&dir).map_err(in_dir)?,
            };
            for path in written {
                writeln!(out, "{}", path.display())?;
            }
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// Writes a man page for hookhold and for each verb. Returns the paths.
fn write_man_pages(dir: &std::path::Path) -> std::io::Result<Vec<PathBuf>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut written = Vec::new();
    write_man_page(&command, dir, &mut written)?;
    Ok(written)
}

fn write_man_page(command: &clap::Command, dir: &std::path::Path, written: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    let path = dir.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(&path, text)?;
    written.push(path);
    command.get_subcommands().filter(|verb| !verb.is_hide_set()).try_for_each(|verb| write_man_page(verb, dir, written))
}

const NAME: &str = "hookhold";
const EXAMPLES: &str = "\
Examples:
  source <(hookhold completions bash)                                         in ~/.bashrc
  hookhold completions zsh --dir ~/.zfunc                                     with fpath+=~/.zfunc in ~/.zshrc
  hookhold completions fish --dir ~/.config/fish/completions
  hookhold completions man --dir /usr/local/share/man/man1";
