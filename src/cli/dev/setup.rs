//! Prepares what `hookhold dev` needs before the gateway starts: the listener, the directory for the journal and for the generated
//! secrets, and the configuration. Builds the configuration as text, so that `dev` and `run` check the same options with the same
//! code.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookhold::config::Config;
use hookhold::server;
use hookhold::source::Source;
use hookhold::source::recipe::{Proof, Recipe};
use tempfile::{Builder, NamedTempFile, TempDir};
use tokio::net::TcpListener;

use super::DevArgs;
use crate::cli::{Context, KAFKA, UsageError, invalid_recipes, providers, unknown_name};

/// Everything that `dev` has prepared before the start. Dropping this value deletes the temporary files.
pub(super) struct DevSetup {
    /// Checked configuration of the gateway.
    pub(super) config: Config,
    /// The named providers, in the order of the command line.
    pub(super) providers: Arc<[DevProvider]>,
    /// True if `dev` deletes the journal at the end.
    pub(super) is_temporary: bool,
    /// Copy of the configuration, with which other commands reach this gateway and its journal.
    pub(super) config_file: PathBuf,
    /// URL of the listener on this machine, without a path.
    pub(super) local_url: String,
    _secrets: Vec<NamedTempFile>,
    _directory: TempDir,
}

/// A provider that `dev` receives from.
pub(super) struct DevProvider {
    /// Display name of the provider.
    pub(super) title: String,
    /// Source of the provider's deliveries. Its name is the name of the provider.
    pub(super) source: Arc<Source>,
    /// Recipe of the provider.
    pub(super) recipe: Recipe,
    /// URL of the source on this machine.
    pub(super) url: String,
    /// Origin of the provider's secret.
    pub(super) secret: SecretOrigin,
}

/// Origin of the secret of a provider.
pub(super) enum SecretOrigin {
    /// `dev` has generated the secret and written it into this file.
    Generated(PathBuf),
    /// The references that the operator has passed with `--secret`, such as `env:STRIPE_WEBHOOK_SECRET`.
    Given(Vec<String>),
    /// The recipe requires no secret.
    None,
}

impl SecretOrigin {
    /// Returns the shell expression that yields the secret; `None` if there is none.
    pub(super) fn shell(&self) -> Option<String> {
        match self {
            SecretOrigin::Generated(file) => Some(contents_of(&file.display().to_string())),
            SecretOrigin::Given(references) => references.first().map(|reference| match reference.split_once(':') {
                Some(("file", path)) => contents_of(path),
                Some((_, variable)) => format!("\"${variable}\""),
                None => String::new(),
            }),
            SecretOrigin::None => None,
        }
    }
}

/// Returns the shell expression that yields the contents of a file.
fn contents_of(path: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    match path.chars().all(is_plain) {
        true => format!("\"$(cat {path})\""),
        false => format!("\"$(cat '{}')\"", path.replace('\'', "'\\''")),
    }
}

/// Opens the listener at `given`. If the operator names no address, opens it at the first free port from [`FIRST_PORT`] on this
/// machine. Must be called inside a tokio runtime.
pub(super) fn open_listener(given: Option<SocketAddr>) -> Result<TcpListener, UsageError> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (first, last) = given.map_or((at(FIRST_PORT), at(FIRST_PORT + OTHER_PORTS)), |address| (address, address));
    for port in first.port()..=last.port() {
        match server::listen(SocketAddr::new(first.ip(), port)) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && port < last.port() => {}
            Err(error) => {
                let remedy = "choose another address, or stop the process that listens there";
                let found = format!("{}:{port} unavailable ({error}); {remedy}", first.ip());
                return Err(UsageError(format!("--listen: expected an available address, found {found}")));
            }
        }
    }
    Err(UsageError(format!("--listen: expected a port from {first} to {last}, found an empty range")))
}

