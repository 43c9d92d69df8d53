//! `hookhold init`: writes a commented configuration for the chosen providers and prints the next steps. Writes no other file,
//! and replaces an existing file only with `--force`.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use hookhold::config::{Config, JournalConfig};
use hookhold::diagnostic::Diagnostic;
use hookhold::source::Providers;
use hookhold::source::recipe::Recipe;
use hookhold::source::url::PublicUrl;
use hookhold::verify::sign;

use super::{Context, ExitStatus, KAFKA, UsageError, VerbResult, providers};

/// Write a configuration for the chosen providers, and show how to connect them.
///
/// Writes ./hookhold.toml, or the file that --config names. For each secret, the file contains only the name of an environment
/// variable, because init neither asks for secrets nor writes them. If no PROVIDER is named, init lists all providers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InitArgs {
    /// Names of the providers to connect, as listed by `hookhold providers`.
    #[arg(value_name = "PROVIDER")]
    providers: Vec<String>,
    /// URL that providers call: https://HOST[:PORT][/PREFIX]. Required for providers that sign the URL.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Kafka's bootstrap.servers [default: none; events stay in the journal].
    #[arg(long, value_name = "BOOTSTRAP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    kafka: Option<String>,
    /// Directory with recipe files, in addition to the built-in recipes [default: none, or [providers] dir of the existing file].
    #[arg(long, value_name = "DIR")]
    providers_dir: Option<PathBuf>,
    /// Print the configuration to standard output and the steps to standard error. Write no file.
    #[arg(long)]
    stdout: bool,
    /// Replace an existing file.
    #[arg(long, conflicts_with = "stdout")]
    force: bool,
}

/// Values for the configuration file and for the printed steps.
struct ConfigDraft {
    file: PathBuf,
    journal: String,
    providers: Providers,
    chosen: Vec<(String, Recipe)>,
    public_url: Option<String>,
    kafka: Option<String>,
}

/// Writes the configuration file and prints the next steps. If no provider is named, lists the providers and returns a usage
/// error.
pub(super) fn run(context: &Context, args: InitArgs) -> VerbResult {
    let (providers, in_files) = context.providers(args.providers_dir.as_deref())?;
    if args.providers.is_empty() {
        providers::list(&mut anstream::stdout().lock(), &providers, context.json())?;
        return Err(UsageError(
            "PROVIDER: expected one or more of the names above, found none; run a command such as `hookhold init stripe github`"
                .to_owned(),
        )
        .into());
    }
    let file = context.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let (journal, chosen) = (journal(&file)?, chosen(&providers, &in_files, &args.providers)?);
    let public_url = args.public_url.map(|url| url.trim_end_matches('/').to_owned());
    let draft = ConfigDraft { file, journal, providers, chosen, public_url, kafka: args.kafka };
    let text = draft.text()?;
    draft.validate(&text)?;
    if args.stdout {
        io::stdout().lock().write_all(text.as_bytes())?;
        draft.steps(&mut anstream::stderr().lock(), context.json())?;
    } else {
        write(&draft.file, &text, args.force)?;
        draft.steps(&mut anstream::stdout().lock(), context.json())?;
    }
    Ok(ExitStatus::Done)
}

/// Returns the names and recipes of the named providers without duplicates, in command-line order. Returns an error for an
/// unknown name and for a recipe with mistakes.
fn chosen(providers: &Providers, in_files: &[Diagnostic], names: &[String]) -> Result<Vec<(String, Recipe)>, Box<dyn Error>> {
    let mut chosen: Vec<(String, Recipe)> = Vec::new();
    for name in names {
        if chosen.iter().all(|(other, _)| other != name) {
            chosen.push((name.clone(), providers::recipe(providers, in_files, name)?));
        }
    }
    Ok(chosen)
}

/// Returns the path of the journal's directory. Uses the default, `/var/lib/hookhold`, for a configuration file below `/etc`.
/// For any other file, uses a directory next to the file, so that a first run needs no privileges. The path is absolute,
/// because the journal must not depend on the working directory.
fn journal(file: &Path) -> Result<String, Box<dyn Error>> {
    let absolute = std::path::absolute(file)?;
    let next_to_file = absolute.with_file_name("journal");
    let dir = if absolute.starts_with("/etc") { JournalConfig::default().dir } else { next_to_file };
    utf8("--config", dir)
}

