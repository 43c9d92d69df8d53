//! `hookhold init`: a commented configuration for the chosen providers, and what to do next. It writes the one file that the
//! user asked for, over nothing that is there already.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use hookhold::config::{Config, JournalConfig};
use hookhold::source::recipe::Recipe;

use super::{Context, ExitStatus, KAFKA, UsageError, VerbResult, providers};

/// Write a configuration for the chosen providers, and say what to paste where.
///
/// The file is hookhold.toml here, or what --config names. It refers to each secret by an environment variable; no secret is
/// asked for or written. Without a provider: the list to choose from.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InitArgs {
    /// The providers to connect, by the names of `hookhold providers`.
    #[arg(value_name = "PROVIDER")]
    providers: Vec<String>,
    /// What providers call: https://HOST[:PORT][/PREFIX]; required by those that sign it.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Kafka's bootstrap.servers [default: no Kafka; events stay in the journal].
    #[arg(long, value_name = "BOOTSTRAP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    kafka: Option<String>,
    /// Print the configuration instead of writing it; the steps then go to standard error.
    #[arg(long)]
    stdout: bool,
    /// Replace the file that is there.
    #[arg(long, conflicts_with = "stdout")]
    force: bool,
}

/// Everything that the file and the steps say.
struct ConfigDraft {
    file: PathBuf,
    journal: String,
    chosen: Vec<(String, Recipe)>,
    public_url: Option<String>,
    kafka: Option<String>,
}

/// Writes the file and prints the steps, or prints the list.
pub(super) fn run(context: &Context, args: InitArgs) -> VerbResult {
    if args.providers.is_empty() {
        providers::list(&mut anstream::stdout().lock(), context.json())?;
        return Err(UsageError("choose one or more of these, as in: hookhold init stripe github".to_owned()).into());
    }
    let file = context.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let (journal, chosen) = (journal(&file)?, chosen(&args.providers)?);
    let public_url = args.public_url.map(|url| url.trim_end_matches('/').to_owned());
    let draft = ConfigDraft { file, journal, chosen, public_url, kafka: args.kafka };
    let text = draft.text();
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

/// Each provider once, in the order of the command line.
fn chosen(names: &[String]) -> Result<Vec<(String, Recipe)>, UsageError> {
    let mut chosen: Vec<(String, Recipe)> = Vec::new();
    for name in names {
        if chosen.iter().all(|(other, _)| other != name) {
            chosen.push((name.clone(), providers::recipe(name)?));
        }
    }
    Ok(chosen)
}

/// Beside the file, so that a first run needs no rights; the system's place for data when the file is in the system's place
/// for configuration. Always the absolute path: the journal must not move with the directory that hookhold is started in.
fn journal(file: &Path) -> Result<String, Box<dyn Error>> {
    let absolute = std::path::absolute(file)?;
    let next_to_file = absolute.with_file_name("journal");
    let dir = if absolute.starts_with("/etc") { JournalConfig::default().dir } else { next_to_file };
    let dir = dir.into_os_string().into_string();
    Ok(dir.map_err(|dir| UsageError(format!("{}: a configuration can only name what is UTF-8", dir.display())))?)
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), Box<dyn Error>> {
    let file = if force { File::create(path) } else { File::create_new(path) };
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let what = format!("{} is there already: --force replaces it, --stdout only prints", path.display());
            Err(UsageError(what).into())
        }
        Err(error) => Err(format!("cannot write {}: {error}", path.display()).into()),
        Ok(()) => Ok(()),
    }
}

impl ConfigDraft {
    /// The configuration; it states what somebody must decide, and leaves every other default alone.
    fn text(&self) -> String {
        let names: Vec<&str> = self.chosen.iter().map(|(name, _)| name.as_str()).collect();
        let (public, shown) = self.public_url.as_deref().map_or(("#", "https://hooks.example.com"), |url| ("", url));
        let (kafka, servers) = self.kafka.as_deref().map_or(("#", "kafka-1:9092"), |servers| ("", servers));
        let settings = [
            ("[server]".to_owned(), ""),
            ("listen = \"0.0.0.0:8080\"".to_owned(), "POST /hooks/SOURCE, and nothing else"),
            (format!("{public}public_url = {}", quoted(shown)), "what providers call, as it stands in their dashboards"),
            (
                "#tls_cert = \"/etc/hookhold/tls/fullchain.pem\"".to_owned(),
                "https; without it, a proxy that speaks it is in front",
            ),
            ("#tls_key = \"/etc/hookhold/tls/privkey.pem\"".to_owned(), ""),
            ("\n[admin]".to_owned(), ""),
            ("listen = \"127.0.0.1:9464\"".to_owned(), "/metrics and /readyz, without authentication: keep it private"),
            (
                "#keep_rejected = \"4 MiB\"".to_owned(),
                "the latest refused deliveries, for hookhold doctor and whoever can ask here",
            ),
            ("\n[journal]".to_owned(), ""),
            (format!("dir = {}", quoted(&self.journal)), "on a disk that holds what it has synced: ext4 or XFS"),
            (format!("\n{kafka}[kafka]"), "without it, events stay in the journal"),
            (format!("{kafka}bootstrap.servers = {}", quoted(servers)), "topics are not created by hookhold"),
        ];
        let head = format!("# Made by: hookhold init {}\n{FILE_HEADER}", names.join(" "));
        let settings = settings.iter().map(|(setting, why)| setting_line(setting, why));
        let sources = self.chosen.iter().map(|(name, recipe)| self.source(name, recipe));
        std::iter::once(head).chain(settings).chain(sources).collect()
    }

