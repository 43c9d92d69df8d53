//! Finds the destination of a replay from `--to` and the configuration.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hookhold::config::JournalConfig;
use hookhold::forward::{Finding, FindingLevel, ForwardTopic, Replayer, Settings, inspect};
use hookhold::service::forward_settings;
use reqwest::Url;

use super::super::event_post::{EventPost, is_on_this_machine};
use super::super::{Context, UsageError};
use super::outlet::{KafkaOutlet, ReplayOutlet, UrlOutlet};

/// Destination of a replay.
pub(super) enum ReplayTarget {
    /// A topic for all events; `None` for the topic of each event.
    Kafka(Box<Settings>, Option<Arc<str>>),
    Url(Url),
}

impl ReplayTarget {
    /// Reads the configuration, and returns the destination and the configuration of the journal. A URL needs no secrets of sources.
    pub(super) fn find(context: &Context, to: Option<&str>) -> Result<(ReplayTarget, JournalConfig), Box<dyn Error>> {
        if let Some(url) = to.map(parse_url).transpose()?.flatten() {
            return Ok((ReplayTarget::Url(url), JournalConfig::load(&context.file()?)?));
        }
        // A replay verifies nothing, so it needs no secrets of sources.
        let (config, _) = context.load_any()?;
        let settings = forward_settings(&config).ok_or_else(|| UsageError(NO_KAFKA.to_owned()))?;
        Ok((ReplayTarget::Kafka(Box::new(settings), to.map(Arc::from)), config.journal))
    }

    /// Fails if the topic of `--to` does not exist, or if Kafka does not let hookhold write to it. Waits at most `timeout` for an answer.
    /// Fails without an answer only if `needs_answer` is true. The own topics of the events are those of the running gateway, so they
    /// are not checked.
    pub(super) fn check(&self, timeout: Duration, needs_answer: bool) -> Result<(), Box<dyn Error>> {
        let ReplayTarget::Kafka(settings, Some(name)) = self else { return Ok(()) };
        let topic = ForwardTopic { name: name.clone(), max_body: settings.max_body, max_head: 0 };
        let inspection = inspect(settings, &[topic], timeout.min(MAX_CHECK))?;
        if !inspection.reached && !needs_answer {
            return Ok(());
        }
        match inspection.findings.iter().find(|finding| finding.level == FindingLevel::Error) {
            Some(Finding { what, remedy, .. }) => Err(format!("--to: {name}: {what}; {remedy}").into()),
            None => Ok(()),
        }
    }

    /// Returns the name of the destination for messages.
    pub(super) fn name(&self) -> String {
        match self {
            ReplayTarget::Kafka(_, Some(topic)) => topic.to_string(),
            ReplayTarget::Kafka(_, None) => "their own topics".to_owned(),
            ReplayTarget::Url(url) => url.to_string(),
        }
    }

    /// Returns true if the destination is a program on this machine.
    pub(super) fn is_on_this_machine(&self) -> bool {
        matches!(self, ReplayTarget::Url(url) if is_on_this_machine(url))
    }

    /// Returns true if the destination is a URL.
    pub(super) fn is_url(&self) -> bool {
        matches!(self, ReplayTarget::Url(_))
    }

    /// Creates the client that sends the events of the journal with the id `journal`.
    pub(super) fn open(
        self,
        journal: &str,
        replay: &str,
        timeout: Duration,
        skips_failed: bool,
    ) -> Result<ReplayOutlet, Box<dyn Error>> {
        let replay = replay.to_owned();
        match self {
            ReplayTarget::Kafka(settings, topic) => {
                let started = Replayer::start((*settings).clone(), journal.to_owned(), replay, timeout);
                let replayer = started.map_err(|error| format!("cannot set up the Kafka client: {error}"))?;
                Ok(ReplayOutlet::Kafka(Box::new(KafkaOutlet { replayer, settings: *settings, topic })))
            }
            ReplayTarget::Url(url) => {
                Ok(ReplayOutlet::Url(UrlOutlet { target: EventPost::new(url)?, replay, timeout, skips_failed }))
            }
        }
    }
}

/// Returns the URL; `None` if the text is the name of a topic.
fn parse_url(to: &str) -> Result<Option<Url>, UsageError> {
    let is_legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if to.chars().all(is_legal) && !["", ".", ".."].contains(&to) && to.len() <= MAX_TOPIC {
        return Ok(None);
    }
    let url = to.parse::<Url>().ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    let expected = "a topic or a URL such as http://localhost:3000/hook";
    url.map(Some)
        .ok_or_else(|| UsageError(format!("--to: expected {expected}, found {to:?}; a URL begins with http:// or https://")))
}

/// Longest wait for each answer when the destination is checked.
const MAX_CHECK: Duration = Duration::from_secs(10);
/// Maximum length of the name of a topic, in bytes.
const MAX_TOPIC: usize = 249;
const NO_KAFKA: &str =
    "[kafka]: expected the brokers, found no [kafka] section; add it, or post the events to a program with --to URL";