/// Returns a path as text for the configuration file.
fn utf8(option: &str, path: PathBuf) -> Result<String, Box<dyn Error>> {
    let text = path.into_os_string().into_string();
    Ok(text.map_err(|path| {
        UsageError(format!("{option}: expected a path in UTF-8, found {}; rename the directory", path.display()))
    })?)
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), Box<dyn Error>> {
    let file = if force { File::create(path) } else { File::create_new(path) };
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let remedy = "use --force to replace the file, or --stdout to print the configuration";
            let what = format!("{}: expected no file, found one; {remedy}", path.display());
            Err(UsageError(what).into())
        }
        Err(error) => Err(format!("cannot write {}: {error}; check the path and its permissions", path.display()).into()),
        Ok(()) => Ok(()),
    }
}

impl ConfigDraft {
    /// Returns the text of the configuration file. The text contains only the options that an operator must decide on. All
    /// other options keep their defaults.
    fn text(&self) -> Result<String, Box<dyn Error>> {
        let names: Vec<&str> = self.chosen.iter().map(|(name, _)| name.as_str()).collect();
        let (url_comment, url) = self.public_url.as_deref().map_or(("#", "https://hooks.example.com"), |url| ("", url));
        let (kafka_comment, kafka) = self.kafka.as_deref().map_or(("#", "kafka-1:9092"), |servers| ("", servers));
        let providers = match self.providers.directory() {
            Some(dir) => format!(
                "\n{PROVIDERS_COMMENT}[providers]\ndir = {}\n",
                quoted(&utf8("--providers-dir", std::path::absolute(dir)?)?)
            ),
            None => String::new(),
        };
        let sources: String = self.chosen.iter().map(|(name, recipe)| self.source(name, recipe)).collect();
        Ok(format!(
            "\
# Generated by: hookhold init {names}
{FILE_HEADER}
[server]
# Serves only POST /hooks/SOURCE.
listen = \"0.0.0.0:8080\"
# The URL that providers call, as entered in their dashboards, without /hooks/SOURCE.
{url_comment}public_url = {url}
# Certificate and key for HTTPS. If you set neither, terminate TLS in a proxy in front of hookhold.
#tls_cert = \"/etc/hookhold/tls/fullchain.pem\"
#tls_key = \"/etc/hookhold/tls/privkey.pem\"

[admin]
# Serves /metrics and /readyz. An address that other machines can reach needs a token.
listen = \"127.0.0.1:9464\"
# Disk space for rejected deliveries, which `hookhold doctor` explains. Every client that can reach
# this listener can read these deliveries. \"0 B\" turns this off.
#keep_rejected = \"64 MiB\"
#token = \"file:/run/secrets/hookhold-admin\"

[journal]
# Directory of the journal. Use ext4 or XFS on a disk that honours cache flushes.
dir = {dir}

# If this section is absent, events stay in the journal. hookhold does not create topics.
{kafka_comment}[kafka]
{kafka_comment}bootstrap.servers = {kafka}
{providers}{sources}",
            names = names.join(" "),
            url = quoted(url),
            dir = quoted(&self.journal),
            kafka = quoted(kafka),
        ))
    }

    fn source(&self, name: &str, recipe: &Recipe) -> String {
        let title = providers::title(name, recipe);
        let page = if recipe.setup.url.is_empty() { "the sender" } else { &recipe.setup.url };
        let mut notes = vec![format!("{title}. Enter the URL of this source at: {page}")];
        if !recipe.setup.secret.is_empty() {
            notes.push(format!("Find the secret at: {}", recipe.setup.secret));
        }
        if recipe.signs_url() {
            notes
                .push(format!("{title} signs the URL that it calls. Set [server] public_url to this URL without /hooks/{name}."));
        }
        notes.extend(providers::notes(name, recipe));
        let notes: String = notes.iter().map(|note| format!("# {note}\n")).collect();
        let lines: String = providers::source_lines(name, recipe).iter().map(|line| format!("{line}\n")).collect();
        format!("\n{notes}{lines}topic = \"{}\"\n", topic(name))
    }