impl DevSetup {
    /// Creates the directory and the secrets, and checks the configuration. `address` and `admin` are the addresses of the open listeners.
    pub(super) fn new(
        context: &Context,
        args: &DevArgs,
        address: SocketAddr,
        admin: SocketAddr,
    ) -> Result<DevSetup, Box<dyn Error>> {
        let (known, in_files) = context.providers(args.providers_dir.as_deref())?;
        let mut chosen: Vec<(String, Recipe)> = Vec::new();
        for name in &args.providers {
            if chosen.iter().all(|(other, _)| other != name) {
                chosen.push((name.clone(), providers::recipe(&known, &in_files, name)?));
            }
        }
        let names: Vec<String> = chosen.iter().map(|(name, _)| name.clone()).collect();
        let given = given_secrets(&args.secrets, &names)?;
        let directory = Builder::new().prefix("hookhold-dev-").permissions(Permissions::from_mode(0o700)).tempdir();
        let directory = directory.map_err(|error| format!("cannot create a temporary directory: {error}; set TMPDIR"))?;
        let local_url = local_url(address);
        let mut draft = DevDraft { text: String::new(), directory, secrets: Vec::new() };
        let public_url = args.public_url.as_deref().unwrap_or(&local_url).trim_end_matches('/');
        draft.common(args.journal.as_deref(), public_url)?;
        draft.option("server.listen", address.to_string())?;
        draft.option("admin.listen", admin.to_string())?;
        if let Some(servers) = &args.kafka {
            draft.option("kafka.\"bootstrap.servers\"", servers)?;
        }
        if let Some(dir) = known.directory() {
            draft.option("providers.dir", path_text(&std::path::absolute(dir)?)?)?;
        }
        let mut origins = Vec::new();
        for (name, recipe) in &chosen {
            let given = given.iter().filter(|(other, _)| other == name).map(|(_, reference)| reference.clone());
            origins.push(draft.source(name, recipe, given.collect())?);
        }
        let parsed = Config::parse(FILE, &draft.text, KAFKA);
        let config = parsed.map_err(|diagnostics| first_error(diagnostics.sorted()))?;
        let sources = config.sources.iter().cloned();
        let providers = chosen.into_iter().zip(origins).zip(sources).map(|(((name, recipe), secret), source)| DevProvider {
            title: providers::title(&name, &recipe).to_owned(),
            url: format!("{local_url}{}", source.path),
            source,
            recipe,
            secret,
        });
        let (providers, is_temporary) = (providers.collect(), args.journal.is_none());
        let DevDraft { text, directory, mut secrets } = draft;
        let mut file = Builder::new().prefix("hookhold.toml").rand_bytes(0).tempfile_in(directory.path())?;
        file.write_all(text.as_bytes())?;
        let config_file = file.path().to_owned();
        secrets.push(file);
        Ok(DevSetup { config, config_file, providers, is_temporary, local_url, _secrets: secrets, _directory: directory })
    }
}

/// The text of the configuration, and the files that it refers to.
struct DevDraft {
    text: String,
    directory: TempDir,
    secrets: Vec<NamedTempFile>,
}

impl DevDraft {
    /// Adds the options that do not depend on a source. A temporary journal is small, and a named one has the limits of
    /// `hookhold run`, so that `dev` deletes no event that `run` would store for longer.
    fn common(&mut self, journal: Option<&Path>, public_url: &str) -> Result<(), Box<dyn Error>> {
        self.option("server.public_url", public_url)?;
        self.option("server.drain_delay", "0s")?;
        self.option("server.drain_deadline", "2s")?;
        let dir = journal.map_or_else(|| Ok(self.directory.path().join("journal")), std::path::absolute);
        let dir = dir.map_err(|error| UsageError(format!("--journal: expected a directory: {error}")))?;
        self.option("journal.dir", path_text(&dir)?)?;
        if journal.is_none() {
            self.option("journal.max_size", "1 GiB")?;
            self.option("journal.segment_size", "16 MiB")?;
        }
        Ok(())
    }

    fn option(&mut self, key: &str, value: impl Into<String>) -> Result<(), Box<dyn Error>> {
        Ok(writeln!(self.text, "{key} = {}", toml::Value::from(value.into()))?)
    }