    fn source(&self, name: &str, recipe: &Recipe) -> String {
        let mut notes = vec![
            format!("{}. Its URL goes into: {}", recipe.title, recipe.setup.url),
            format!("Its secret is: {}", recipe.setup.secret),
        ];
        if recipe.signs_url() {
            notes.push(format!("{} signs the URL: [server] public_url must be what is pasted, up to /hooks.", recipe.title));
        }
        notes.extend(providers::notes(recipe));
        let notes: String = notes.iter().map(|note| format!("# {note}\n")).collect();
        let variable = providers::variable(name);
        format!("\n{notes}[sources.{name}]\nprovider = \"{name}\"\nsecrets = [\"env:{variable}\"]\ntopic = \"{}\"\n", topic(name))
    }

    /// What the options say must be right before anything is written; secrets may still be missing.
    fn validate(&self, text: &str) -> Result<(), UsageError> {
        let Err(diagnostics) = Config::parse(DEFAULT_FILE, text, KAFKA) else { return Ok(()) };
        let diagnostic = diagnostics.sorted().into_iter().find(|diagnostic| !diagnostic.key.contains(".secrets"));
        let Some(diagnostic) = diagnostic else { return Ok(()) };
        let option = if diagnostic.key.ends_with("public_url") { "--public-url" } else { "--kafka" };
        Err(UsageError(format!("{option}: {} ({})", diagnostic.what, diagnostic.key)))
    }

    fn host(&self) -> &str {
        self.public_url.as_deref().unwrap_or(providers::PLACEHOLDER_HOST)
    }

    /// What is left to do, in its order.
    fn steps(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if !json {
            let names: Vec<&str> = self.chosen.iter().map(|(_, recipe)| recipe.title.as_str()).collect();
            writeln!(out, "{}: {}\n", self.file.display(), names.join(", "))?;
        }
        for (name, recipe) in &self.chosen {
            if json {
                writeln!(out, "{}", self.provider_json(name, recipe))?;
            } else {
                providers::dashboard_steps(out, name, recipe, self.host())?;
            }
        }
        if json { out.flush() } else { self.next_commands(out) }
    }

    fn provider_json(&self, name: &str, recipe: &Recipe) -> serde_json::Value {
        let mut object = providers::provider_json(name, recipe);
        object["file"] = self.file.display().to_string().into();
        object["paste"] = format!("{}/hooks/{name}", self.host()).into();
        object["variable"] = providers::variable(name).into();
        object["topic"] = topic(name).into();
        object
    }

    fn next_commands(&self, out: &mut impl Write) -> io::Result<()> {
        let here = self.file == Path::new(DEFAULT_FILE);
        let option = if here { String::new() } else { format!(" --config {}", self.file.display()) };
        writeln!(out, "Next, in a shell that has the variables:\n")?;
        writeln!(out, "   hookhold check{option}")?;
        writeln!(out, "   hookhold run{option}")?;
        for (name, _) in &self.chosen {
            writeln!(out, "   hookhold send {name}{option}")?;
        }
        if self.kafka.is_some() {
            let topics: Vec<String> = self.chosen.iter().map(|(name, _)| topic(name)).collect();
            writeln!(out, "\nCreate in Kafka, hookhold does not: {}", topics.join(", "))?;
        }
        out.flush()
    }
}

/// One setting with its reason; the line break before a section does not count.
fn setting_line(setting: &str, why: &str) -> String {
    let (gap, setting) = setting.strip_prefix('\n').map_or(("", setting), |setting| ("\n", setting));
    if why.is_empty() { format!("{gap}{setting}\n") } else { format!("{gap}{setting:<48} # {why}\n") }
}

fn topic(name: &str) -> String {
    format!("webhooks.{name}")
}

/// As a TOML text.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// What is written when no file is named.
const DEFAULT_FILE: &str = "hookhold.toml";
const FILE_HEADER: &str = "\
# It says what somebody must decide. Every other option, with its default, limits and reason, is in config/hookhold.toml of
# hookhold's sources. hookhold check reports every mistake at once; SIGHUP has a running hookhold read this file again.
#
# A secret never stands here, only where it is found: \"env:NAME\" is a variable of the environment, \"file:PATH\" a file that
# only hookhold can read. A file can be replaced while hookhold runs, a variable cannot.

";
const EXAMPLES: &str = "\
Examples:
  hookhold init stripe
  hookhold init stripe github --public-url https://hooks.example.com --kafka kafka-1:9092
  hookhold init twilio --public-url https://hooks.example.com --stdout";