    /// Parses the configuration before `init` writes it, to check the values from the command line. Ignores options
    /// that only the operator can set, and mistakes in recipes that the configuration does not use.
    fn validate(&self, text: &str) -> Result<(), UsageError> {
        let Err(diagnostics) = Config::parse(DEFAULT_FILE, text, KAFKA) else { return Ok(()) };
        let is_key = |key: &str| [".secrets", ".public_keys", ".values", ".allow_from"].iter().any(|option| key.contains(option));
        let is_ours = |diagnostic: &Diagnostic| diagnostic.file == DEFAULT_FILE && !is_key(&diagnostic.key);
        let diagnostic = diagnostics.sorted().into_iter().find(is_ours);
        let Some(diagnostic) = diagnostic else { return Ok(()) };
        let option = if diagnostic.key.ends_with("public_url") { "--public-url" } else { "--kafka" };
        Err(UsageError(format!("{option}: {} ({})", diagnostic.what, diagnostic.key)))
    }

    /// Returns the URL to print in the steps, with its password masked.
    fn host(&self) -> String {
        self.public_url.as_deref().map_or_else(|| providers::PLACEHOLDER_HOST.to_owned(), |url| PublicUrl::new(url).to_string())
    }

    /// Prints the remaining steps for the operator, in order.
    fn steps(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if !json {
            let names: Vec<&str> = self.chosen.iter().map(|(name, recipe)| providers::title(name, recipe)).collect();
            writeln!(out, "wrote {} for {}\n", self.file.display(), names.join(", "))?;
        }
        for (name, recipe) in &self.chosen {
            if json {
                writeln!(out, "{}", self.provider_json(name, recipe))?;
            } else {
                providers::dashboard_steps(out, name, recipe, &self.host())?;
            }
        }
        if json { out.flush() } else { self.next_commands(out) }
    }

    fn provider_json(&self, name: &str, recipe: &Recipe) -> serde_json::Value {
        let mut object = providers::provider_json(&self.providers, name, recipe);
        object["recipe"] = object["file"].take();
        object["file"] = self.file.display().to_string().into();
        object["paste"] = format!("{}/hooks/{name}", self.host()).into();
        let option = object["key_options"][0].as_str().map(str::to_owned);
        object["variable"] = option.map(|option| providers::variable(name, &option)).into();
        object["topic"] = topic(name).into();
        object
    }

    fn next_commands(&self, out: &mut impl Write) -> io::Result<()> {
        let here = self.file == Path::new(DEFAULT_FILE);
        let option = if here { String::new() } else { format!(" --config {}", self.file.display()) };
        writeln!(out, "Next, in a shell where these variables are set:\n")?;
        let kafka = if self.kafka.is_some() { " --kafka" } else { "" };
        writeln!(out, "   hookhold check{kafka}{option}")?;
        writeln!(out, "   hookhold run{option}")?;
        for (name, _) in self.chosen.iter().filter(|(_, recipe)| sign::can_sign_with(recipe)) {
            writeln!(out, "   hookhold send {name}{option}")?;
        }
        if self.kafka.is_some() {
            let topics: Vec<String> = self.chosen.iter().map(|(name, _)| topic(name)).collect();
            let topics = topics.join(", ");
            writeln!(
                out,
                "\nKafka needs these topics: {topics}. hookhold does not create them; `check --kafka` finds missing ones."
            )?;
        }
        out.flush()
    }
}

fn topic(name: &str) -> String {
    format!("webhooks.{name}")
}

/// Returns `text` as a quoted TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Path of the configuration file that `init` writes if `--config` is absent.
const DEFAULT_FILE: &str = "hookhold.toml";
const FILE_HEADER: &str = "\
# This file contains the options that an operator must decide on. config/hookhold.toml in the source
# code of hookhold explains every option with its default and limits. `hookhold check` reports every
# error at once. On SIGHUP, hookhold reloads this file and its secrets.
#
# Set a secret by reference: \"env:NAME\" reads an environment variable, and \"file:PATH\" reads a file
# that only hookhold can read. This file itself never contains a secret. A secret in a file can
# change while hookhold runs, but a secret in a variable cannot.
";
const PROVIDERS_COMMENT: &str = "# Directory with recipe files, in addition to the built-in recipes.\n";
const EXAMPLES: &str = "\
Examples:
  hookhold init stripe
  hookhold init stripe github --public-url https://hooks.example.com --kafka kafka-1:9092
  hookhold init twilio --public-url https://hooks.example.com --stdout";
