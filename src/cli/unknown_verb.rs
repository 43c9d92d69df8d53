//! Answers an unknown verb with the verb that does what its name says in other programs, such as `run` for `start`. If there is none,
//! suggests a verb with nearly the same spelling, or nothing.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use hookhold::diagnostic::nearest;

use super::Cli;

/// Replaces clap's message about an unknown verb. Returns every other error as it is.
pub(super) fn explain(error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(found)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let mut command = Cli::command();
    // The verbs `journal` and `parked` have verbs of their own.
    let is_outer = std::env::args().find(|argument| !argument.starts_with('-') && command.find_subcommand(argument).is_some());
    if error.kind() != ErrorKind::InvalidSubcommand || is_outer.is_some() {
        return error;
    }
    let names: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let meant = by_meaning(found).or_else(|| nearest(found, &names).map(|near| format!("did you mean `hookhold {near}`?")));
    let remedy = meant.unwrap_or_else(|| "`hookhold --help` lists the commands".to_owned());
    command.error(ErrorKind::InvalidSubcommand, format!("expected a command, found {}; {remedy}", found.escape_debug()))
}

fn by_meaning(found: &str) -> Option<String> {
    let word = found.to_lowercase();
    if let Some((_, remedy)) = NO_VERBS.iter().find(|(words, _)| words.contains(&&*word)) {
        return Some((*remedy).to_owned());
    }
    let (_, verb) = SYNONYMS.iter().find(|(words, _)| words.contains(&&*word))?;
    Some(format!("did you mean `hookhold {verb}`?"))
}

/// Names that other programs have for a verb, and the verb.
const SYNONYMS: &[(&[&str], &str)] = &[
    (&["start", "serve", "server", "up", "daemon", "gateway"], "run"),
    (&["demo", "try", "local", "develop", "playground", "listen", "forward", "tunnel"], "dev"),
    (&["new", "create", "setup", "configure", "config", "generate"], "init"),
    (&["validate", "lint", "test-config", "configtest"], "check"),
    (&["test", "trigger", "fire", "emit", "publish", "post", "sample", "simulate", "deliver"], "send"),
    (&["logs", "log", "events", "ls", "list", "stream", "follow"], "tail"),
    (&["show", "get", "view", "event", "find", "describe"], "inspect"),
    (&["ps", "health", "state", "info", "top", "stats", "lag"], "status"),
    (&["explain", "diagnose", "debug", "why", "troubleshoot"], "doctor"),
    (&["rejected", "errors", "failures", "failed"], "rejections"),
    (&["sources", "recipes", "recipe", "vendors", "integrations"], "providers"),
    (&["dlq", "dead-letters", "dead-letter", "deadletter", "quarantine"], "parked list"),
    (&["resend", "redeliver", "retry", "reprocess", "rerun"], "replay"),
    (&["wal", "storage", "disk", "queue"], "journal stat"),
    (&["completion", "complete", "man", "manpage", "manual"], "completions"),
    (&["version"], "--version"),
];

/// Words for something that is no verb of hookhold, and what to do instead.
const NO_VERBS: &[(&[&str], &str)] = &[
    (&["stop", "quit", "kill", "shutdown", "down"], "send SIGTERM to the process of `hookhold run`"),
    (&["reload", "restart", "refresh"], "send SIGHUP to the process of `hookhold run`, which reloads the configuration"),
    (&["rotate", "secret", "secrets"], "add the new secret to `secrets` and send SIGHUP (docs/providers.md)"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suggested_verb_exists() {
        for (_, suggested) in SYNONYMS {
            let verb = suggested.split(' ').next().unwrap_or_default();
            assert!(verb.starts_with("--") || Cli::command().find_subcommand(verb).is_some(), "{suggested}");
        }
    }

    #[test]
    fn no_verb_counts_as_unknown() {
        for verb in Cli::command().get_subcommands() {
            assert_eq!(by_meaning(verb.get_name()), None, "{}", verb.get_name());
        }
    }
}
