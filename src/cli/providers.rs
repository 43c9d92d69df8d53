//! `hookhold providers`: which providers need no recipe of your own, and what to paste where.

use std::io::{self, Write};

use hookhold::config::Config;
use hookhold::diagnostic::nearest;
use hookhold::event::Integrity;
use hookhold::source::recipe::{Recipe, SwitchOff};
use hookhold::source::{PROVIDERS, provider};
use hookhold::units::duration_text;
use serde_json::json;

use super::{Context, ExitStatus, UsageError, VerbResult};

/// List the providers that are built in; with a name, say what to paste where.
///
/// A provider that is not listed works too, with the recipe written inline: see config/hookhold.toml.
#[derive(clap::Args)]
pub(super) struct ProvidersArgs {
    /// The provider to connect.
    name: Option<String>,
}

/// Prints the list or one provider's steps.
pub(super) fn run(context: &Context, args: ProvidersArgs) -> VerbResult {
    let mut out = anstream::stdout().lock();
    match args.name {
        None => list(&mut out, context.json())?,
        Some(name) => {
            let recipe = recipe(&name)?;
            if context.json() {
                writeln!(out, "{}", provider_json(&name, &recipe))?;
            } else {
                steps(&mut out, &name, &recipe, &public_url(context))?;
            }
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// One line for each provider, its name first.
pub(super) fn list(out: &mut impl Write, json: bool) -> io::Result<()> {
    PROVIDERS.iter().try_for_each(|(name, _)| provider_line(out, name, json))
}

/// The recipe called `name`.
pub(super) fn recipe(name: &str) -> Result<Recipe, UsageError> {
    provider(name).ok_or_else(|| unknown_provider(name))
}

fn provider_line(out: &mut impl Write, name: &str, json: bool) -> io::Result<()> {
    let Some(recipe) = provider(name) else { return Ok(()) };
    if json { writeln!(out, "{}", provider_json(name, &recipe)) } else { writeln!(out, "{name:<20}{}", recipe.title) }
}

/// What machines may want to know of a provider.
pub(super) fn provider_json(name: &str, recipe: &Recipe) -> serde_json::Value {
    json!({
        "name": name,
        "title": recipe.title,
        "url": recipe.setup.url,
        "secret": recipe.setup.secret,
        "integrity": recipe.coverage.integrity.word(),
        "respond_within": recipe.limits.respond_within.map(duration_text),
        "gives_up_after": recipe.limits.gives_up_after.map(duration_text),
        "switches_off_at": recipe.limits.switches_off_at.map(|limit| json!({ "percent": limit.percent, "within": duration_text(limit.within) })),
        "facts": recipe.setup.facts,
    })
}

fn steps(out: &mut impl Write, name: &str, recipe: &Recipe, host: &str) -> io::Result<()> {
    let title = &recipe.title;
    dashboard_steps(out, name, recipe, host)?;
    writeln!(out, "3. In hookhold.toml:\n")?;
    writeln!(out, "   [sources.{name}]\n   provider = \"{name}\"\n   secrets = [\"env:{}\"]", variable(name))?;
    if recipe.signs_url() {
        writeln!(out, "   public_url = \"{host}\"   # {title} signs the URL: as pasted, up to /hooks; or once in [server]")?;
    }
    writeln!(out)?;
    writeln!(out, "4. Then: hookhold check, hookhold run, and to try it: hookhold send {name}\n")?;
    notes(recipe).iter().try_for_each(|note| writeln!(out, "{note}"))?;
    recipe.setup.facts.iter().try_for_each(|page| writeln!(out, "See {page}"))
}

/// What is to be done at the provider: where the URL goes, and where the secret comes from.
pub(super) fn dashboard_steps(out: &mut impl Write, name: &str, recipe: &Recipe, host: &str) -> io::Result<()> {
    writeln!(out, "{}\n", recipe.title)?;
    writeln!(out, "1. Where:  {}", recipe.setup.url)?;
    writeln!(out, "   Paste:  {host}/hooks/{name}\n")?;
    writeln!(out, "2. Secret: {}", recipe.setup.secret)?;
    writeln!(out, "   Set:    export {}='...'   (or put it into a file that only hookhold can read)\n", variable(name))
}

/// What is good to know about a provider, one sentence or two in each line.
pub(super) fn notes(recipe: &Recipe) -> Vec<String> {
    let title = &recipe.title;
    let mut notes = Vec::new();
    if !recipe.challenges.is_empty() {
        notes.push(format!("{title} checks the URL when you save it, and hookhold answers: let it run first, with the secret."));
    }
    if let Some(limit) = recipe.limits.respond_within {
        notes.push(format!("{title} waits {} for an answer.", duration_text(limit)));
    }
    match recipe.limits.gives_up_after {
        Some(horizon) if horizon.is_zero() => {
            notes.push(format!("{title} never sends again by itself: what it could not deliver is lost."));
        }
        Some(horizon) => notes.push(format!("{title} sends again for {} what was not answered 2xx.", duration_text(horizon))),
        None => {}
    }
    if let Some(SwitchOff { percent, within }) = recipe.limits.switches_off_at {
        let within = duration_text(within);
        let threshold = format!("when at most {percent} % of its deliveries within {within} get 2xx");
        notes.push(format!("{title} switches the endpoint off {threshold}."));
    }
    notes.push(format!("Its signature covers: {} (integrity {}).", covered_parts(recipe), recipe.coverage.integrity.word()));
    notes
}

/// The environment variable that holds a provider's secret.
pub(super) fn variable(name: &str) -> String {
    format!("{}_WEBHOOK_SECRET", name.trim_end_matches("-webhooks").to_uppercase().replace('-', "_"))
}

fn covered_parts(recipe: &Recipe) -> &'static str {
    match recipe.coverage.integrity {
        Integrity::Full => "body, id and type",
        Integrity::Body => "the body, not its id or type",
        Integrity::Partial => "a form's names and values, not where one ends and the next begins",
        Integrity::None => "nothing of the body",
    }
}

/// What the provider calls, as far as a configuration says so.
fn public_url(context: &Context) -> String {
    let config = context.file().ok().and_then(|file| Config::load(&file, super::KAFKA).ok());
    config.and_then(|config| config.server.public_url).unwrap_or_else(|| PLACEHOLDER_HOST.to_owned())
}

fn unknown_provider(name: &str) -> UsageError {
    let names: Vec<String> = PROVIDERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let hint = nearest(name, &names).map_or(String::new(), |near| format!(", did you mean {near}?"));
    UsageError(format!("no provider is called {}{hint}; known: {}", name.escape_debug(), names.join(", ")))
}

/// Stands for a public URL that is not known.
pub(super) const PLACEHOLDER_HOST: &str = "https://YOUR-HOST";
