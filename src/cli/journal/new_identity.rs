//! `hookhold journal new-identity`: draws another id for the journal of a cloned volume.

use std::io::Write;

use hookhold::config::JournalConfig;
use hookhold::journal::{ReadOnlyJournal, RenewedIdentity, id_text};
use hookhold::{log, service};
use serde_json::json;

use super::super::{Context, ExitStatus, UsageError, VerbResult, stderr_has_colour};
use super::{disk_for_changes, report_open_error};

/// Draw another id for the journal of a cloned volume.
///
/// A clone of a volume has the journal id of the original. Run this command on the clone before you start hookhold there, so that
/// the two journals have different ids. All events and keys stay valid. Stop hookhold first.
#[derive(clap::Args)]
pub(super) struct NewIdentityArgs {}

/// Draws another id, and prints it.
pub(super) fn run(context: &Context, _args: &NewIdentityArgs, out: &mut impl Write) -> VerbResult {
    let config = JournalConfig::load(&context.file()?)?;
    let disk = disk_for_changes(&config)?;
    // An opening for writing would create a journal in an empty directory.
    if ReadOnlyJournal::open(disk.clone())?.stat()?.segments == 0 {
        let dir = config.dir.display();
        return Err(UsageError(format!("journal.dir: expected a journal in {dir}, found none; correct the path")).into());
    }
    log::start(log::Format::Text, stderr_has_colour());
    let RenewedIdentity { previous, id } = match service::renew_journal_identity(&config, disk) {
        Ok(renewed) => renewed,
        Err(error) => return Ok(report_open_error(&config, &error)),
    };
    let [previous, id] = [previous, id].map(id_text);
    match context.json() {
        true => writeln!(out, "{}", json!({ "id": id, "previous": previous }))?,
        false => writeln!(out, "id        {id}, before {previous}")?,
    }
    Ok(ExitStatus::Done)
}
