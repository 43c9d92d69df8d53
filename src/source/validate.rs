//! Checks the parameters of a recipe for contradictions, and computes the parts of an event that the signature covers.

use crate::credentials::Credentials;
use crate::event::Integrity;
use crate::source::recipe::{Choice, Coverage, EventLocators, Locator, Proof, SignatureLocator, SignedContent, Term};
use crate::toml_value::TomlTable;

/// Adds a diagnostic for each contradiction between the parameters of a recipe. Examples are a timestamp that the signature
/// does not cover, a term in `content` for which the recipe has no locator, and a tag locator in a recipe whose signatures
/// have no tags.
pub(super) fn parts_agree(table: &TomlTable, signed: &SignedContent, event: &EventLocators) -> Option<()> {
    let SignedContent { signature, contents, timestamp, .. } = signed;
    let within = |locator: &Locator| covers(contents, locator);
    let timed = timestamp.as_ref().map(|time| signs(contents, &Term::Timestamp) || time.from.0.iter().flatten().all(within));
    if !timed.unwrap_or(!contents.iter().flatten().any(|term| *term == Term::Timestamp)) {
        let found = match timestamp {
            Some(_) => "a timestamp that is not signed; add \"timestamp\" to content",
            None => "only the term; add the key, or remove the term from content",
        };
        table.expected("timestamp", "both this key and the term \"timestamp\" in content, or neither", found);
        return None;
    }
    let id_in_item = event.id.0.iter().flatten().any(|locator| matches!(locator, Locator::Item(_)));
    if contents.iter().flatten().any(|term| *term == Term::Id) && (id_in_item || !is_single(&event.id)) {
        let found = match event.id.0.is_empty() {
            true => "nothing; add event.id, or remove \"id\" from content",
            false => "a locator of another kind; use one of these kinds, or remove \"id\" from content",
        };
        table.expected("event.id", "a locator such as header:NAME, tag:NAME or json:/POINTER", found);
        return None;
    }
    if let Some(tag) = signature.take.iter().find(|tag| tags(signed, event).any(|used| used == *tag)) {
        let found = format_args!("{tag}, which another parameter also reads; remove {tag} from one of the two");
        table.expected("signature.take", "tags that contain only signatures", found);
        return None;
    }
    if uses_tags(signed, event) && (signature.items.is_none() || signature.pair.is_none()) {
        let found = "a signature without tags; set all three keys, or remove each tag:NAME from the recipe";
        table.expected("signature", "items, pair and take for a header such as t=1,v1=HEX", found);
        return None;
    }
    // A body hash authenticates the body only if the signature covers the URL that contains the hash. If the URL contains no
    // hash, the term `form-sorted` must cover the body.
    if signed.body_hash.is_some() && !(signs_url(contents) && signs_form(contents)) {
        let expected = "body_sha256 with \"url\" and \"form-sorted\" in content";
        let found = "content without one of these terms; add the missing term or remove body_sha256";
        table.expected("body_sha256", expected, found);
        return None;
    }
    if signed.by_item {
        items_are_signed(table, signed)?;
    }
    if signed.in_slots && signed.reads_tags {
        let found = "\"slots\" with tags in the signature; remove match or the tags";
        table.expected("match", "\"any\", or signatures without tags", found);
        return None;
    }
    Some(())
}

/// Reports a part of the recipe that is not inside the item, although each item carries its own signature. A term of the whole
/// body would have to be hashed once for each item.
fn items_are_signed(table: &TomlTable, signed: &SignedContent) -> Option<()> {
    let is_inside = |from: &SignatureLocator| matches!(from, SignatureLocator::Other(Locator::Item(_)));
    if !signed.signature.from.iter().all(is_inside) || signed.reads_tags {
        let found = "another locator or a tag; each item carries its own signature";
        table.expected("signature.from", "json:/POINTER inside the item", found);
        return None;
    }
    let is_of_item = |term: &Term| matches!(term, Term::Located(Locator::Item(_)) | Term::Optional(Locator::Item(_)));
    let is_allowed = |term: &Term| is_of_item(term) || matches!(term, Term::Literal(_) | Term::Timestamp | Term::Secret);
    let is_signed = |content: &Vec<Term>| content.iter().all(is_allowed) && content.iter().any(is_of_item);
    if !signed.contents.iter().all(is_signed) {
        let found = "another term or none of them; match = \"all-items\" signs only values inside the item";
        table.expected("content", "json:/POINTER, optional(json:/POINTER), const:TEXT or punctuation", found);
        return None;
    }
    Some(())
}

