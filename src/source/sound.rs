//! What the parts of a recipe must agree on, and what follows from them.

use crate::event::Integrity;
use crate::source::recipe::*;
use crate::table::Table;

/// Notes what contradicts itself: a time that is not signed proves nothing, what the content names must have somewhere to
/// come from, and a tag can be pointed to only when the grammar finds tags.
pub fn agree(table: &Table, signature: &Signature, content: &[Term], timestamp: Option<&Timestamp>, event: &Facts) -> Option<()> {
    let within = |locator: &Locator| holds(content, locator);
    let timed = timestamp.map(|time| content.contains(&Term::Timestamp) || time.from.0.iter().flatten().all(within));
    if !timed.unwrap_or(!content.contains(&Term::Timestamp)) {
        let allowed = "timestamp, with \"timestamp\" in content; or neither";
        table.wrong("timestamp", "a time is checked only where it is signed", allowed);
        return None;
    }
    if content.contains(&Term::Id) && !stands_alone(&event.id) {
        let allowed = "one header:NAME or tag:NAME, or several to choose from";
        table.wrong("event.id", "the content contains the id, so it must be readable before the body", allowed);
        return None;
    }
    if uses_tags(content, timestamp, event) && (signature.items.is_none() || signature.pair.is_none()) {
        let allowed = "items, pair and take, for a header such as t=1,v1=HEX";
        table.wrong("signature", "a tag is used, but the signature has none", allowed);
        return None;
    }
    Some(())
}

/// How much of an event the proof covers, and whether its id is within: computed, so that no recipe can claim too much.
pub fn integrity(content: &[Term], timestamp: Option<&Timestamp>, event: &Facts) -> (Integrity, bool) {
    let is_time = |locator: &Locator| timestamp.is_some_and(|time| time.from.0 == [vec![locator.clone()]]);
    let timed = content.contains(&Term::Timestamp);
    let signed = |locator: &Locator| holds(content, locator) || (timed && is_time(locator));
    let all_signed = |choice: &Choice| choice.0.iter().flatten().all(signed);
    let id_signed = content.contains(&Term::Id) || all_signed(&event.id);
    let integrity = if id_signed && all_signed(&event.kind) { Integrity::Full } else { Integrity::Body };
    (integrity, id_signed)
}

/// True when the content itself holds what the locator points to; every content holds the body.
fn holds(content: &[Term], locator: &Locator) -> bool {
    match locator {
        Locator::Body(_) => true,
        Locator::Header(name) => content.contains(&Term::Header(name.clone())),
        Locator::Tag(tag) => content.contains(&Term::Tag(tag.clone())),
    }
}

fn stands_alone(id: &Choice) -> bool {
    let early = |fields: &Vec<Locator>| matches!(fields[..], [Locator::Header(_) | Locator::Tag(_)]);
    !id.0.is_empty() && id.0.iter().all(early)
}

/// True when something is read from the tags beside a signature.
pub(super) fn uses_tags(content: &[Term], timestamp: Option<&Timestamp>, event: &Facts) -> bool {
    let choices = [&event.id, &event.kind, &event.key].into_iter().chain(timestamp.map(|time| &time.from));
    let times = event.time.iter().map(|(locator, _)| locator);
    let mut pointed = choices.flat_map(|choice| choice.0.iter().flatten()).chain(times);
    pointed.any(|locator| matches!(locator, Locator::Tag(_))) || content.iter().any(|term| matches!(term, Term::Tag(_)))
}
