//! Texts of the same shape: the same length and prefix, with digits in place of digits and letters in place of letters.

use std::ops::Range;

/// The shape of a text. The variable characters are the digits and letters of each word that contains a digit, from its first
/// digit on, so that prefixes such as `evt_` and words remain. They are the digits of a number in which each character counts the
/// letters or digits of its kind.
pub(super) struct TextShape {
    text: Vec<char>,
    /// The positions and alphabets of the variable characters.
    places: Vec<(usize, &'static str)>,
    /// The number of texts with this shape.
    capacity: u128,
}

impl TextShape {
    /// Reads the shape of `text`. Only characters in the range `within` of character positions are variable.
    pub(super) fn of(text: &str, within: Range<usize>) -> TextShape {
        let text: Vec<char> = text.chars().collect();
        let mut places = Vec::new();
        let mut capacity: u128 = 1;
        for place in variable(&text).into_iter().rev().filter(|(at, _)| within.contains(at)) {
            match capacity.checked_mul(place.1.len() as u128).filter(|more| *more <= MAX_CAPACITY) {
                Some(more) => capacity = more,
                None => break,
            }
            places.push(place);
        }
        places.reverse();
        TextShape { text, places, capacity }
    }

    /// Returns the number of texts with this shape.
    pub(super) fn capacity(&self) -> u128 {
        self.capacity
    }

    /// Returns the text `by` places after the original text, which follows the last text again.
    pub(super) fn shifted(&self, by: u128) -> String {
        let mut number = (self.number(&self.text).unwrap_or_default() + by % self.capacity) % self.capacity;
        let mut text = self.text.clone();
        for (at, alphabet) in self.places.iter().rev() {
            let radix = alphabet.len() as u128;
            text[*at] = alphabet.as_bytes()[(number % radix) as usize].into();
            number /= radix;
        }
        text.into_iter().collect()
    }

    /// Returns the number of places between the original text and `text`; `None` if `text` has another shape.
    pub(super) fn distance(&self, text: &str) -> Option<u128> {
        let text: Vec<char> = text.chars().collect();
        let is_fixed = |at: usize| !self.places.iter().any(|(place, _)| *place == at);
        let has_shape = text.len() == self.text.len() && (0..text.len()).all(|at| !is_fixed(at) || text[at] == self.text[at]);
        let number = self.number(&text).filter(|_| has_shape)?;
        Some((number + self.capacity - self.number(&self.text)?) % self.capacity)
    }

    fn number(&self, text: &[char]) -> Option<u128> {
        self.places.iter().try_fold(0, |number, (at, alphabet)| {
            let digit = alphabet.find(*text.get(*at)?)?;
            Some(number * alphabet.len() as u128 + digit as u128)
        })
    }
}

/// Returns the positions and alphabets of the variable characters of a text. The first digit of a number is not variable, because
/// a number does not begin with 0. The digits of a UUID that show its version and variant are not variable.
fn variable(text: &[char]) -> Vec<(usize, &'static str)> {
    let is_uuid = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text[*at] == '-');
    let mut places = Vec::new();
    let mut start = 0;
    for word in text.split(|letter| !letter.is_ascii_alphanumeric()) {
        let is_number = word.iter().all(char::is_ascii_digit);
        let first = word.iter().position(char::is_ascii_digit).map(|first| first + usize::from(is_number && word.len() > 1));
        let rest = first.map_or(&[][..], |first| &word[first..]);
        let is_hex = rest.iter().all(char::is_ascii_hexdigit);
        for (at, letter) in (start + first.unwrap_or_default()..).zip(rest) {
            if !(is_uuid && [14, 19].contains(&at)) {
                places.push((at, alphabet(*letter, is_hex)));
            }
        }
        start += word.len() + 1;
    }
    places
}

fn alphabet(letter: char, is_hex: bool) -> &'static str {
    match (letter, is_hex) {
        ('0'..='9', _) => "0123456789",
        ('a'..='z', true) => "abcdef",
        ('a'..='z', false) => "abcdefghijklmnopqrstuvwxyz",
        (_, true) => "ABCDEF",
        (_, false) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    }
}

/// Maximum number of texts with one shape. A shape with more variable characters varies only the last ones.
const MAX_CAPACITY: u128 = 1 << 120;

#[cfg(test)]
mod tests {
    use super::TextShape;

    fn shape(text: &str) -> TextShape {
        TextShape::of(text, 0..usize::MAX)
    }

    #[test]
    fn a_shifted_text_has_the_prefix_and_the_kind() {
        let cases = [
            ("evt_1QxT4e", 1, "evt_1QxT4f"),
            ("evt_1QxT9z", 1, "evt_1QxU0a"),
            ("8041", 1, "8042"),
            ("8999", 1, "8000"),
            ("shop-0042.example.com", 99, "shop-0141.example.com"),
            ("72a4f1c0-4e1b-4d7c-9b1a-0c5d8e2f7a69", 1, "72a4f1c0-4e1b-4d7c-9b1a-0c5d8e2f7a70"),
            ("no digit", 5, "no digit"),
        ];
        for (text, by, expected) in cases {
            assert_eq!(shape(text).shifted(by), expected, "{text}");
            assert_eq!(shape(text).distance(expected), Some(by % shape(text).capacity()), "{text}");
        }
    }

    #[test]
    fn a_text_of_another_shape_has_no_distance() {
        for other in ["evt_1QxT4", "evt_1QxT4ef", "evx_1QxT4e", "evt_1QxTee", "evt_1qxT4e", ""] {
            assert_eq!(shape("evt_1QxT4e").distance(other), None, "{other}");
        }
    }

    #[test]
    fn every_distance_of_a_long_text_is_found_again() {
        let long = shape("7314268095412.5180427936614.9f3c2a17d08b4e6f8a51c7e0b2d94f63");
        for by in [0, 1, 99, 1 << 40, (1 << 90) + 7] {
            assert_eq!(long.distance(&long.shifted(by)), Some(by));
        }
    }
}
