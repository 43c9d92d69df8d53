//! Finds the values at all of a recipe's JSON pointers in one pass over a body, without building a tree. The pass skips all
//! other values without decoding them, at any nesting depth. The recursion is only as deep as the longest pointer. The pass
//! decodes the value at each pointer separately. If one value is invalid, such as a string with half a surrogate pair, the pass
//! treats only this value as absent.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;
use serde_json::Deserializer;

use crate::source::pointers::Node;

/// Returns one entry for each of the recipe's body locations: a decoded string, an integer in decimal digits, `true`, `false`,
/// or `None` for any other value. The entry for a number with a fraction or beyond 64 bits is `None`, because rounding could
/// make two ids equal. If an object has several members with the same name, uses the last one. Returns `None` instead of a list
/// if the body is not exactly one JSON value. Ignores a leading byte order mark.
pub(super) fn locate<'a>(root: &Node, slots: usize, body: &'a [u8]) -> Option<Vec<Option<Cow<'a, str>>>> {
    let rest = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut walk = Walk { rest, slots: vec![None; slots] };
    walk.value(root)?;
    walk.next().is_none().then_some(walk.slots)
}

/// A single pass over a JSON text. Each parsing method returns `None` if the text is not valid JSON.
struct Walk<'a> {
    rest: &'a [u8],
    slots: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, node: &Node) -> Option<()> {
        self.clear(node);
        match self.next()? {
            b'{' if !node.children.is_empty() => self.members(node),
            b'[' if !node.children.is_empty() => self.elements(node),
            _ => {
                let value = self.skip()?;
                if let Some(slot) = node.slot {
                    self.slots[slot] = text(value);
                }
                Some(())
            }
        }
    }

    fn members(&mut self, node: &Node) -> Option<()> {
        let mut is_over = self.eat(b'{') && self.eat(b'}');
        while !is_over {
            let name = self.next().filter(|byte| *byte == b'"').and_then(|_| self.skip())?;
            let child = match plain(name) {
                Some(name) => node.find(name),
                None => string(name).and_then(|name| node.find(name.as_bytes())),
            };
            if !self.eat(b':') {
                return None;
            }
            self.child(node, child)?;
            is_over = self.is_over(b'}')?;
        }
        Some(())
    }

    fn elements(&mut self, node: &Node) -> Option<()> {
        let mut is_over = self.eat(b'[') && self.eat(b']');
        let mut index = 0;
        while !is_over {
            self.child(node, node.find_index(index))?;
            index += 1;
            is_over = self.is_over(b']')?;
        }
        Some(())
    }

    fn child(&mut self, node: &Node, child: Option<usize>) -> Option<()> {
        match child {
            Some(at) => self.value(&node.children[at].1),
            None => self.skip().map(drop),
        }
    }

    /// Consumes the byte after an object member or array element. Returns true if the byte is `end`, false if it is a comma,
    /// and `None` if it is any other byte.
    fn is_over(&mut self, end: u8) -> Option<bool> {
        let is_over = self.eat(end);
        (is_over || self.eat(b',')).then_some(is_over)
    }

    /// Clears the values that the pass has found for a node and for all nodes below it, because an earlier object member with
    /// the node's name may have set these values.
    fn clear(&mut self, node: &Node) {
        node.slot.into_iter().for_each(|slot| self.slots[slot] = None);
        node.children.iter().for_each(|(_, child)| self.clear(child));
    }

    /// Skips whitespace and returns the next byte, or `None` at the end of the text. Does not consume the returned byte.
    fn next(&mut self) -> Option<u8> {
        let start = self.rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).unwrap_or(self.rest.len());
        self.rest = &self.rest[start..];
        self.rest.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.rest = &self.rest[usize::from(is_next)..];
        is_next
    }

    /// Consumes the next JSON value and returns its undecoded bytes. Returns `None` if the value is not valid JSON.
    fn skip(&mut self) -> Option<&'a [u8]> {
        let size = match self.next()? {
            b'"' => plain_string(self.rest),
            _ => None,
        };
        let (value, rest) = self.rest.split_at(size.or_else(|| size_of_value(self.rest))?);
        self.rest = rest;
        Some(value)
    }
}

