//! Reads the signed content of a recipe: its alternatives, and the terms of each alternative.

use super::locator::{LocatorParser, header};
use super::need;
use crate::source::recipe::{Algorithm, Encoding, FormJoin, Locator, Term, UrlStyle};
use crate::toml_value::{Item, TomlTable};

/// Takes the signed content from `content` or `content_variants`. Returns `None` if the content is missing or invalid.
pub(super) fn take(table: &mut TomlTable, locators: &mut LocatorParser) -> Option<Vec<Vec<Term>>> {
    let Some(variants) = table.take("content_variants") else {
        return need(table, "content", TERMS, |table| terms(table.take("content")?, locators)).map(|content| vec![content]);
    };
    if table.take("content").is_some() {
        return variants.expected("content or content_variants", "both; remove one of them");
    }
    let lists = variants.clone().list();
    match lists.len() {
        0 => variants.expected("arrays of terms", "an empty array"),
        1..=MAX_VARIANTS => {
            let all: Vec<_> =
                lists.into_iter().map(|list| Some((terms(list.clone(), locators)?, list))).collect::<Option<_>>()?;
            let covers_body = |(terms, _): &&(Vec<Term>, Item)| terms.iter().any(Term::is_of_body);
            let (with, without): (Vec<_>, Vec<_>) = all.iter().partition(covers_body);
            match without.first().filter(|_| !with.is_empty()) {
                Some((_, list)) => list.expected(PART_OF_BODY, "none of them; add one, because another variant covers the body"),
                None => Some(all.into_iter().map(|(terms, _)| terms).collect()),
            }
        }
        found => variants.expected(format_args!("at most {MAX_VARIANTS} arrays of terms"), format_args!("{found}; remove some")),
    }
}

fn terms(list: Item, locators: &mut LocatorParser) -> Option<Vec<Term>> {
    let terms: Vec<Option<Term>> = list.clone().list().into_iter().map(|item| term(item, locators)).collect();
    let terms: Vec<Term> = terms.into_iter().collect::<Option<_>>()?;
    if terms.iter().any(|term| !matches!(term, Term::Literal(_) | Term::Secret)) {
        return Some(terms);
    }
    list.expected(PART_OF_REQUEST, "none of them; add one, because the signature of each delivery would be the same otherwise")
}

fn term(item: Item, locators: &mut LocatorParser) -> Option<Term> {
    let text = item.clone().string()?;
    if let Some((name, arguments)) = call(&text) {
        return function(name, &arguments, &item, locators);
    }
    let bare = |text: &str| !text.is_empty() && !text.chars().any(char::is_alphanumeric);
    if let Some((_, term)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Some(term.clone());
    }
    match text.split_once(':') {
        _ if text == "form-sorted" => Some(Term::FormSorted(FormJoin::default())),
        _ if bare(&text) => Some(Term::Literal(text)),
        Some(("const", literal)) if !literal.is_empty() => Some(Term::Literal(literal.to_owned())),
        Some(("header", _)) => item.parse(TERMS, header).map(Term::Header),
        Some(("tag", tag)) if !tag.is_empty() => Some(Term::Tag(tag.to_owned())),
        Some(("query" | "json" | "form" | "form-json" | "config", _)) => locators.text(&text, &item).map(located),
        _ => item.unexpected(TERMS),
    }
}

/// Returns the term for a locator. The value of a header or a tag is a term of its own, because the verifier reads its bytes
/// as received.
fn located(locator: Locator) -> Term {
    match locator {
        Locator::Header(name) => Term::Header(name),
        Locator::Tag(tag) => Term::Tag(tag),
        Locator::Const(text) => Term::Literal(text),
        other => Term::Located(other),
    }
}

