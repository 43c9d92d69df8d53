//! Finds the values at all of a recipe's JSON pointers in one pass over a body, without building a tree. The pass skips all
//! other values without decoding them, at any nesting depth. The recursion is only as deep as the longest pointer. The pass
//! decodes the value at each pointer separately. If one value is invalid, such as a string with half a surrogate pair, the pass
//! treats only this value as absent.
//!
//! The pass accepts more than JSON, because some genuine bodies are not quite JSON and must not lose their event id: control
//! characters, words such as `NaN`, other spellings of numbers, unknown escapes, a comma after the last member or element,
//! UTF-16, byte order marks, and any bytes after the first object or array. A word or a string that is not JSON has no value of
//! its own. All other values are still the values that a consumer reads, and two different texts never become the same value.
//! The pass does not use the beginning of a text that is cut, because a value at the end of it may be cut too.

use crate::source::pointers::{EachItem, Node};
use crate::verify::items::{BatchItem, BatchShape, Items, Values, owned};
use crate::verify::json_scalar::{plain, size_of_scalar, size_of_string, string, text};
use crate::verify::utf16;

/// Returns one entry for each of the recipe's body locations: a decoded string, the digits of an integer, `true`, `false`, or
/// `None` for any other value. The entry for a number with a fraction or an exponent is `None`, because rounding could make two
/// ids equal. If an object has several members with the same name, uses the last one. If the body consists of several JSON
/// values, uses the first one. Returns `None` instead of a list if the body does not begin with an object or array.
pub(super) fn locate<'a>(root: &Node, slots: usize, body: &'a [u8]) -> Option<Values<'a>> {
    locate_all(root, slots, body).map(|(values, _)| values)
}

/// Returns the same list as [`locate`], and the items of the array that the recipe names as its batch.
pub(super) fn locate_all<'a>(root: &Node, slots: usize, body: &'a [u8]) -> Option<(Values<'a>, Items<'a>)> {
    let Some(text) = utf16::to_utf8(body) else { return locate_utf8(root, slots, body) };
    let (values, items) = locate_utf8(root, slots, &text)?;
    Some((owned(values), items.into_owned()))
}

fn locate_utf8<'a>(root: &Node, slots: usize, body: &'a [u8]) -> Option<(Values<'a>, Items<'a>)> {
    let mut walk = Walk { body, rest: body, slots: vec![None; slots], items: Items::default(), open: Vec::new() };
    if !matches!(walk.next(), Some(b'{' | b'[')) {
        return None;
    }
    walk.value(root)?;
    // A form whose first name is `[]` or `{}`.
    if matches!(walk.next(), Some(b'=' | b'&')) {
        return None;
    }
    walk.items.is_divisible = walk.rest.is_empty();
    walk.items.is_followed = walk.rest.iter().any(|byte| matches!(byte, b'{' | b'['));
    Some((walk.slots, walk.items))
}