/// Returns the length in bytes of the JSON string at the start of the text, including the quotation marks. Returns `None` if
/// the string has escapes or is invalid. Most member names and values are strings without escapes, and scanning such a string
/// takes less time than starting the general parser.
fn plain_string(json: &[u8]) -> Option<usize> {
    let end = 1 + memchr2(b'"', b'\\', &json[1..])?;
    // `&` does not short-circuit, so the compiler can vectorise the check.
    let is_text = json[1..end].iter().fold(true, |is_text, byte| is_text & (*byte >= b' '));
    (is_text && json[end] == b'"').then_some(end + 1)
}

/// Returns the length in bytes of the JSON value at the start of the text, or `None` if the value is invalid.
fn size_of_value(json: &[u8]) -> Option<usize> {
    let mut values = Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// Returns the text of a JSON string, integer or boolean. Returns `None` for any other value: recipes can read only these three
/// kinds of values from a body.
fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.starts_with(b"\"") {
        return string(value);
    }
    // Reject numbers with an exponent and `-0`, so that each accepted integer has exactly one spelling.
    let is_fact = |text: &&str| {
        let is_whole = || text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok_and(|number| number < 0);
        matches!(*text, "true" | "false") || is_whole()
    };
    std::str::from_utf8(value).ok().filter(is_fact).map(Cow::Borrowed)
}

/// Decodes a JSON string. Returns `None` if the decoded string is not valid Unicode.
fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    match plain(value) {
        Some(plain) => std::str::from_utf8(plain).ok().map(Cow::Borrowed),
        None => serde_json::from_slice(value).ok().map(Cow::Owned),
    }
}

