//! Checks the parameters of a recipe for contradictions, and computes the parts of an event that the signature covers.

use crate::event::Integrity;
use crate::source::recipe::{Choice, Coverage, EventLocators, Locator, MacProof, Term, Timestamp};
use crate::toml_value::TomlTable;

/// Searches the parameters of a recipe for contradictions. Reports the first contradiction and returns `None`. Examples of a
/// contradiction are a timestamp that the signature does not cover, a term in `content` for which the recipe has no locator,
/// and a tag locator in a recipe whose signatures have no tags.
pub(super) fn parts_agree(
    table: &TomlTable,
    proof: &MacProof,
    timestamp: Option<&Timestamp>,
    event: &EventLocators,
) -> Option<()> {
    let MacProof { signature, contents, .. } = proof;
    let within = |locator: &Locator| covers(contents, locator);
    let timed = timestamp.map(|time| signs(contents, &Term::Timestamp) || time.from.0.iter().flatten().all(within));
    if !timed.unwrap_or(!contents.iter().flatten().any(|term| *term == Term::Timestamp)) {
        let found = match timestamp {
            Some(_) => "a timestamp that is not signed; add \"timestamp\" to content",
            None => "only the term; add the key, or remove the term from content",
        };
        table.expected("timestamp", "both this key and the term \"timestamp\" in content, or neither", found);
        return None;
    }
    if contents.iter().flatten().any(|term| *term == Term::Id) && !is_early(&event.id) {
        let found = "a locator of another kind; use one of these kinds, or remove \"id\" from the option content";
        table.expected("event.id", "header:NAME or tag:NAME", found);
        return None;
    }
    if let Some(tag) = signature.take.iter().find(|tag| tags(contents, timestamp, event).any(|used| used == *tag)) {
        let found = format_args!("{tag}, which another parameter also reads; remove {tag} from one of the two");
        table.expected("signature.take", "tags that contain only signatures", found);
        return None;
    }
    if uses_tags(contents, timestamp, event) && (signature.items.is_none() || signature.pair.is_none()) {
        let found = "a signature without tags; set all three keys, or remove each tag:NAME from the recipe";
        table.expected("signature", "items, pair and take for a header such as t=1,v1=HEX", found);
        return None;
    }
    // A body hash authenticates the body only if the signature covers the URL that contains the hash. If the URL contains no
    // hash, the term `form-sorted` must cover the body.
    if proof.body_sha256.is_some() && !(signs_url(contents) && signs(contents, &Term::FormSorted)) {
        let expected = "body_sha256 with \"url\" and \"form-sorted\" in content";
        let found = "content without one of these terms; add the missing term or remove body_sha256";
        table.expected("body_sha256", expected, found);
        return None;
    }
    Some(())
}

/// Computes the parts of an event that the signature covers. A recipe cannot declare its own coverage, because the declaration
/// could claim too much. A provider that signs the fields of a form signs them without separators. Such a signature cannot
/// distinguish `ab=c` from `a=bc`, so it covers less than the body.
pub(super) fn coverage(contents: &[Vec<Term>], timestamp: Option<&Timestamp>, event: &EventLocators) -> Coverage {
    if !signs(contents, &Term::Body) {
        return Coverage { integrity: Integrity::Partial, id_signed: false };
    }
    let is_time = |locator: &Locator| timestamp.is_some_and(|time| time.from.0 == [vec![locator.clone()]]);
    let timed = signs(contents, &Term::Timestamp);
    let signed = |locator: &Locator| covers(contents, locator) || (timed && is_time(locator));
    let all_signed = |choice: &Choice| choice.0.iter().flatten().all(signed);
    let id_signed = signs(contents, &Term::Id) || all_signed(&event.id);
    let integrity = if id_signed && all_signed(&event.kind) { Integrity::Full } else { Integrity::Body };
    Coverage { integrity, id_signed }
}

/// Returns true if every alternative of the signed content contains `term`.
fn signs(contents: &[Vec<Term>], term: &Term) -> bool {
    contents.iter().all(|content| content.contains(term))
}

/// Returns true if every alternative of the signed content contains the URL.
fn signs_url(contents: &[Vec<Term>]) -> bool {
    contents.iter().all(|content| content.contains(&Term::Url) || content.contains(&Term::UrlOtherPort))
}

/// Returns true if every alternative of the signed content contains the text at `locator`.
fn covers(contents: &[Vec<Term>], locator: &Locator) -> bool {
    match locator {
        Locator::Body(_) => signs(contents, &Term::Body),
        Locator::Header(name) => signs(contents, &Term::Header(name.clone())),
        Locator::Tag(tag) => signs(contents, &Term::Tag(tag.clone())),
        Locator::Query(_) => signs_url(contents),
        Locator::Const(_) => true,
    }
}

/// Returns true if `fact` has at least one alternative and each alternative is a single header or a single tag. The verifier
/// can read such a value as one slice, before the signature check.
pub(super) fn is_early(fact: &Choice) -> bool {
    let is_early = |fields: &Vec<Locator>| matches!(fields[..], [Locator::Header(_) | Locator::Tag(_)]);
    !fact.0.is_empty() && fact.0.iter().all(is_early)
}

/// Returns true if the recipe reads a tag of the signature header, such as `t` in `t=1700000000,v1=…`.
pub(super) fn uses_tags(contents: &[Vec<Term>], timestamp: Option<&Timestamp>, event: &EventLocators) -> bool {
    tags(contents, timestamp, event).next().is_some()
}

/// Returns the names of the signature-header tags that the recipe's locators and content terms read.
fn tags<'a>(
    contents: &'a [Vec<Term>],
    timestamp: Option<&'a Timestamp>,
    event: &'a EventLocators,
) -> impl Iterator<Item = &'a String> {
    let choices = [&event.id, &event.kind, &event.key].into_iter().chain(timestamp.map(|time| &time.from));
    let times = event.time.iter().map(|(locator, _)| locator);
    let pointed = choices.flat_map(|choice| choice.0.iter().flatten()).chain(times).filter_map(|locator| match locator {
        Locator::Tag(tag) => Some(tag),
        _ => None,
    });
    let signed = contents.iter().flatten().filter_map(|term| if let Term::Tag(tag) = term { Some(tag) } else { None });
    pointed.chain(signed)
}