/// Parses a term with arguments, such as `body-hash(sha256, hex)`.
fn function(name: &str, arguments: &[&str], item: &Item, locators: &mut LocatorParser) -> Option<Term> {
    match (name, arguments) {
        ("body-hash", [algorithm, encoding]) => {
            let algorithm = value_of(Algorithm::WORDS, algorithm);
            match algorithm.zip(value_of(Encoding::WORDS, encoding)) {
                Some((algorithm, encoding)) => Some(Term::BodyHash(algorithm, encoding)),
                None => item.unexpected("body-hash(ALGORITHM, ENCODING) such as body-hash(sha256, hex)"),
            }
        }
        ("listed-headers", [names, separator, rest @ ..]) if !names.is_empty() && rest.len() <= 1 => {
            let names = if names.contains(':') { locators.text(names, item)? } else { Locator::Tag((*names).to_owned()) };
            let pair = rest.first().map(|pair| (*pair).to_owned());
            Some(Term::ListedHeaders { names, separator: (*separator).to_owned(), pair })
        }
        ("form-sorted", [fields, pair, rest @ ..]) if matches!(rest, [] | ["repeated"]) => Some(Term::FormSorted(FormJoin {
            fields: (*fields).to_owned(),
            pair: (*pair).to_owned(),
            keeps_repeated: !rest.is_empty(),
        })),
        ("optional", [locator]) => locators.text(locator, item).map(Term::Optional),
        _ => item.unexpected(TERMS),
    }
}

/// Returns the value of the word `text` of the recipe language, or `None` if `words` does not contain the word.
pub(super) fn value_of<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

/// Splits `NAME(ARGUMENT, ARGUMENT …)` into the name and the arguments. Removes whitespace around an argument. Does not change an
/// argument in single quotes, so that it can be empty, or contain a comma or whitespace. Returns `None` for any other text.
pub(super) fn call(text: &str) -> Option<(&str, Vec<&str>)> {
    let (name, mut rest) = text.strip_suffix(')')?.split_once('(')?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return None;
    }
    let mut arguments = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(quoted) = rest.strip_prefix('\'') {
            let (argument, after) = quoted.split_once('\'')?;
            arguments.push(argument);
            match after.trim_start() {
                "" => return Some((name, arguments)),
                after => rest = after.strip_prefix(',')?,
            }
            continue;
        }
        match rest.split_once(',') {
            Some((argument, after)) => {
                arguments.push(argument.trim_end());
                rest = after;
            }
            None => {
                arguments.push(rest.trim_end());
                return Some((name, arguments));
            }
        }
    }
}

const WORDS: &[(&str, Term)] = &[
    ("body", Term::Body),
    ("body-crc32-decimal", Term::BodyCrc32),
    ("timestamp", Term::Timestamp),
    ("id", Term::Id),
    ("secret", Term::Secret),
    ("method", Term::Method),
    ("path-and-query", Term::PathAndQuery),
    ("url", Term::Url),
    ("url-other-port", Term::UrlOtherPort),
    ("url-no-query", Term::UrlNoQuery),
    ("url-normalized", Term::UrlRewritten { style: UrlStyle::Normalized, other_port: false }),
    ("url-normalized-other-port", Term::UrlRewritten { style: UrlStyle::Normalized, other_port: true }),
    ("url-legacy-query", Term::UrlRewritten { style: UrlStyle::LegacyQuery, other_port: false }),
    ("url-legacy-query-other-port", Term::UrlRewritten { style: UrlStyle::LegacyQuery, other_port: true }),
];
/// Maximum number of alternatives of the signed content. A forged delivery costs at most one hash for each combination of
/// alternative, secret and signature group.
const MAX_VARIANTS: usize = 8;
const PART_OF_BODY: &str = "an array with \"body\", \"form-sorted\" or another part of the body";
const PART_OF_REQUEST: &str = "an array with \"body\" or another part of the request";
const TERMS: &str = "body, timestamp, id, header:NAME, tag:NAME, const:TEXT, url, form-sorted, another term of docs/recipes.md, \
                     or punctuation such as \".\"";