/// Returns the bytes between the quotation marks of a JSON string, or `None` if the string has escapes.
fn plain(value: &[u8]) -> Option<&[u8]> {
    let inside = &value[1..value.len() - 1];
    (!inside.contains(&b'\\')).then_some(inside)
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::source::pointers::Pointers;

    fn found<'a>(pointers: &Pointers, json: &'a [u8]) -> Vec<Option<Cow<'a, str>>> {
        locate(&pointers.root, pointers.slots, json).expect("the text is JSON")
    }

    const PATHS: &[&str] = &["/a", "/a/b", "/b/a", "/a/0", "/b/1/a", "/b/~0~1", "/", "/a/01", "/b/+1"];
    /// JSON values that `serde_json::Value` cannot represent. The test replaces each string `"odd"` with one of these values.
    const ODD: &[&[u8]] = &[b"\"\\ud83d\"", b"\"\\ude00\\ud83d\"", b"\"caf\xe9\"", b"1e400", b"-0", b"100000000000000000000"];

    /// Returns the value at the JSON pointer `path` in a parsed tree, in the same format as `locate`. The test compares both
    /// results.
    fn model(tree: &Value, path: &str) -> Option<String> {
        match tree.pointer(path)? {
            Value::String(text) if text == "odd" => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if !number.is_f64() => Some(number.to_string()),
            Value::Bool(on) => Some(on.to_string()),
            _ => None,
        }
    }

    fn tree(random: &mut fastrand::Rng, depth: usize) -> Value {
        let names = ["a", "b", "~/", "", "0", "1"];
        let kinds = if depth == 0 {
            0..6
        } else if depth == 4 {
            6..10
        } else {
            0..10
        };
        match random.u8(kinds) {
            0 => json!(null),
            1 => json!(random.bool()),
            2 => json!(random.i64(..)),
            3 => json!(random.f64()),
            4 => json!(random.choice(["plain", "odd"])),
            5 => json!("\u{e9}\"\\\n"),
            6 | 7 => (0..random.usize(..3)).map(|_| tree(random, depth - 1)).collect(),
            _ => {
                let chosen = random.choose_multiple(names, 3);
                chosen.into_iter().map(|name| (name.to_owned(), tree(random, depth - 1))).collect()
            }
        }
    }

    #[test]
    fn one_pass_finds_the_same_values_as_a_tree() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pointers = Pointers::default();
        let slots: Vec<usize> = PATHS.iter().map(|path| pointers.slot(path).expect("a pointer")).collect();
        let mut count = 0;
        for _ in 0..5_000 {
            let tree = tree(&mut random, 4);
            let text = tree.to_string();
            let mut pieces = text.split("\"odd\"");
            let mut json = pieces.next().expect("split yields at least one piece").as_bytes().to_vec();
            pieces.for_each(|piece| json.extend([random.choice(ODD).expect("some"), piece.as_bytes()].concat()));
            let values = found(&pointers, &json);
            for (path, slot) in PATHS.iter().zip(&slots) {
                assert_eq!(values[*slot].as_deref(), model(&tree, path).as_deref(), "{path} in {text}");
                count += usize::from(values[*slot].is_some());
            }
        }
        assert!(count > 1_000, "only {count} values were found");
    }

    /// Corrupts JSON texts by truncation, insertion and replacement. The pass must accept exactly the texts that serde_json
    /// accepts, and must not panic.
    #[test]
    fn damaged_json_is_accepted_only_if_serde_accepts_it() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pointers = Pointers::default();
        PATHS.iter().for_each(|path| assert!(pointers.slot(path).is_some()));
        let mut whole = 0;
        for _ in 0..20_000 {
            let mut json = tree(&mut random, 3).to_string().into_bytes();
            for _ in 0..random.usize(..3) {
                let at = random.usize(..json.len());
                match random.u8(..3) {
                    0 => json.truncate(at + 1),
                    1 => json.insert(at, random.choice(b"\"\\{}[]:,01-e \n\xff".iter().copied()).expect("some")),
                    _ => json[at] = random.choice(b"\"\\{}[]:,01-e \n\xff".iter().copied()).expect("some"),
                }
            }
            let is_json = serde_json::from_slice::<IgnoredAny>(&json).is_ok();
            let found = locate(&pointers.root, pointers.slots, &json).is_some();
            assert_eq!(found, is_json, "{}", json.escape_ascii());
            whole += usize::from(is_json);
        }
        assert!((2_000..18_000).contains(&whole), "{whole} texts were JSON");
    }

    #[test]
    fn the_last_of_equally_named_members_is_used() {
        let mut pointers = Pointers::default();
        let slot = pointers.slot("/a/b").expect("a pointer");
        for (text, expected) in [
            (r#"{"a":{"b":1},"a":{"b":2}}"#, Some("2")),
            (r#"{"a":{"b":1},"a":{}}"#, None),
            (r#"{"a":{"b":1},"a":7}"#, None),
            (r#"{"a":{"b":1},"a":[]}"#, None),
        ] {
            assert_eq!(found(&pointers, text.as_bytes())[slot].as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn malformed_and_overlong_pointers_are_rejected() {
        let mut pointers = Pointers::default();
        for text in ["", "a", "/a~", "/~2", &"/a".repeat(17)] {
            assert_eq!(pointers.slot(text), None, "{text}");
            assert_eq!(pointers.field_json_slot(&format!("field{text}")), None, "{text}");
        }
        assert_eq!(
            (pointers.field_slot(""), pointers.field_json_slot("/a"), pointers.field_json_slot("field")),
            (None, None, None)
        );
        assert_eq!(pointers.slot(&"/a".repeat(16)), Some(0));
        assert_eq!(pointers.slot("/a"), Some(1));
        assert_eq!(pointers.slot("/a"), Some(1));
    }
}
