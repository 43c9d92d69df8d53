//! `hookhold check --diff`: what a reload would change, told by the process that would do it. Only that process has its
//! environment, its working directory and its rights, so nobody else could say.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Context, ExitStatus, UsageError, VerbResult, ask, table};

/// What `/api/changes` says.
#[derive(Deserialize)]
struct Outlook {
    file: PathBuf,
    changes: Vec<Change>,
    mistakes: Vec<ReportedMistake>,
}

#[derive(Deserialize)]
struct Change {
    key: String,
    change: String,
    needs_restart: bool,
}

#[derive(Deserialize)]
struct ReportedMistake {
    file: String,
    line: usize,
    key: String,
    mistake: String,
}

/// Asks and prints; exit code 2 when the file has a mistake, 1 when a change in it needs a restart.
pub fn run(context: &Context, url: Option<String>) -> VerbResult {
    let base = ask::listener(context, url)?;
    let page = ask::page(&base, "/api/changes")?;
    let outlook: Outlook =
        serde_json::from_str(&page).map_err(|_| format!("{base} is not the admin listener of a hookhold with reload"))?;
    if let Some(named) = context.config.as_deref().filter(|named| !same_file(named, &outlook.file)) {
        let (named, file) = (named.display(), outlook.file.display());
        return Err(UsageError(format!("the process at {base} reads {file}, so it cannot say what {named} would change")).into());
    }
    let mut out = anstream::stdout().lock();
    if context.json() {
        writeln!(out, "{}", page.trim_end())?;
    } else {
        print(&mut out, &outlook, &base)?;
    }
    out.flush()?;
    let (mistakes, restarts) = (outlook.mistakes.len(), outlook.changes.iter().filter(|change| change.needs_restart).count());
    match (mistakes, restarts) {
        (0, 0) => Ok(ExitStatus::Done),
        (0, _) => Err("a reload would be refused: some changes need a restart".into()),
        _ => Err(UsageError(format!("a reload would be refused: mistakes in {}", outlook.file.display())).into()),
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    whole(one) == whole(other)
}

fn print(out: &mut impl Write, outlook: &Outlook, base: &str) -> io::Result<()> {
    let Outlook { file, changes, mistakes } = outlook;
    let heading = format!("{}: what a reload would change in the process at {base}", file.display());
    for ReportedMistake { file, line, key, mistake } in mistakes {
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        writeln!(out, "{file}:{line}: {key}{mistake}")?;
    }
    if !mistakes.is_empty() {
        return Ok(());
    }
    if changes.is_empty() {
        return writeln!(out, "{heading}: nothing");
    }
    writeln!(out, "{heading}\n")?;
    let mut rows = table::new(&["OPTION", "CHANGE", ""], &[]);
    for Change { key, change, needs_restart } in changes {
        rows.add_row([key.as_str(), change, if *needs_restart { "needs a restart" } else { "" }]);
    }
    writeln!(out, "{}", rows.trim_fmt())
}
