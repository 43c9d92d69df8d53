//! The Kafka topics of a source: one for all events, or several by event type, such as
//! `topics = { "invoice.*" = "billing" }`.

use std::sync::Arc;

use super::type_filter::TypePattern;
use crate::toml_value::{Item, TomlTable};

/// The Kafka topics to which a source's events go.
#[derive(Clone, Debug)]
pub struct SourceTopics {
    /// The topics of certain event types. The first pattern that matches applies.
    by_type: Vec<(TypePattern, Arc<str>)>,
    default: Arc<str>,
}

impl SourceTopics {
    /// Takes the options `topic` and `topics` of the source `name` out of its section. Without `topic`, uses the template `default`,
    /// in which `{source}` stands for the source's name. Returns `None` if `topic` is invalid.
    pub(crate) fn take(section: &mut TomlTable, default: &str, name: &str) -> Option<SourceTopics> {
        let topic = section.take("topic").map_or_else(|| Some(default.replace("{source}", name)), topic_name);
        let by_type = section.take_table("topics").map(by_type).unwrap_or_default();
        Some(SourceTopics { by_type, default: topic?.into() })
    }

    /// Returns the topic of an event. An event without a readable type, or with a type that no pattern matches, goes to the topic of
    /// all other events.
    pub fn of(&self, event_type: Option<&str>) -> &Arc<str> {
        let matching = |event_type: &str| self.by_type.iter().find(|(pattern, _)| pattern.matches(event_type));
        event_type.and_then(matching).map_or(&self.default, |(_, topic)| topic)
    }

    /// Returns all topics of the source, each once: first the topic of all other events.
    pub fn all(&self) -> Vec<&Arc<str>> {
        let mut all = vec![&self.default];
        for (_, topic) in &self.by_type {
            if !all.contains(&topic) {
                all.push(topic);
            }
        }
        all
    }

    /// Returns true if events of the source may go to this topic.
    pub fn include(&self, topic: &str) -> bool {
        self.all().into_iter().any(|own| **own == *topic)
    }

    /// Returns true if the topic of an event depends on its type.
    pub fn depend_on_type(&self) -> bool {
        !self.by_type.is_empty()
    }
}

fn by_type(mut table: TomlTable) -> Vec<(TypePattern, Arc<str>)> {
    let mut topics: Vec<(TypePattern, Arc<str>)> = Vec::new();
    for key in table.keys() {
        let pattern = TypePattern::parse(&key);
        if pattern.is_none() {
            table.expected(&key, "an event type such as \"invoice.paid\" or \"invoice.*\" on the left", "another name");
        }
        if let (Some(topic), Some(pattern)) = (table.take(&key).and_then(topic_name), pattern) {
            if let Some((earlier, _)) = topics.iter().find(|(earlier, _)| earlier.includes(&pattern)) {
                table.expected(
                    &key,
                    "a type that no earlier entry matches",
                    format_args!("{earlier} above it; move this entry up"),
                );
            }
            topics.push((pattern, topic.into()));
        }
    }
    table.finish();
    topics
}

fn topic_name(item: Item) -> Option<String> {
    let text = item.clone().string_as(TOPIC)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=249).contains(&text.len()) && text.bytes().all(legal) && text != "." && text != ".." {
        return Some(text);
    }
    item.unexpected(TOPIC)
}

const TOPIC: &str = "a topic name of 1 to 249 letters, digits, \".\", \"_\" and \"-\"";