    /// Adds the section of a source. If the operator passes no secret, generates one.
    fn source(&mut self, name: &str, recipe: &Recipe, given: Vec<String>) -> Result<SecretOrigin, Box<dyn Error>> {
        writeln!(self.text, "[sources.{name}]")?;
        self.option("provider", name)?;
        if recipe.proofs.iter().any(|proof| matches!(proof, Proof::None)) {
            writeln!(self.text, "allow_from = [\"127.0.0.0/8\", \"::1\"]")?;
        }
        let options = providers::key_options(recipe);
        let Some(option) = options.first() else { return Ok(SecretOrigin::None) };
        if *option == "public_keys" && given.is_empty() {
            let expected = format!("--secret {name}=REFERENCE: expected a reference to the public key of {name}, found none");
            return Err(UsageError(format!("{expected}; only {name} can sign, so dev can generate no key")).into());
        }
        let (references, origin) = match given.is_empty() {
            true => {
                let file = self.generate(name, recipe)?;
                (vec![format!("file:{}", path_text(&file)?)], SecretOrigin::Generated(file))
            }
            false => (given.clone(), SecretOrigin::Given(given)),
        };
        writeln!(self.text, "{option} = {}", toml::Value::from(references))?;
        Ok(origin)
    }

    /// Writes a new secret into a file that only this user can read, and returns the path of the file.
    fn generate(&mut self, name: &str, recipe: &Recipe) -> Result<PathBuf, Box<dyn Error>> {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes)?;
        // Hexadecimal digits are valid as text, in hexadecimal and in Base64.
        let digits = base16ct::lower::encode_string(&bytes);
        let text = match recipe.setup.secret_forms.first() {
            _ if recipe.proofs.iter().any(|proof| matches!(proof, Proof::Basic)) => format!("hookhold:{digits}"),
            Some(form) => form.example(&digits),
            None => digits,
        };
        let mut file = Builder::new().prefix(&format!("{name}.secret")).rand_bytes(0).tempfile_in(self.directory.path())?;
        writeln!(file, "{text}")?;
        let path = file.path().to_owned();
        self.secrets.push(file);
        Ok(path)
    }
}

/// Returns the name of the provider and the reference of each `--secret`. An error never repeats the value, because it may be a
/// secret.
fn given_secrets(options: &[String], names: &[String]) -> Result<Vec<(String, String)>, UsageError> {
    let parse = |option: &String| {
        let (name, reference) = option.split_once('=').unwrap_or((names.first().map_or("", String::as_str), option));
        if !["env:", "file:"].iter().any(|scheme| reference.starts_with(scheme)) {
            let expected = "--secret: expected NAME=env:VARIABLE or NAME=file:PATH, found something else";
            let remedy = "put the secret into a variable or a file, so that no other user can see it";
            return Err(UsageError(format!("{expected}; {remedy}")));
        }
        match names.iter().any(|known| known == name) {
            true => Ok((name.to_owned(), reference.to_owned())),
            false => Err(unknown_name("--secret: expected the name of a named provider", name, names)),
        }
    };
    options.iter().map(parse).collect()
}

/// Returns the error for an invalid configuration. Names the option of the command line instead of a line of the text that `dev`
/// has built.
fn first_error(diagnostics: Vec<hookhold::diagnostic::Diagnostic>) -> Box<dyn Error> {
    let Some(first) = diagnostics.iter().find(|diagnostic| diagnostic.file == FILE) else {
        return invalid_recipes(diagnostics).into();
    };
    let option = match &*first.key {
        key if key.contains("public_url") => "--public-url",
        key if key.contains("journal") => "--journal",
        key if key.contains("kafka") => "--kafka",
        _ => "--secret",
    };
    UsageError(format!("{option}: {} ({})", first.what, first.key)).into()
}

fn path_text(path: &Path) -> Result<String, UsageError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| UsageError(format!("expected a path in UTF-8, found {}; rename the directory", path.display())))
}

/// Returns the URL of the listener on this machine. A tool on this machine reaches every address but a named one as `localhost`.
fn local_url(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST => format!("http://localhost:{}", address.port()),
        _ => format!("http://{address}"),
    }
}

/// Name of the configuration in diagnostics.
const FILE: &str = "hookhold dev";
/// First port to try if the operator names no address.
const FIRST_PORT: u16 = 8080;
/// Number of further ports to try.
const OTHER_PORTS: u16 = 99;
