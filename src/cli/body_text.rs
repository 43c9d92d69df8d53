//! Shows the body of an event on a terminal: JSON with line breaks, other text as it is, and anything else as a hex dump. Every number
//! of a JSON body stays as it is written, and no body can control the terminal or flood it.

use std::io::{self, Write};

use serde::de::IgnoredAny;

/// The beginning of a body as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BodyText {
    pub(super) form: BodyForm,
    /// Lines of text, each with its line break.
    pub(super) lines: String,
    /// Number of bytes of the body that the lines do not show.
    pub(super) cut: usize,
}

/// Form in which a body is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyForm {
    Json,
    Text,
    Binary,
}

impl BodyForm {
    /// Returns the word for this form.
    pub(super) fn word(self) -> &'static str {
        match self {
            BodyForm::Json => "JSON",
            BodyForm::Text => "text",
            BodyForm::Binary => "binary",
        }
    }
}

impl BodyText {
    /// Returns the text for the beginning of a body: at most [`MAX_SHOWN`] bytes, and the rest of the last value.
    pub(super) fn of(body: &[u8]) -> BodyText {
        match std::str::from_utf8(body) {
            Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => json(text),
            Ok(text) if !text.contains(is_binary) => plain(text),
            _ => dump(body),
        }
    }

    /// Writes the lines with an indent, and a last line about the rest of the body. `remedy` names the command that prints all of it.
    pub(super) fn write(&self, out: &mut impl Write, indent: &str, remedy: &str) -> io::Result<()> {
        for line in self.lines.lines() {
            writeln!(out, "{indent}{line}")?;
        }
        match self.cut {
            0 => Ok(()),
            cut => writeln!(out, "{indent}… {cut} more bytes; {remedy} prints the exact bytes"),
        }
    }
}

/// Returns text from outside hookhold on one line, without characters that could control the terminal. Cuts it after `most`
/// characters.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).flat_map(char::escape_debug).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}

/// Writes a valid JSON text with one value on each line. Copies numbers and strings as they are.
fn json(text: &str) -> BodyText {
    let mut lines = String::new();
    let (mut depth, mut is_string, mut is_escaped, mut last) = (0_usize, false, false, ' ');
    let line_break = |lines: &mut String, depth: usize| {
        lines.push('\n');
        lines.extend(std::iter::repeat_n("  ", depth));
    };
    let mut cut = 0;
    for (at, letter) in text.char_indices() {
        if is_string {
            push_safe(&mut lines, letter, |letter| format!("\\u{:04x}", u32::from(letter)));
            is_string = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
            continue;
        }
        if lines.len() >= MAX_SHOWN {
            cut = text.len() - at;
            break;
        }
        match letter {
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(last, '{' | '[') {
                    line_break(&mut lines, depth);
                }
            }
            _ if matches!(last, '{' | '[' | ',') => line_break(&mut lines, depth),
            _ => {}
        }
        depth += usize::from(matches!(letter, '{' | '['));
        is_string = letter == '"';
        lines.push(letter);
        if letter == ':' {
            lines.push(' ');
        }
        last = letter;
    }
    lines.push('\n');
    BodyText { form: BodyForm::Json, lines, cut }
}

fn plain(text: &str) -> BodyText {
    let mut lines = String::new();
    let mut cut = 0;
    for (at, letter) in text.char_indices() {
        if lines.len() >= MAX_SHOWN {
            cut = text.len() - at;
            break;
        }
        push_safe(&mut lines, letter, |letter| letter.escape_debug().to_string());
    }
    if !lines.is_empty() && !lines.ends_with('\n') {
        lines.push('\n');
    }
    BodyText { form: BodyForm::Text, lines, cut }
}

fn dump(body: &[u8]) -> BodyText {
    let mut lines = String::new();
    let most = MAX_SHOWN / DUMP_LINE_LEN * DUMP_BYTES;
    let shown = &body[..body.len().min(most)];
    for (number, bytes) in shown.chunks(DUMP_BYTES).enumerate() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        lines += &format!("{:08x}  {:<47}  {text}\n", number * DUMP_BYTES, hex.join(" "));
    }
    BodyText { form: BodyForm::Binary, lines, cut: body.len() - shown.len() }
}

/// Returns true if a text with this character is shown as a hex dump.
fn is_binary(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\n' | '\r' | '\t')
}

/// Appends a character, or the text that `escape` returns if the character could control the terminal or the order of the text.
fn push_safe(lines: &mut String, letter: char, escape: impl Fn(char) -> String) {
    let is_invisible = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match letter {
        '\n' | '\t' => lines.push(letter),
        _ if letter.is_control() || is_invisible => *lines += &escape(letter),
        _ => lines.push(letter),
    }
}

/// Number of bytes of text after which a body is cut.
pub(super) const MAX_SHOWN: usize = 16 << 10;
/// Number of bytes of a body in a line of a hex dump.
const DUMP_BYTES: usize = 16;
/// Length of a line of a hex dump, with its line break.
const DUMP_LINE_LEN: usize = 8 + 2 + 47 + 2 + DUMP_BYTES + 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(body: &[u8]) -> (BodyForm, String) {
        let text = BodyText::of(body);
        (text.form, text.lines)
    }

    #[test]
    fn json_keeps_every_number_and_string_as_written() {
        let body = br#"{"n":12345678901234567890.10,"e":1E400, "s":"a\"{,}\\" ,"empty":[ ],"list":[1,{"x":{}}]}"#;
        let expected = "{\n  \"n\": 12345678901234567890.10,\n  \"e\": 1E400,\n  \"s\": \"a\\\"{,}\\\\\",\n  \"empty\": [],\n  \
                        \"list\": [\n    1,\n    {\n      \"x\": {}\n    }\n  ]\n}\n";
        assert_eq!(lines(body), (BodyForm::Json, expected.to_owned()));
        assert_eq!(lines(b"-0.0"), (BodyForm::Json, "-0.0\n".to_owned()));
    }

    #[test]
    fn no_body_controls_the_terminal() {
        assert_eq!(lines("\"\u{202e}\u{9b}\"".as_bytes()), (BodyForm::Json, "\"\\u202e\\u009b\"\n".to_owned()));
        assert_eq!(lines("a\u{202e}b\r\n".as_bytes()), (BodyForm::Text, "a\\u{202e}b\\r\n".to_owned()));
        let dumped = "00000000  1b 5b 33 31 6d                                   .[31m\n";
        assert_eq!(lines(b"\x1b[31m"), (BodyForm::Binary, dumped.to_owned()));
        assert_eq!(one_line("a\nb\u{1b}", 9), "a\\nb\\u{1b}");
    }

    #[test]
    fn a_large_body_is_cut_and_the_rest_is_counted() {
        for body in ["x ".repeat(50_000), format!("[{}1]", "1,".repeat(50_000)), "\u{0}é".repeat(50_000)] {
            let text = BodyText::of(body.as_bytes());
            assert!(text.lines.len() <= MAX_SHOWN + 100, "{}", text.lines.len());
            assert!(text.cut > 0 && text.cut < body.len(), "{}", text.cut);
            let mut out = Vec::new();
            text.write(&mut out, "", "COMMAND").expect("a Vec accepts every write");
            assert!(
                String::from_utf8_lossy(&out).ends_with(&format!("… {} more bytes; COMMAND prints the exact bytes\n", text.cut))
            );
        }
        assert_eq!(BodyText::of(b"").cut, 0);
    }
}
