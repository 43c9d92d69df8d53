//! What `hookhold check` warns about although the configuration is valid: the machine or a secret does not fit it. A warning does not
//! change the exit code, because `check` may run on another machine or as another user than hookhold.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use hookhold::config::Config;
use hookhold::journal::disk::{Disk, LocalDisk};
use hookhold::units::bytes_about;

use crate::cli::volume;

/// Returns all warnings, each with its remedy. Opens each listener for a moment, unless hookhold runs with this journal.
pub(super) fn all(config: &Config) -> io::Result<Vec<String>> {
    let mut warnings: Vec<String> = volume::warning(&volume::file_system(&config.journal)?).into_iter().collect();
    let nearest = volume::nearest_directory(&config.journal)?;
    warnings.extend(unwritable(&nearest));
    warnings.extend(lack_of_space(config, &nearest)?);
    if !is_running(config) {
        warnings.extend(unusable_address("server.listen", config.server.listen));
        warnings.extend(unusable_address("admin.listen", config.admin.listen));
    }
    for source in &config.sources {
        let doubtful = source.doubtful_secrets().into_iter();
        warnings.extend(doubtful.map(|(name, reason)| format!("sources.{}: the secret {name} {reason}", source.name)));
    }
    let replaced = config.providers.files().iter().filter(|file| file.is_replacement());
    warnings.extend(replaced.map(|file| {
        format!("{} replaces the built-in recipe {}; remove the file to use the built-in recipe", file.path, file.name)
    }));
    let shadow = config.sources.iter().filter(|source| source.shadow);
    warnings.extend(shadow.map(|source| format!("sources.{}.danger_shadow is on, so {SHADOW}", source.name)));
    Ok(warnings)
}

/// Returns a warning if the user of this process may not write to the journal's directory, or may not create it.
fn unwritable(nearest: &Path) -> Option<String> {
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let error = io::Error::from(rustix::fs::access(nearest, wanted).err()?);
    let remedy = "change its owner, or run this command as the user of hookhold";
    Some(format!("journal.dir: cannot write to {}: {error}; {remedy}", nearest.display()))
}

/// Returns a warning if the files of the journal may outgrow their volume.
fn lack_of_space(config: &Config, nearest: &Path) -> io::Result<Option<String>> {
    let limits = &config.journal.limits;
    let needed = limits.max_size.saturating_add(limits.max_parked).saturating_add(config.dedupe.max_disk);
    let files = LocalDisk::existing(&config.journal.dir).and_then(|disk| disk.list()).unwrap_or_default();
    let used = files.iter().map(|(_, size)| size).sum();
    let room = volume::free_bytes(nearest)?.saturating_add(used);
    Ok((room < needed).then(|| {
        format!(
            "journal.dir: journal.max_size, journal.max_parked and dedupe.max_disk allow {}, but the volume of {} has room for {}; \
             lower them, or enlarge the volume",
            bytes_about(needed),
            nearest.display(),
            bytes_about(room)
        )
    }))
}

/// Returns true if a process has opened the journal of this configuration.
fn is_running(config: &Config) -> bool {
    LocalDisk::existing(&config.journal.dir).and_then(|disk| disk.is_locked()).unwrap_or(false)
}

/// Returns a warning if hookhold could not listen at this address.
fn unusable_address(option: &str, address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "stop the process that uses the port, or choose another port",
        ErrorKind::PermissionDenied => "choose a port above 1023, or give hookhold the capability CAP_NET_BIND_SERVICE",
        ErrorKind::AddrNotAvailable => "choose an address of this machine",
        _ => "choose another address",
    };
    Some(format!("{option}: cannot listen at {address}: {error}; {remedy}"))
}

const SHADOW: &str = "hookhold answers every delivery like a stored delivery, even a delivery that hookhold rejects or cannot \
                      store; set danger_shadow = false after the trial";