/// Reports a digest without the term `secret`, because any sender can compute such a digest.
pub(super) fn digest_contains_secret(table: &TomlTable, signed: &SignedContent) -> Option<()> {
    if signs(&signed.contents, &Term::Secret) {
        return Some(());
    }
    let found = "no \"secret\"; add it to content, because anyone could compute the hash otherwise";
    table.expected("content", "the term \"secret\" in each alternative of a digest", found);
    None
}

/// Reports a public-key signature over the term `secret`, because its keys are not secret.
pub(super) fn content_has_no_secret(table: &TomlTable, signed: &SignedContent) -> Option<()> {
    if !signed.contents.iter().flatten().any(|term| *term == Term::Secret) {
        return Some(());
    }
    table.expected("content", "terms of the request", "\"secret\", which a public-key signature does not have; remove it");
    None
}

/// Reports an event locator that reads a credential. hookhold stores, shows and forwards the id, type and ordering key of an
/// event, but no credentials.
pub(super) fn facts_are_no_credentials(table: &TomlTable, proofs: &[Proof], credentials: &Credentials, event: &EventLocators) {
    let is_credential = |locator: &Locator| match locator {
        Locator::Header(name) => credentials.include_header(name),
        Locator::Query(name) => credentials.include_parameter(name),
        other => proofs.iter().any(|proof| proof.tokens().contains(other)),
    };
    let any_credential = |choice: &Choice| choice.0.iter().flatten().any(is_credential);
    let facts = [("id", &event.id), ("type", &event.kind), ("key", &event.key)];
    for (fact, _) in facts.into_iter().filter(|(_, choice)| any_credential(choice)) {
        let found = "a credential of the sender; remove this locator";
        table.location_of("event").below(fact).expected("locators that read no credentials", found);
    }
}

/// Computes the parts of an event that the signature covers. A recipe cannot declare its own coverage, because the declaration
/// could claim too much. A provider that signs the fields of a form signs them without separators. Such a signature cannot
/// distinguish `ab=c` from `a=bc`, so it covers less than the body. A checksum of 32 bits does not cover the body either.
pub(super) fn coverage(signed: &SignedContent, event: &EventLocators) -> Coverage {
    let SignedContent { contents, timestamp, .. } = signed;
    let is_time = |locator: &Locator| timestamp.as_ref().is_some_and(|time| time.from.0 == [vec![locator.clone()]]);
    let timed = signs(contents, &Term::Timestamp);
    let is_signed = |locator: &Locator| covers(contents, locator) || (timed && is_time(locator));
    let all_signed = |choice: &Choice| choice.0.iter().flatten().all(is_signed);
    let id_signed = signs(contents, &Term::Id) || all_signed(&event.id);
    let integrity = match signs_body(contents) {
        false => Integrity::Partial,
        true if id_signed && all_signed(&event.kind) => Integrity::Full,
        true => Integrity::Body,
    };
    Coverage { integrity, id_signed }
}

/// Computes the parts of an event that a JSON Web Token covers.
pub(super) fn token_coverage(covers_body: bool, covers_url: bool, event: &EventLocators) -> Coverage {
    let is_signed = |locator: &Locator| match locator {
        Locator::Claim(_) | Locator::Const(_) => true,
        Locator::Body(_) | Locator::Item(_) => covers_body,
        Locator::Query(_) => covers_url,
        Locator::Header(_) | Locator::Tag(_) | Locator::BasicUser => false,
    };
    let all_signed = |choice: &Choice| choice.0.iter().flatten().all(is_signed);
    let id_signed = all_signed(&event.id);
    let integrity = match covers_body {
        true if id_signed && all_signed(&event.kind) => Integrity::Full,
        true => Integrity::Body,
        false if id_signed && !event.id.0.is_empty() => Integrity::Partial,
        false => Integrity::None,
    };
    Coverage { integrity, id_signed }
}