/// A single pass over a JSON text. Each parsing method returns `None` if the text is neither JSON nor one of the accepted
/// deviations.
struct Walk<'a> {
    body: &'a [u8],
    rest: &'a [u8],
    /// The values found so far, of the body or of the current item.
    slots: Values<'a>,
    items: Items<'a>,
    /// The closing brackets of the objects and arrays that [`Walk::skip`] has entered. Empty between two calls.
    open: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, node: &Node) -> Option<()> {
        let first = self.next()?;
        if let Some(each) = &node.each {
            match first {
                b'[' => self.items.shape = BatchShape::Array,
                _ => self.item_before(each, BatchShape::Single)?,
            }
        }
        match first {
            b'{' if !node.children.is_empty() => self.members(node),
            b'[' if !node.children.is_empty() || node.each.is_some() => self.elements(node),
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
        // One bit for each child that has occurred, so that only a repeated member costs a walk over its values.
        let mut seen = 0u64;
        while !is_over {
            let name = self.name()?;
            let child = match plain(name) {
                Some(name) => node.find(name),
                None => string(name).and_then(|name| node.find(name.as_bytes())),
            };
            let bit = child.map_or(0, |at| 1 << at.min(63));
            if let Some(at) = child.filter(|_| seen & bit != 0) {
                self.clear(&node.children[at].1);
            }
            seen |= bit;
            self.child(node, child)?;
            is_over = self.is_over(b'}')?;
        }
        Some(())
    }

    fn elements(&mut self, node: &Node) -> Option<()> {
        let mut is_over = self.eat(b'[') && self.eat(b']');
        let mut index = 0;
        while !is_over {
            match (&node.each, node.find_index(index)) {
                (Some(each), None) => self.item(each)?,
                (Some(each), Some(at)) => {
                    self.item_before(each, BatchShape::Array)?;
                    self.value(&node.children[at].1)?;
                }
                (None, child) => self.child(node, child)?,
            }
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

    /// Consumes the next value as an item of the batch and adds the item with its values to the list of items.
    fn item(&mut self, each: &EachItem) -> Option<()> {
        self.next()?;
        if self.items.list.len() == each.max_items {
            self.items.is_over_limit = true;
            return self.skip().map(drop);
        }
        let start = self.body.len() - self.rest.len();
        let outside = std::mem::replace(&mut self.slots, vec![None; each.slots]);
        let read = self.value(&each.root);
        let values = std::mem::replace(&mut self.slots, outside);
        self.items.list.push(BatchItem { range: start..self.body.len() - self.rest.len(), values });
        read
    }

    /// Adds the next value as an item of the batch without consuming it, because the recipe also reads other values from it.
    fn item_before(&mut self, each: &EachItem, shape: BatchShape) -> Option<()> {
        let before = self.rest;
        self.items.shape = shape;
        self.item(each)?;
        self.rest = before;
        Some(())
    }

    /// Consumes the byte after an object member or array element. Returns true if the byte is `end`, or a comma in front of
    /// `end`. Returns false if it is another comma, and `None` if it is any other byte.
    fn is_over(&mut self, end: u8) -> Option<bool> {
        if self.eat(end) {
            return Some(true);
        }
        self.eat(b',').then(|| self.eat(end))
    }

    /// Clears the values that the pass has found for a node and for all nodes below it, because an earlier object member with
    /// the node's name may have set these values.
    fn clear(&mut self, node: &Node) {
        node.slot.into_iter().for_each(|slot| self.slots[slot] = None);
        if node.each.is_some() {
            let is_repeated = self.items.is_repeated || self.items.shape != BatchShape::Absent;
            self.items = Items { is_repeated, ..Items::default() };
        }
        node.children.iter().for_each(|(_, child)| self.clear(child));
    }

    /// Skips whitespace, control characters and byte order marks, and returns the next byte, or `None` at the end of the text.
    /// Does not consume the returned byte.
    fn next(&mut self) -> Option<u8> {
        if let Some(byte) = self.rest.first().copied().filter(|byte| *byte > b' ' && *byte != BYTE_ORDER_MARK[0]) {
            return Some(byte);
        }
        loop {
            let start = self.rest.iter().position(|byte| *byte > b' ').unwrap_or(self.rest.len());
            self.rest = &self.rest[start..];
            match self.rest.strip_prefix(BYTE_ORDER_MARK) {
                Some(after) => self.rest = after,
                None => return self.rest.first().copied(),
            }
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.rest = &self.rest[usize::from(is_next)..];
        is_next
    }

    /// Consumes the next value and returns its undecoded bytes.
    fn skip(&mut self) -> Option<&'a [u8]> {
        let first = self.next()?;
        let start = self.rest;
        match first {
            b'{' | b'[' => self.skip_nested()?,
            _ => drop(self.take(size_of_scalar(start)?)),
        }
        Some(&start[..start.len() - self.rest.len()])
    }

    /// Consumes an object or array with all values in it. A list replaces the recursion, because the nesting has no limit.
    fn skip_nested(&mut self) -> Option<()> {
        self.open.clear();
        loop {
            let mut is_value_over = true;
            match self.next()? {
                open @ (b'{' | b'[') => {
                    let close = if open == b'{' { b'}' } else { b']' };
                    self.rest = &self.rest[1..];
                    if !self.eat(close) {
                        self.open.push(close);
                        is_value_over = false;
                    }
                }
                _ => drop(self.take(size_of_scalar(self.rest)?)),
            }
            while is_value_over {
                let Some(close) = self.open.last().copied() else { return Some(()) };
                is_value_over = self.is_over(close)?;
                self.open.truncate(self.open.len() - usize::from(is_value_over));
            }
            if self.open.last() == Some(&b'}') {
                self.name()?;
            }
        }
    }

    /// Consumes the name of an object member and the colon after it. Returns the undecoded name.
    fn name(&mut self) -> Option<&'a [u8]> {
        let size = self.next().filter(|byte| *byte == b'"').and_then(|_| size_of_string(self.rest))?;
        let name = self.take(size);
        self.eat(b':').then_some(name)
    }

    fn take(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(size);
        self.rest = rest;
        taken
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde::de::IgnoredAny;
    use serde_json::{Value, json};

    use super::*;
    use crate::source::pointers::Pointers;
    use crate::verify::json_model::is_lenient_json;

    fn found<'a>(pointers: &Pointers, json: &'a [u8]) -> Vec<Option<Cow<'a, str>>> {
        locate(&pointers.root, pointers.slots, json).expect("the text is JSON")
    }

    const PATHS: &[&str] = &["/a", "/a/b", "/b/a", "/a/0", "/b/1/a", "/b/~0~1", "/", "/a/01", "/b/+1"];
    /// Values that `serde_json::Value` cannot represent, each with the text that the pass finds. The test replaces each string
    /// `"oddN"` with the value at the index N.
    const ODD: &[(&[u8], Option<&str>)] = &[
        (b"\"\\ud83d\"", None),
        (b"\"\\ude00\\ud83d\"", None),
        (b"\"caf\xe9\"", None),
        (b"1e400", None),
        (b"-0", None),
        (b"NaN", None),
        (b"Infinity", None),
        (b"-Infinity", None),
        (b"-nan(0x1)", None),
        (b"undefined", None),
        (b"007", None),
        (b"+1", None),
        (b".5", None),
        (b"'it'", None),
        (b"\"\\x41\\'\"", None),
        (b"\"\\u+12f\"", None),
        (b"\"\\u12\"", None),
        (b"100000000000000000000", Some("100000000000000000000")),
        (b"-12345678901234567890123", Some("-12345678901234567890123")),
        (b"\"a\x00\n\x1f\"", Some("a\0\n\u{1f}")),
        (b"\"\t\\u00e9\"", Some("\t\u{e9}")),
    ];

    /// Returns the value at the JSON pointer `path` in a parsed tree, in the same format as `locate`. The test compares both
    /// results.
    fn model(tree: &Value, path: &str) -> Option<String> {
        match tree.pointer(path)? {
            Value::String(text) if text.starts_with("odd") => odd(text).1.map(str::to_owned),
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if !number.is_f64() => Some(number.to_string()),
            Value::Bool(on) => Some(on.to_string()),
            _ => None,
        }
    }

    fn odd(name: &str) -> (&'static [u8], Option<&'static str>) {
        ODD[name["odd".len()..].parse::<usize>().expect("a number follows")]
    }

    /// Writes a tree as JSON, with the odd values in the places of their names.
    fn written(tree: &Value) -> Vec<u8> {
        let text = tree.to_string();
        let mut pieces = text.split("\"odd");
        let mut json = pieces.next().expect("split yields at least one piece").as_bytes().to_vec();
        for piece in pieces {
            let (number, rest) = piece.split_once('"').expect("the name ends");
            json.extend([odd(&format!("odd{number}")).0, rest.as_bytes()].concat());
        }
        json
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
            4 if random.bool() => json!(format!("odd{}", random.usize(..ODD.len()))),
            4 => json!("plain"),
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
            let json = written(&tree);
            let values = found(&pointers, &json);
            for (path, slot) in PATHS.iter().zip(&slots) {
                assert_eq!(values[*slot].as_deref(), model(&tree, path).as_deref(), "{path} in {tree}");
                count += usize::from(values[*slot].is_some());
            }
        }
        assert!(count > 1_000, "only {count} values were found");
    }

    /// Writes each tree in another encoding, and appends bytes to it. The pass must find the same values as in plain JSON.
    #[test]
    fn encodings_and_trailing_bytes_change_no_value() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pointers = Pointers::default();
        PATHS.iter().for_each(|path| assert!(pointers.slot(path).is_some()));
        let mut count = 0;
        for _ in 0..5_000 {
            let json = written(&tree(&mut random, 4));
            let expected = found(&pointers, &json);
            let tail = random.choice(["", "\0", "\0\0\n", "\n{\"a\":\"other\"}\n", " [", "}", "\u{1a}"]).expect("some");
            let mut variants = vec![[&json[..], tail.as_bytes()].concat(), [BYTE_ORDER_MARK, &json, tail.as_bytes()].concat()];
            if let Ok(text) = std::str::from_utf8(&json) {
                for mark in ["", "\u{feff}"] {
                    let units: Vec<u16> = [mark, text, tail].concat().encode_utf16().collect();
                    variants.push(units.iter().flat_map(|unit| unit.to_le_bytes()).collect());
                    variants.push(units.iter().flat_map(|unit| unit.to_be_bytes()).collect());
                }
            }
            for variant in variants {
                assert_eq!(found(&pointers, &variant), expected, "{}", variant.escape_ascii());
                count += 1;
            }
        }
        assert!(count > 15_000, "only {count} variants were read");
    }

    /// Corrupts JSON texts by truncation, insertion and replacement. The pass must accept exactly the texts that the model
    /// accepts, and must not panic.
    #[test]
    fn damaged_json_is_accepted_only_if_the_model_accepts_it() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pointers = Pointers::default();
        PATHS.iter().for_each(|path| assert!(pointers.slot(path).is_some()));
        let (mut whole, mut lenient) = (0, 0);
        for _ in 0..20_000 {
            let mut json = written(&tree(&mut random, 3));
            for _ in 0..random.usize(..3) {
                let at = random.usize(..json.len());
                match random.u8(..3) {
                    0 => json.truncate(at + 1),
                    1 => json.insert(at, random.choice(b"\"\\{}[]:,01-e \n\xffN&=".iter().copied()).expect("some")),
                    _ => json[at] = random.choice(b"\"\\{}[]:,01-e \n\xffN&=".iter().copied()).expect("some"),
                }
            }
            let is_json = is_lenient_json(&json);
            let found = locate(&pointers.root, pointers.slots, &json).is_some();
            assert_eq!(found, is_json, "{}", json.escape_ascii());
            whole += usize::from(is_json);
            lenient += usize::from(is_json && serde_json::from_slice::<IgnoredAny>(&json).is_err());
        }
        assert!((2_000..18_000).contains(&whole), "{whole} texts were JSON");
        assert!(lenient > 200, "only {lenient} texts were not quite JSON");
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
