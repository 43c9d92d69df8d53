//! Describes at the start of `hookhold dev` how each provider reaches it: the URL, the secret, and the commands that bring real
//! deliveries to this machine.

use std::fmt::Write;

use anstyle::Style;
use serde_json::{Value, json};

use super::delivery_line::painted;
use super::setup::{DevProvider, DevSetup, SecretOrigin};
use crate::cli::providers::variable;

/// A command for another shell, and its purpose.
struct ShellCommand {
    purpose: &'static str,
    command: String,
}

/// Returns the start page as text.
pub(super) fn text(setup: &DevSetup, forward: Option<&str>, has_colour: bool) -> String {
    let mut page = String::new();
    let journal = setup.config.journal.dir.display();
    let end = if setup.is_temporary { " (deleted at the end)" } else { "" };
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(page, "  {}{value}", label_text(label, has_colour));
    };
    line("listens", &setup.local_url);
    line("journal", &format!("{journal}{end}"));
    if let Some(servers) = crate::cli::check::servers(&setup.config) {
        line("Kafka", servers);
    }
    line("program", forward.unwrap_or("none; --forward URL posts each stored event to a local program"));
    line(
        "commands",
        &format!("hookhold -c {} send NAME --body FILE, tail, inspect, doctor NAME, …", setup.config_file.display()),
    );
    for (index, provider) in setup.providers.iter().enumerate() {
        let title = painted(&format!("{} {}", index + 1, provider.title), Style::new().bold(), has_colour);
        let _ = write!(page, "\n{title}\n{}", provider_text(provider, has_colour));
    }
    let _ = writeln!(page, "\n{}", painted("From the internet, in another shell", Style::new().bold(), has_colour));
    for ShellCommand { command, .. } in tunnels(&setup.local_url) {
        let _ = writeln!(page, "  {command}");
    }
    page.push_str("  Then enter https://TUNNEL/hooks/NAME in the provider's dashboard.\n");
    if setup.providers.iter().any(|provider| provider.recipe.signs_url()) {
        page.push_str("  A provider that signs the URL also needs: hookhold dev --public-url https://TUNNEL\n");
    }
    page
}

/// Returns the label of a line, as wide as the column of the labels.
fn label_text(label: &str, has_colour: bool) -> String {
    painted(&format!("{label:<10}"), Style::new().dimmed(), has_colour)
}

fn provider_text(provider: &DevProvider, has_colour: bool) -> String {
    let secret = match &provider.secret {
        SecretOrigin::Generated(file) => format!("{} (generated)", file.display()),
        SecretOrigin::Given(references) => references.join(", "),
        SecretOrigin::None => "none; the recipe requires no proof".to_owned(),
    };
    let mut lines =
        format!("  {}{}\n  {}{secret}\n", label_text("URL", has_colour), provider.url, label_text("secret", has_colour));
    for ShellCommand { purpose, command } in commands(provider) {
        let _ = writeln!(lines, "  {purpose}\n    {command}");
    }
    lines
}

/// Returns the start page as JSON objects: one for the listener, and one for each provider.
pub(super) fn json(setup: &DevSetup, forward: Option<&str>) -> Vec<Value> {
    let commands_json = |commands: Vec<ShellCommand>| {
        let objects = commands.into_iter().map(|ShellCommand { purpose, command }| json!({ "purpose": purpose, "run": command }));
        objects.collect::<Vec<_>>()
    };
    let mut objects = vec![json!({
        "kind": "listening",
        "url": setup.local_url,
        "journal": setup.config.journal.dir.display().to_string(),
        "temporary": setup.is_temporary,
        "config": setup.config_file,
        "forward": forward,
        "kafka": crate::cli::check::servers(&setup.config),
        "commands": commands_json(tunnels(&setup.local_url)),
    })];
    for provider in setup.providers.iter() {
        let references = match &provider.secret {
            SecretOrigin::Generated(file) => vec![format!("file:{}", file.display())],
            SecretOrigin::Given(references) => references.clone(),
            SecretOrigin::None => Vec::new(),
        };
        objects.push(json!({
            "kind": "provider",
            "name": &*provider.source.name,
            "title": provider.title,
            "url": provider.url,
            "secrets": references,
            "generated": matches!(provider.secret, SecretOrigin::Generated(_)),
            "commands": commands_json(commands(provider)),
        }));
    }
    objects
}

/// Returns the commands of the provider's own tool.
fn commands(provider: &DevProvider) -> Vec<ShellCommand> {
    let setup = &provider.recipe.setup;
    if setup.cli.is_empty() {
        return Vec::new();
    }
    let secret = provider.secret.shell().unwrap_or_default();
    let mut commands = Vec::new();
    if !setup.cli_secret.is_empty() && matches!(provider.secret, SecretOrigin::Generated(_)) {
        let (name, variable) = (&provider.source.name, variable(&provider.source.name, "secrets"));
        let command = format!("{variable}=$({}) hookhold dev {name} --secret {name}=env:{variable}", setup.cli_secret);
        commands.push(ShellCommand { purpose: OWN_SECRET, command });
    }
    let command = setup.cli.replace("{url}", &provider.url).replace("{secret}", &secret);
    commands.push(ShellCommand { purpose: OWN_TOOL, command });
    commands
}

/// Returns the commands of tunnels that give the listener a public URL.
fn tunnels(local_url: &str) -> Vec<ShellCommand> {
    let port = local_url.rsplit(':').next().unwrap_or_default();
    let commands = [format!("cloudflared tunnel --url {local_url}"), format!("ngrok http {port}")];
    commands.map(|command| ShellCommand { purpose: "tunnel", command }).into()
}

const OWN_TOOL: &str = "in another shell, the provider's own tool sends real events:";
const OWN_SECRET: &str = "this tool signs with a secret of its own, so end this command and start it with that secret:";
