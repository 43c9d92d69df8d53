//! `hookhold providers`: lists the built-in providers, or prints the steps that connect one of them.

use std::io::{self, Write};

use hookhold::config::Config;
use hookhold::diagnostic::nearest;
use hookhold::event::Integrity;
use hookhold::source::recipe::{Recipe, SwitchOff};
use hookhold::source::{PROVIDERS, provider};
use hookhold::units::duration_text;
use serde_json::json;

use super::{Context, ExitStatus, UsageError, VerbResult};

/// List the built-in providers, or show how to connect one.
///
/// An inline recipe connects a sender that signs with an HMAC but has no built-in recipe. See docs/providers.md.
#[derive(clap::Args)]
pub(super) struct ProvidersArgs {
    /// Provider to connect.
    name: Option<String>,
}

/// Prints the list of built-in providers, or the steps that connect one provider.
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

/// Prints one line per built-in provider, starting with the name of the provider.
pub(super) fn list(out: &mut impl Write, json: bool) -> io::Result<()> {
    PROVIDERS.iter().try_for_each(|(name, _)| provider_line(out, name, json))
}

/// Returns the built-in recipe of the provider `name`, or a usage error if there is no such provider.
pub(super) fn recipe(name: &str) -> Result<Recipe, UsageError> {
    provider(name).ok_or_else(|| unknown_provider(name))
}

fn provider_line(out: &mut impl Write, name: &str, json: bool) -> io::Result<()> {
    let Some(recipe) = provider(name) else { return Ok(()) };
    if json { writeln!(out, "{}", provider_json(name, &recipe)) } else { writeln!(out, "{name:<20}{}", recipe.title) }
}

/// Returns the description of a provider as a JSON object for `--format json`.
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
        writeln!(
            out,
            "   public_url = \"{host}\"   # the URL that {title} calls and signs, without /hooks/{name}; set it here or in [server]"
        )?;
    }
    writeln!(out)?;
    writeln!(out, "4. Run `hookhold check`, then `hookhold run`. Test with `hookhold send {name}`.\n")?;
    notes(recipe).iter().try_for_each(|note| writeln!(out, "{note}"))?;
    recipe.setup.facts.iter().try_for_each(|page| writeln!(out, "See {page}"))
}

/// Prints the steps for the provider's dashboard: where to enter the URL, and where to find the secret.
pub(super) fn dashboard_steps(out: &mut impl Write, name: &str, recipe: &Recipe, host: &str) -> io::Result<()> {
    writeln!(out, "{}\n", recipe.title)?;
    writeln!(out, "1. Where:  {}", recipe.setup.url)?;
    writeln!(out, "   Paste:  {host}/hooks/{name}\n")?;
    writeln!(out, "2. Secret: {}", recipe.setup.secret)?;
    writeln!(out, "   Set:    export {}='...'   (or write the secret to a file that only hookhold can read)\n", variable(name))
}

/// Returns notes for operators about a provider, one string per note.
pub(super) fn notes(recipe: &Recipe) -> Vec<String> {
    let title = &recipe.title;
    let mut notes = Vec::new();
    if !recipe.challenges.is_empty() {
        notes.push(format!(
            "{title} checks the URL when you save it. Start hookhold with the secret before you save the URL, so that hookhold can \
             answer."
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
    notes.push(format!("The signature covers {} (integrity {}).", covered_parts(recipe), recipe.coverage.integrity.word()));
    notes
}

/// Returns the name of the environment variable for a provider's secret, such as `STRIPE_WEBHOOK_SECRET`.
pub(super) fn variable(name: &str) -> String {
    format!("{}_WEBHOOK_SECRET", name.trim_end_matches("-webhooks").to_uppercase().replace('-', "_"))
}

fn covered_parts(recipe: &Recipe) -> &'static str {
    match recipe.coverage.integrity {
        Integrity::Full => "the body, the id and the type",
        Integrity::Body => "the body, but neither the id nor the type",
        Integrity::Partial => "the names and values of a form, but not the boundaries between them",
        Integrity::None => "no part of the body",
    }
}

/// Returns the public URL in the configuration, or a placeholder if the configuration has none.
fn public_url(context: &Context) -> String {
    let config = context.file().ok().and_then(|file| Config::load(&file, super::KAFKA).ok());
    config.and_then(|config| config.server.public_url).unwrap_or_else(|| PLACEHOLDER_HOST.to_owned())
}

fn unknown_provider(name: &str) -> UsageError {
    let names: Vec<String> = PROVIDERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let hint = match nearest(name, &names) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("run `hookhold providers` to list the {} built-in names", names.len()),
    };
    UsageError(format!("PROVIDER: expected a built-in name, found {}; {hint}", name.escape_debug()))
}

/// Base URL to print if the public URL is unknown.
pub(super) const PLACEHOLDER_HOST: &str = "https://YOUR-HOST";
