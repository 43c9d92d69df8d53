//! `hookhold parked redrive`: sends parked events to Kafka again.

use std::io::Write;
use std::sync::Arc;

use hookhold::forward::{RedriveError, Redriver};
use hookhold::journal::ParkedEvents;
use hookhold::service::forward_settings;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::super::{Context, ExitStatus, UsageError, VerbResult};
use super::{counted, select};

/// Send parked events to Kafka again, oldest first.
///
/// hookhold drops each event that Kafka acknowledges. The record has its original headers and the headers hookhold-parked-at and
/// hookhold-parked-reason, because it arrives after later events of its key. An event that Kafka rejects again stays parked.
#[derive(clap::Args)]
pub(super) struct RedriveArgs {
    /// The events, as `hookhold parked list` shows them [default: all].
    #[arg(value_name = "EVENT")]
    events: Vec<String>,
    /// Send only the events of this topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Send the events to this topic instead of their own.
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
}

/// Sends the events, and prints how many Kafka has acknowledged.
pub(super) fn run(context: &Context, parked: &ParkedEvents, args: &RedriveArgs, out: &mut impl Write) -> VerbResult {
    let (config, _) = context.load_any()?;
    let Some(settings) = forward_settings(&config) else {
        return Err(UsageError("[kafka]: expected the brokers, found no [kafka] section; add it".to_owned()).into());
    };
    let files = select(parked, &args.events)?;
    let destinations = settings.clone();
    let mut redriver = Redriver::start(settings).map_err(|error| format!("cannot set up the Kafka client: {error}"))?;
    let bar = ProgressBar::new(files.len() as u64).with_style(ProgressStyle::with_template(BAR).expect("a valid template"));
    let (mut sent, mut rejected, mut stopped) = (0, 0, None);
    for file in &files {
        bar.inc(1);
        let Some(found) = parked.read(file.position)? else { continue };
        let own = found.stored.event.topic();
        if args.topic.as_ref().is_some_and(|topic| **topic != **own) {
            continue;
        }
        let to = args.to.as_deref().map_or_else(|| destinations.destination(own), Arc::from);
        match redriver.send(&found, &to) {
            Ok(()) => {
                parked.remove(file.position)?;
                sent += 1;
            }
            Err(error @ RedriveError::Rejected(_)) => {
                rejected += 1;
                bar.suspend(|| writeln!(anstream::stderr(), "{}: {error}", file.position))?;
            }
            Err(error) => {
                stopped = Some(error);
                break;
            }
        }
    }
    bar.finish_and_clear();
    redriver.stop();
    match context.json() {
        true => writeln!(
            out,
            "{}",
            json!({ "sent": sent, "rejected": rejected, "error": stopped.as_ref().map(ToString::to_string) })
        )?,
        false => writeln!(out, "sent {}, {rejected} rejected again", counted(sent))?,
    }
    match stopped {
        Some(error) => Err(error.into()),
        None => Ok(if rejected == 0 { ExitStatus::Done } else { ExitStatus::Failed }),
    }
}

const BAR: &str = "{bar:40} {pos}/{len} parked events, {eta} left";
