//! Finds all of a recipe's pointers in one pass over a body, without building a tree. What no pointer leads to is skipped
//! unread, however deep it is nested; the pass itself goes only as deep as the longest pointer.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::source::pointers::Node;

/// One entry for each of `slots`: texts as they are, whole numbers in decimal, `true` and `false`; `None` for everything
/// else. A number with a fraction or beyond 64 bits is `None`, because rounding could make two ids one. Of members with the
/// same name the last counts. `None` instead of entries when the body is not one JSON value.
pub fn locate<'a>(root: &Node, slots: usize, body: &'a [u8]) -> Option<Vec<Option<Cow<'a, str>>>> {
    let mut slots = vec![None; slots];
    let mut json = serde_json::Deserializer::from_slice(body);
    let walk = Walk { node: root, slots: &mut slots };
    walk.deserialize(&mut json).and_then(|()| json.end()).ok()?;
    Some(slots)
}

struct Walk<'n, 's, 'de> {
    node: &'n Node,
    slots: &'s mut [Option<Cow<'de, str>>],
}

impl<'de> Walk<'_, '_, 'de> {
    /// Notes the value here, and that nothing is below it.
    fn found(&mut self, value: Option<Cow<'de, str>>) {
        forget(self.node, self.slots);
        if let Some(slot) = self.node.slot {
            self.slots[slot] = value;
        }
    }

    fn child(&mut self, at: usize) -> Walk<'_, '_, 'de> {
        Walk { node: &self.node.children[at].1, slots: self.slots }
    }
}

/// An earlier member of the same name may have left something below.
fn forget(node: &Node, slots: &mut [Option<Cow<'_, str>>]) {
    for (_, child) in &node.children {
        child.slot.into_iter().for_each(|slot| slots[slot] = None);
        forget(child, slots);
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: Error>(mut self, text: &'de str) -> Result<(), E> {
        self.found(Some(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.found(Some(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, number: u64) -> Result<(), E> {
        self.found(Some(Cow::Owned(number.to_string())));
        Ok(())
    }

    fn visit_i64<E: Error>(mut self, number: i64) -> Result<(), E> {
        self.found(Some(Cow::Owned(number.to_string())));
        Ok(())
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.found(None);
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, on: bool) -> Result<(), E> {
        self.found(Some(Cow::Borrowed(if on { "true" } else { "false" })));
        Ok(())
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.found(None);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.found(None);
        while let Some(child) = members.next_key_seed(Name(self.node))? {
            match child {
                Some(at) => members.next_value_seed(self.child(at))?,
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.found(None);
        for index in 0_usize.. {
            let more = match self.node.children.iter().position(|(name, _)| name.parse() == Ok(index)) {
                Some(at) => elements.next_element_seed(self.child(at))?.is_some(),
                None => elements.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Reads a member's name as bytes, so that one that is not UTF-8 does no harm, and finds the child it leads to.
struct Name<'n>(&'n Node);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<usize>, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Option<usize>, E> {
        Ok(self.0.find(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.find(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::source::pointers::Pointers;

    fn places<'a>(pointers: &Pointers, text: &'a str) -> Vec<Option<Cow<'a, str>>> {
        locate(&pointers.root, pointers.slots, text.as_bytes()).expect("it is JSON")
    }

    const PATHS: &[&str] = &["/a", "/a/b", "/b/a", "/a/0", "/b/1/a", "/b/~0~1", "/"];

    /// What a tree would say.
    fn model(tree: &Value, path: &str) -> Option<String> {
        match tree.pointer(path)? {
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
    fn one_pass_finds_what_a_tree_would_say() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pointers = Pointers::default();
        let slots: Vec<usize> = PATHS.iter().map(|path| pointers.slot(path).expect("a pointer")).collect();
        let mut found = 0;
        for _ in 0..5_000 {
            let tree = tree(&mut random, 4);
            let text = tree.to_string();
            let places = places(&pointers, &text);
            for (path, slot) in PATHS.iter().zip(&slots) {
                assert_eq!(places[*slot].as_deref(), model(&tree, path).as_deref(), "{path} in {text}");
                found += usize::from(places[*slot].is_some());
            }
        }
        assert!(found > 1_000, "only {found} places were found");
    }

    #[test]
    fn of_members_with_the_same_name_the_last_counts_whole() {
        let mut pointers = Pointers::default();
        let slot = pointers.slot("/a/b").expect("a pointer");
        for (text, expected) in [
            (r#"{"a":{"b":1},"a":{"b":2}}"#, Some("2")),
            (r#"{"a":{"b":1},"a":{}}"#, None),
            (r#"{"a":{"b":1},"a":7}"#, None),
            (r#"{"a":{"b":1},"a":[]}"#, None),
        ] {
            assert_eq!(places(&pointers, text)[slot].as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn pointers_that_lead_nowhere_are_refused() {
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