/// Returns true if every alternative of the signed content contains `term`.
fn signs(contents: &[Vec<Term>], term: &Term) -> bool {
    contents.iter().all(|content| content.contains(term))
}

/// Returns true if every alternative of the signed content covers every byte of the body.
fn signs_body(contents: &[Vec<Term>]) -> bool {
    contents.iter().all(|content| content.iter().any(|term| matches!(term, Term::Body | Term::BodyHash(..))))
}

fn signs_form(contents: &[Vec<Term>]) -> bool {
    contents.iter().all(|content| content.iter().any(|term| matches!(term, Term::FormSorted(_))))
}

/// Returns true if every alternative of the signed content contains the URL with its query, unchanged or rewritten.
fn signs_url(contents: &[Vec<Term>]) -> bool {
    contents.iter().all(|content| content.iter().any(|term| term.is_url() || *term == Term::PathAndQuery))
}

/// Returns true if every alternative of the signed content contains the query byte for byte.
fn signs_query(contents: &[Vec<Term>]) -> bool {
    contents.iter().all(|content| content.iter().any(|term| term.is_exact_url() || *term == Term::PathAndQuery))
}

/// Returns true if every alternative of the signed content contains the text at `locator`.
fn covers(contents: &[Vec<Term>], locator: &Locator) -> bool {
    // An absent value of an optional term is signed as an empty text.
    let is_term = || {
        let terms = [Term::Located(locator.clone()), Term::Optional(locator.clone())];
        contents.iter().all(|content| terms.iter().any(|term| content.contains(term)))
    };
    match locator {
        Locator::Body(_) | Locator::Item(_) => signs_body(contents) || is_term(),
        Locator::Header(name) => signs(contents, &Term::Header(name.clone())),
        Locator::Tag(tag) => signs(contents, &Term::Tag(tag.clone())),
        Locator::Query(_) => signs_query(contents) || is_term(),
        Locator::Const(_) => true,
        Locator::Claim(_) | Locator::BasicUser => false,
    }
}

/// Returns true if `fact` has at least one alternative and each alternative is one value of the request. The verifier can read
/// such a value as one slice, before the signature check.
pub(super) fn is_single(fact: &Choice) -> bool {
    let is_single = |fields: &Vec<Locator>| {
        matches!(fields[..], [Locator::Header(_) | Locator::Tag(_) | Locator::Query(_) | Locator::Body(_) | Locator::Item(_)])
    };
    !fact.0.is_empty() && fact.0.iter().all(is_single)
}

/// Returns true if the verifier must parse the body before it can check the proof.
pub(super) fn reads_body(signed: &SignedContent, event: &EventLocators) -> bool {
    let any_inside = |choice: &Choice| choice.0.iter().flatten().any(Locator::is_in_body);
    let terms = || signed.contents.iter().flatten();
    let from = |from: &SignatureLocator| matches!(from, SignatureLocator::Other(locator) if locator.is_in_body());
    signed.signature.from.iter().any(from)
        || terms().any(Term::reads_body)
        || (terms().any(|term| *term == Term::Id) && any_inside(&event.id))
        || signed.timestamp.as_ref().is_some_and(|time| any_inside(&time.from))
}

/// Returns true if the recipe reads a tag of the signature header, such as `t` in `t=1700000000,v1=…`.
pub(super) fn uses_tags(signed: &SignedContent, event: &EventLocators) -> bool {
    tags(signed, event).next().is_some()
}

/// Returns the names of the signature-header tags that the recipe's locators and content terms read.
fn tags<'a>(signed: &'a SignedContent, event: &'a EventLocators) -> impl Iterator<Item = &'a String> {
    let choices = [&event.id, &event.kind, &event.key].into_iter().chain(signed.timestamp.as_ref().map(|time| &time.from));
    let times = event.time.iter().map(|(locator, _)| locator);
    let pointed = choices.flat_map(|choice| choice.0.iter().flatten()).chain(times).filter_map(|locator| match locator {
        Locator::Tag(tag) => Some(tag),
        _ => None,
    });
    let in_content = signed.contents.iter().flatten().filter_map(|term| match term {
        Term::Tag(tag) | Term::ListedHeaders { names: Locator::Tag(tag), .. } | Term::Optional(Locator::Tag(tag)) => Some(tag),
        _ => None,
    });
    pointed.chain(in_content)
}
