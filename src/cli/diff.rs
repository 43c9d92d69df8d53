//! `hookhold check --diff`: compares the configuration file with the configuration of the running process. The running process
//! makes the comparison, because the result depends on the environment, working directory and permissions of that process.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hookhold::config::ConfigChange;
use hookhold::diagnostic::Diagnostic;
use serde::Deserialize;

use super::ask::RunningProcess;
use super::{Context, ExitStatus, UsageError, VerbResult, table};

/// Response body of `/api/changes` on the admin listener.
#[derive(Deserialize)]
struct ReloadPreview {
    file: PathBuf,
    changes: Vec<ConfigChange>,
    #[serde(rename = "mistakes")]
    diagnostics: Vec<Diagnostic>,
}

/// Prints the differences between the configuration file and the running configuration. The exit code is 2 if the configuration
/// file is invalid, and 1 if a change needs a restart.
pub(super) fn run(context: &Context, url: Option<String>) -> VerbResult {
    let process = RunningProcess::find(context, url)?;
    let page = process.page("/api/changes")?;
    let preview: ReloadPreview = process.parse(&page)?;
    let base = process.url;
    if let Some(named) = context.config.as_deref().filter(|named| !is_same_file(named, &preview.file)) {
        let (named, file) = (named.display(), preview.file.display());
        let what = format!("--config: expected {file}, as in the process at {base}, found {named}; omit --config");
        return Err(UsageError(what).into());
    }
    let mut out = anstream::stdout().lock();
    if context.json() {
        writeln!(out, "{}", page.trim_end())?;
    } else {
        print(&mut out, &preview, &base)?;
    }
    out.flush()?;
    if !preview.diagnostics.is_empty() {
        return Err(UsageError(format!(
            "{}: expected a valid configuration, found {} errors; correct the reported lines before a reload",
            preview.file.display(),
            preview.diagnostics.len()
        ))
        .into());
    }
    let (file, restarts) = (preview.file.display(), preview.changes.iter().filter(|change| change.needs_restart).count());
    if restarts > 0 {
        return Err(format!(
            "{file}: expected changes that a reload can apply, found {restarts} that need a restart; restart hookhold"
        )
        .into());
    }
    Ok(ExitStatus::Done)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}

fn print(out: &mut impl Write, preview: &ReloadPreview, base: &str) -> io::Result<()> {
    let ReloadPreview { file, changes, diagnostics } = preview;
    if !diagnostics.is_empty() {
        return diagnostics.iter().try_for_each(|diagnostic| writeln!(out, "{diagnostic}"));
    }
    let heading = format!("{}: changes to apply to the process at {base}", file.display());
    if changes.is_empty() {
        return writeln!(out, "{heading}: none");
    }
    writeln!(out, "{heading}\n")?;
    let mut rows = table::new(&["OPTION", "CHANGE", ""], &[]);
    for ConfigChange { key, change, needs_restart } in changes {
        rows.add_row([key.as_str(), change, if *needs_restart { "needs a restart" } else { "" }]);
    }
    writeln!(out, "{}", rows.trim_fmt())
}
