//! `hookhold providers`: lists the providers for which there is a recipe, or prints the steps that connect one of them.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use hookhold::config::Config;
use hookhold::diagnostic::Diagnostic;
use hookhold::event::Integrity;
use hookhold::source::Providers;
use hookhold::source::recipe::{Proof, Recipe, SwitchOff};
use hookhold::units::duration_text;
use hookhold::verify::sign;
use serde_json::json;

use super::{Context, ExitStatus, UsageError, VerbResult, invalid_recipes};

/// List the providers, or show how to connect one.
///
/// The list contains the built-in recipes, and the recipes in the directory [providers] dir of the configuration. A recipe file
/// connects any other sender. See docs/recipes.md.
#[derive(clap::Args)]
pub(super) struct ProvidersArgs {
    /// Provider to connect.
    name: Option<String>,
    /// Directory with recipe files [default: [providers] dir of the configuration].
    #[arg(long, value_name = "DIR")]
    providers_dir: Option<PathBuf>,
}

/// Prints the list of providers, or the steps that connect one provider.
pub(super) fn run(context: &Context, args: ProvidersArgs) -> VerbResult {
    let (providers, in_files) = context.providers(args.providers_dir.as_deref())?;
    let mut out = anstream::stdout().lock();
    match args.name {
        None => {
            list(&mut out, &providers, context.json())?;
            out.flush()?;
            if !in_files.is_empty() {
                return Err(invalid_recipes(in_files).into());
            }
        }
        Some(name) => {
            let recipe = recipe(&providers, &in_files, &name)?;
            if context.json() {
                writeln!(out, "{}", provider_json(&providers, &name, &recipe))?;
            } else {
                steps(&mut out, &name, &recipe, &public_url(context))?;
            }
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// Prints one line per provider, starting with the name of the provider.
pub(super) fn list(out: &mut impl Write, providers: &Providers, json: bool) -> io::Result<()> {
    let recipes = providers.names().into_iter().filter_map(|name| Some((name, providers.recipe(name)?)));
    for (name, recipe) in recipes {
        if json {
            writeln!(out, "{}", provider_json(providers, name, &recipe))?;
        } else {
            let own = providers.file(name).map_or(String::new(), |file| format!(" ({})", file.path));
            writeln!(out, "{name:<20}{}{own}", title(name, &recipe))?;
        }
    }
    Ok(())
}

/// Returns the recipe of the provider `name`. Returns a usage error if there is no such provider, or the mistakes in its recipe.
pub(super) fn recipe(providers: &Providers, in_files: &[Diagnostic], name: &str) -> Result<Recipe, Box<dyn Error>> {
    if let Some(recipe) = providers.recipe(name) {
        return Ok(recipe);
    }
    let file = providers.file(name);
    let explains = |diagnostic: &&Diagnostic| match file {
        Some(file) => diagnostic.file == file.path,
        // The recipe may be in a directory that hookhold cannot read.
        None => !providers.files().iter().any(|file| file.path == diagnostic.file),
    };
    let explanation: Vec<Diagnostic> = in_files.iter().filter(explains).cloned().collect();
    match explanation.is_empty() {
        true => Err(unknown_provider(providers, name).into()),
        false => Err(invalid_recipes(explanation).into()),
    }
}

/// Returns the display name of a provider. A recipe without a title has the name of its file.
pub(super) fn title<'a>(name: &'a str, recipe: &'a Recipe) -> &'a str {
    if recipe.title.is_empty() { name } else { &recipe.title }
}

/// Returns the description of a provider as a JSON object for `--format json`.
pub(super) fn provider_json(providers: &Providers, name: &str, recipe: &Recipe) -> serde_json::Value {
    let limits = &recipe.limits;
    let switches_off_at =
        limits.switches_off_at.map(|limit| json!({ "percent": limit.percent, "within": duration_text(limit.within) }));
    json!({
        "name": name,
        "title": title(name, recipe),
        "file": providers.file(name).map(|file| &file.path),
        "url": recipe.setup.url,
        "secret": recipe.setup.secret,
        "proofs": recipe.proofs.iter().map(Proof::scheme).collect::<Vec<_>>(),
        "key_options": key_options(recipe),
        "values": recipe.setup.values,
        "integrity": recipe.coverage().integrity.word(),
        "can_send": sign::can_sign_with(recipe),
        "sample_types": recipe.sample_types(),
        "respond_within": limits.respond_within.map(duration_text),
        "gives_up_after": limits.gives_up_after.map(duration_text),
        "switches_off_at": switches_off_at,
        "facts": recipe.setup.facts,
    })
}

fn steps(out: &mut impl Write, name: &str, recipe: &Recipe, host: &str) -> io::Result<()> {
    dashboard_steps(out, name, recipe, host)?;
    writeln!(out, "3. In hookhold.toml:\n")?;
    source_lines(name, recipe).iter().try_for_each(|line| writeln!(out, "   {line}"))?;
    if recipe.signs_url() {
        writeln!(
            out,
            "   public_url = \"{host}\"   # the URL that {} calls and signs, without /hooks/{name}; set it here or in [server]",
            title(name, recipe)
        )?;
    }
    writeln!(out)?;
    writeln!(out, "4. Run `hookhold check`, then `hookhold run`. {}\n", test_step(name, recipe))?;
    notes(name, recipe).iter().try_for_each(|note| writeln!(out, "{note}"))?;
    recipe.setup.facts.iter().try_for_each(|page| writeln!(out, "See {page}"))
}

/// Prints the steps for the provider's dashboard: where to enter the URL, and where to find the secret or the public key.
pub(super) fn dashboard_steps(out: &mut impl Write, name: &str, recipe: &Recipe, host: &str) -> io::Result<()> {
    let shown = |text: &str| if text.is_empty() { UNDOCUMENTED.to_owned() } else { text.to_owned() };
    writeln!(out, "{}\n", title(name, recipe))?;
    writeln!(out, "1. Where:  {}", shown(&recipe.setup.url))?;
    writeln!(out, "   Paste:  {host}/hooks/{name}\n")?;
    let options = key_options(recipe);
    if options.is_empty() {
        let none = if recipe.setup.has_public_keys { KEYS_IN_RECIPE } else { NO_KEY };
        return writeln!(out, "2. Key:    {none}\n");
    }
    let word = if options == ["public_keys"] { "Key:   " } else { "Secret:" };
    writeln!(out, "2. {word} {}", shown(&recipe.setup.secret))?;
    for option in options {
        let text = match option {
            "public_keys" => "the public key",
            _ if recipe.proofs.iter().any(|proof| matches!(proof, Proof::Basic)) => "USER:PASSWORD",
            _ => "...",
        };
        let variable = variable(name, option);
        let protect = if option == "secrets" { " that only hookhold can read" } else { "" };
        writeln!(out, "   Set:    export {variable}='{text}'   (or write it to a file{protect})")?;
    }
    writeln!(out)
}

/// Returns the lines of the section `[sources.NAME]` for a provider. Lines that the operator must complete are commented out,
/// so that `hookhold check` reports what is missing.
pub(super) fn source_lines(name: &str, recipe: &Recipe) -> Vec<String> {
    let mut lines = vec![format!("[sources.{name}]"), format!("provider = \"{name}\"")];
    lines.extend(key_options(recipe).into_iter().map(|option| format!("{option} = [\"env:{}\"]", variable(name, option))));
    if recipe.proofs.iter().any(|proof| matches!(proof, Proof::None)) {
        lines.push(
            "#allow_from = [\"192.0.2.0/24\"]   # the networks of the sender, because the recipe requires no proof".to_owned(),
        );
    }
    if !recipe.setup.values.is_empty() {
        let values: Vec<String> = recipe.setup.values.iter().map(|value| format!("{value} = \"...\"")).collect();
        lines.push(format!("#values = {{ {} }}", values.join(", ")));
    }
    lines
}

/// Returns the options of a source that contain its keys. A source needs at least one of these options.
pub(super) fn key_options(recipe: &Recipe) -> Vec<&'static str> {
    let needs = |public: bool| recipe.proofs.iter().any(|proof| proof.needs_key() && proof.uses_public_keys() == public);
    let (secrets, public_keys) = (needs(false), needs(true) && !recipe.setup.has_public_keys);
    [(secrets, "secrets"), (public_keys, "public_keys")].into_iter().filter(|(needed, _)| *needed).map(|(_, key)| key).collect()
}

fn test_step(name: &str, recipe: &Recipe) -> String {
    if sign::can_sign_with(recipe) {
        return match recipe.sample_types().as_slice() {
            [_] => format!("Test with `hookhold send {name}`."),
            types => format!(
                "Test with `hookhold send {name}`, or with --type TYPE for another event.\n\nTypes:  {}",
                types.join(", ")
            ),
        };
    }
    format!(
        "Test with a delivery from {}'s dashboard: only {} has the private key, so `hookhold send` cannot sign.",
        title(name, recipe),
        title(name, recipe)
    )
}

/// Returns notes for operators about a provider, one string per note.
pub(super) fn notes(name: &str, recipe: &Recipe) -> Vec<String> {
    let title = title(name, recipe);
    let mut notes = Vec::new();
    if !recipe.challenges.is_empty() {
        notes.push(format!(
            "{title} checks the URL when you save it. Start hookhold with the secret before you save the URL, so that hookhold can \
             answer."
        ));
    }
    if recipe.proofs.iter().any(|proof| proof.fetch().is_some()) {
        notes.push(format!(
            "{title} publishes its public keys, and each delivery names its key. hookhold does not fetch keys: list them in \
             public_keys, each with its id. A delivery with another key gets a 503."
        ));
    }
    if let Some(limit) = recipe.limits.respond_within {
        notes.push(format!("{title} waits {} for a response to a delivery.", duration_text(limit)));
    }
    match recipe.limits.gives_up_after {
        Some(horizon) if horizon.is_zero() => {
            notes.push(format!("{title} never retries automatically, so a failed delivery is lost."));
        }
        Some(horizon) => {
            notes.push(format!("{title} retries a delivery until it succeeds, for at most {}.", duration_text(horizon)));
        }
        None => {}
    }
    if let Some(SwitchOff { percent, within }) = recipe.limits.switches_off_at {
        let within = duration_text(within);
        notes.push(format!(
            "{title} disables the endpoint if at most {percent} % of the deliveries in a period of {within} get a 2xx."
        ));
    }
    notes.push(format!("{} {} (integrity {}).", proof_words(recipe), covered_parts(recipe), recipe.coverage().integrity.word()));
    notes
}

/// Returns the name of the environment variable for a provider's key, such as `STRIPE_WEBHOOK_SECRET`. A shell accepts no
/// variable that starts with a digit.
pub(super) fn variable(name: &str, option: &str) -> String {
    let stem = name.trim_end_matches("-webhooks").to_uppercase().replace('-', "_");
    let digit = if stem.starts_with(|first: char| first.is_ascii_digit()) { "_" } else { "" };
    let kind = if option == "public_keys" { "PUBLIC_KEY" } else { "WEBHOOK_SECRET" };
    format!("{digit}{stem}_{kind}")
}

/// Returns the subject of the note about the covered parts, such as `The signature covers`.
fn proof_words(recipe: &Recipe) -> &'static str {
    let all = |is_kind: fn(&Proof) -> bool| recipe.proofs.iter().all(is_kind);
    if all(|proof| matches!(proof, Proof::None)) {
        "The recipe requires no proof, so hookhold checks only the address. It verifies"
    } else if all(|proof| matches!(proof, Proof::Token(_) | Proof::Basic)) {
        "The sender proves only that it knows the secret. The proof covers"
    } else if all(|proof| matches!(proof, Proof::Jwt(_))) {
        "The token covers"
    } else if recipe.proofs.len() > 1 {
        "The weakest of the recipe's proofs covers"
    } else {
        "The signature covers"
    }
}

fn covered_parts(recipe: &Recipe) -> &'static str {
    match recipe.coverage().integrity {
        Integrity::Full => "the body, the id and the type",
        Integrity::Item => "the body of a batch, of which each event is one item",
        Integrity::Body => "the body, but neither the id nor the type",
        Integrity::Partial => "parts of a delivery, but not every byte of its body",
        Integrity::None => "no part of the body",
    }
}

/// Returns the public URL in the configuration, or a placeholder if the configuration has none.
fn public_url(context: &Context) -> String {
    let config = context.file().ok().and_then(|file| Config::load(&file, super::KAFKA).ok());
    config.and_then(|config| config.server.public_url).map_or_else(|| PLACEHOLDER_HOST.to_owned(), |url| url.to_string())
}

fn unknown_provider(providers: &Providers, name: &str) -> UsageError {
    let hint = match providers.nearest(name) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("run `hookhold providers` to list the {} names", providers.names().len()),
    };
    UsageError(format!("PROVIDER: expected the name of a recipe, found {}; {hint}", name.escape_debug()))
}

/// Base URL to print if the public URL is unknown.
pub(super) const PLACEHOLDER_HOST: &str = "https://YOUR-HOST";
const UNDOCUMENTED: &str = "the recipe does not say; see the provider's documentation";
const KEYS_IN_RECIPE: &str = "none to configure; the recipe contains the provider's public keys";
const NO_KEY: &str = "none; the recipe requires no proof, so set allow_from to the networks of the sender";
