//! Tests the structure of `src/`. Each room (top-level module) may name only the rooms and crates that this file allows.
//! Only two rooms may construct an `Event`, and only the listed files may call functions that write files. Imports must not
//! form a cycle, and functions, files and structs have a maximum size. The tests ignore comments, strings and test modules.

#[path = "fences/imports.rs"]
mod imports;
#[path = "fences/sizes.rs"]
mod sizes;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each room (top-level module of `src/`) with the rooms that it may name. In addition, the modules in [`WIRING`] may name
/// every room, and every room may name the modules in [`LEAVES`].
const ARROWS: &[(&str, &[&str])] = &[
    ("service", &["config", "server", "admin", "gateway", "forward", "journal"]),
    ("config", &["source"]),
    ("source", &[]),
    ("server", &["gateway", "source"]),
    ("gateway", &["verify", "journal", "source"]),
    ("verify", &["source"]),
    ("journal", &[]),
    ("forward", &["journal"]),
    ("admin", &[]),
];
const LEAVES: &[&str] = &[
    "address",
    "answer",
    "build_info",
    "certificate",
    "client_certificate",
    "clock",
    "credentials",
    "event",
    "event_key",
    "fingerprint",
    "header_field",
    "in_flight",
    "limits",
    "outcome",
    "metrics",
    "log",
    "rejections",
    "toml_value",
    "diagnostic",
    "units",
    "reference",
    "secret",
    "sender_standing",
    "work_turns",
];
const WIRING: &[&str] = &["main", "cli", "lib"];

/// Crates that only some files of `src/` may name, with the paths of these files.
const CRATES: &[(&[&str], &[&str])] = &[
    (&["h2", "hyper", "hyper_util", "http_body_util"], &["src/server", "src/admin"]),
    (&["rdkafka"], &["src/forward"]),
    (&["hmac", "sha1", "sha2"], &["src/verify"]),
    (&["brotli_decompressor", "flate2", "zstd"], &["src/verify/decompress.rs"]),
    // The reader of the configuration parses keys, so that `hookhold check` reports a wrong key.
    (
        &["aws_lc_rs", "jsonwebtoken"],
        &[
            "src/verify",
            "src/source/key.rs",
            "src/source/public_key.rs",
            "src/certificate.rs",
            "src/client_certificate.rs",
            "src/server/client_request.rs",
            "src/server/tls.rs",
        ],
    ),
    (&["moka"], &["src/gateway"]),
    (&["crossterm"], &["src/cli/dev", "src/cli/status"]),
    // `dev` writes its secrets and its journal into a directory that it deletes at the end. `replay` replaces its progress file.
    (&["tempfile"], &["src/cli/dev", "src/cli/replay/progress_file.rs"]),
    (&["tokio_rustls"], &["src/server", "src/certificate.rs", "src/client_certificate.rs"]),
];

/// Directories of `src/`, each with a word that no identifier in the directory may contain.
const FOREIGN: &[(&str, &str)] = &[("src/server", "kafka"), ("src/journal", "kafka"), ("src/journal", "http")];

/// Functions that only one directory of `src/` may call, each with the path of the directory.
const CALLERS: &[(&str, &str)] = &[("from_verifier", "src/verify"), ("from_journal", "src/journal")];
const DEFINED_IN: &str = "src/event.rs";

/// Names of functions that change the file system. Only [`WRITER`] and the files in [`ASKED_FOR`] may call these functions.
const WRITES: &[&str] = &[
    "OpenOptions",
    "File::create",
    "File::create_new",
    "File::options",
    "fs::write",
    "fs::copy",
    "fs::rename",
    "fs::hard_link",
    "fs::create_dir",
    "fs::create_dir_all",
    "fs::remove_file",
    "fs::remove_dir",
    "fs::remove_dir_all",
    "fs::set_permissions",
    "DirBuilder",
    "set_len",
    "fdatasync",
    "fallocate",
    "ftruncate",
];
const WRITER: &str = "src/journal/disk.rs";
/// Functions that write a file at the user's request, each with the source file that may call the function.
const ASKED_FOR: &[(&str, &str)] = &[("File::create", "src/cli/init.rs"), ("File::create_new", "src/cli/init.rs")];

/// The rooms (top-level modules) that process a delivery, in the order in which the delivery passes through them.
const PATH: &[&str] = &["server", "gateway", "verify", "journal", "forward"];

#[test]
fn src_keeps_its_arrows_and_fences() {
    let files = sources();
    assert!(files.len() > 10, "found only {} files in src", files.len());
    for (room, _) in ARROWS {
        assert!(
            files.iter().any(|(path, _)| room_of(path) == *room),
            "no file belongs to the room {room}; remove it from ARROWS"
        );
    }
    for (name, home) in CALLERS {
        let called = files.iter().any(|(path, text)| path.starts_with(home) && Code::of(text).has(&[name]));
        assert!(called, "no code below {home} calls {name}; correct CALLERS");
    }
    let found = violations(&files);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_kind_of_violation_is_found() {
    let bad = [
        ("src/journal/mod.rs", "use crate::gateway::Gateway;", "journal may not name gateway"),
        (
            "src/server/conn.rs",
            "use crate::{\n    event::Event,\n    journal::{Journal, Reader},\n};",
            "server may not name journal",
        ),
        ("src/gateway.rs", "fn f() { super::forward::start() }", "gateway may not name forward"),
        ("src/admin/api.rs", "fn f() { super::super::config::load() }", "admin may not name config"),
        ("src/surprise.rs", "fn f() {}", "ARROWS has no room surprise"),
        ("src/gateway.rs", "use hyper::body;", "hyper belongs to"),
        ("src/gateway.rs", "fn f() -> rdkafka::error::KafkaError { todo() }", "rdkafka belongs to"),
        ("src/journal/key.rs", "use {sha2::Sha256};", "sha2 belongs to"),
        ("src/verify/mac.rs", "use moka;", "moka belongs to"),
        ("src/admin/mod.rs", "use tokio_rustls::TlsAcceptor;", "tokio_rustls belongs to"),
        ("src/journal/frame.rs", "use http::HeaderMap;", "src/journal may not name http"),
        ("src/gateway.rs", "fn f(p: EventParts) -> Event { Event::from_verifier(p) }", "from_verifier belongs to"),
        ("src/verify/mod.rs", "let make = Event::from_journal;", "from_journal belongs to"),
        ("src/journal/writer.rs", "fn f() { std::fs::write(a, b) }", "fs::write belongs to"),
        ("src/journal/writer.rs", "use std::fs::{self, rename};", "fs::rename belongs to"),
        ("src/config.rs", "let f = OpenOptions::new();", "OpenOptions belongs to"),
        ("src/cli/init.rs", "fn f() { std::fs::remove_file(a) }", "fs::remove_file belongs to src/journal/disk.rs"),
        ("src/cli/check.rs", "use std::fs::File; fn f() { File::create(a) }", "File::create belongs to"),
        ("src/server/mod.rs", "fn kafka_is_up() -> bool { true }", "src/server may not name kafka"),
        ("src/verify/locate.rs", "let tree: serde_json::Value = parse();", "verify may not build a JSON tree"),
        ("src/lib.rs", "pub mod journal;\npub mod server;", "expected the modules in path order"),
    ];
    for (path, text, expected) in bad {
        let found = violations(&[(path.to_string(), text.to_string())]);
        assert!(found.iter().any(|line| line.contains(expected)), "{path}: {text}\nexpected {expected:?}, found {found:?}");
    }
}

#[test]
fn comments_strings_tests_and_allowed_names_pass() {
    let good = [
        (
            "src/journal/mod.rs",
            "// use crate::gateway;\n/* moka::sync /* nested */ hyper::x */ use crate::{event::Event, metrics};",
        ),
        (
            "src/gateway.rs",
            "use crate::verify; use moka::sync; const A: &str = \"rdkafka::x\"; const B: &str = r#\"hyper::\"y\"#;",
        ),
        ("src/verify/mod.rs", "fn f<'a>(c: char) -> bool { c == '\"' } use sha2::Sha256; fn g() { Event::from_verifier(p) }"),
        ("src/config.rs", "#[cfg(test)]\nmod tests {\n    use hyper::x;\n    fn f() { std::fs::write(a, b) }\n}"),
        ("src/config.rs", "fn f() { std::fs::read_to_string(path); let hyper = 1; pub(crate) struct S; }"),
        ("src/cli/send.rs", "use crate::{config, forward, server};"),
        ("src/journal/disk.rs", "fn f() { OpenOptions::new(); std::fs::rename(a, b) }"),
        ("src/lib.rs", "pub mod event;\npub mod server;\npub mod gateway;\npub mod forward;"),
    ];
    for (path, text) in good {
        let found = violations(&[(path.to_string(), text.to_string())]);
        assert!(found.is_empty(), "{path}: {text}\nfound {found:?}");
    }
}

#[test]
fn imports_between_files_form_no_circle() {
    let found = imports::circles(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_planted_circle_of_imports_is_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let root = file("src/lib.rs", "pub mod a; pub mod b; mod room;");
    let [a, b] = ["crate::b::B", "crate::a::A"].map(|path| format!("use {path}; fn f() {{}}"));
    let between_rooms = [root.clone(), file("src/a.rs", &a), file("src/b.rs", &b)];
    assert_eq!(imports::circles(&between_rooms), ["src/a.rs → src/b.rs → src/a.rs"]);
    let through_the_parent = [
        root.clone(),
        file("src/room/mod.rs", "mod x; mod y; pub use y::Y;"),
        file("src/room/x.rs", "use super::Y;"),
        file("src/room/y.rs", "fn f() { super::x::g() } pub struct Y;"),
    ];
    assert_eq!(imports::circles(&through_the_parent), ["src/room/x.rs → src/room/y.rs → src/room/x.rs"]);
    let to_the_parent = [
        root,
        file("src/room/mod.rs", "mod x; use x::X; pub struct P;"),
        file("src/room/x.rs", "use super::P; use std::fmt; #[cfg(test)] mod tests { use crate::a; }"),
    ];
    assert_eq!(imports::circles(&to_the_parent), Vec::<String>::new());
}

#[test]
fn functions_files_and_structs_stay_within_their_sizes() {
    let found = sizes::violations(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_planted_excess_of_size_is_found() {
    let long = format!("fn f() {{{}}}", "\n".repeat(70));
    let wide = format!("struct S {{ {} }}", (0..16).map(|n| format!("f{n}: u8, ")).collect::<String>());
    let bad = [
        ("src/a.rs", long, "fn f: 71 lines"),
        ("src/a.rs", "// \n".repeat(451), "451 lines"),
        ("src/cli/run.rs", "//! Its 450 lines have no reason.\n".repeat(151), "151 lines, at most 150"),
        ("src/a.rs", wide.clone(), "16 fields"),
        ("src/a.rs", "struct A; mod m { enum A {} }".to_owned(), "A names several types"),
    ];
    for (path, text, expected) in bad {
        let found = sizes::violations(&[(path.to_owned(), text)]);
        assert!(found.len() == 1 && found[0].contains(expected), "expected {expected:?}, found {found:?}");
    }
    let explained = format!("//! These 450 lines are one table.\n/// One of its fields per option.\n{wide}{}", "\n".repeat(451));
    assert_eq!(sizes::violations(&[("src/a.rs".to_owned(), explained)]), Vec::<String>::new());
}

/// Returns true if the attributes of a module contain `#[cfg(test)]`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && format!("{:?}", attribute.meta).contains("test"))
}

/// Checks `files` (path and text) and returns one line for each violation of the rules. Each line has the form
/// `src/gateway.rs:12: gateway may not name forward (…)`.
fn violations(files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        let code = Code::of(text);
        let mut report = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));
        arrows(path, &code, &mut report);
        for (crates, homes) in CRATES {
            for (line, name) in code.roots().filter(|(_, name)| crates.contains(name)) {
                belongs(path, line, name, homes, &mut report);
            }
        }
        for (name, home) in CALLERS {
            for line in code.find(&[name]) {
                belongs(path, line, name, &[home, DEFINED_IN], &mut report);
            }
        }
        for name in WRITES {
            let asked_for = ASKED_FOR.iter().filter(|(call, _)| call == name).map(|(_, home)| *home);
            let homes: Vec<&str> = asked_for.chain([WRITER]).collect();
            for line in code.names(name) {
                belongs(path, line, name, &homes, &mut report);
            }
        }
        words(path, &code, &mut report);
        if path == "src/lib.rs" {
            path_order(&code, &mut report);
        }
    }
    found
}

fn belongs(path: &str, line: usize, name: &str, homes: &[&str], report: &mut impl FnMut(usize, String)) {
    if !homes.iter().any(|home| path.starts_with(home)) {
        report(line, format!("{name} belongs to {}", homes.join(", ")));
    }
}

fn arrows(path: &str, code: &Code, report: &mut impl FnMut(usize, String)) {
    let room = room_of(path);
    if WIRING.contains(&room) {
        return;
    }
    let allowed = match ARROWS.iter().find(|(from, _)| *from == room) {
        Some((_, allowed)) => *allowed,
        None if LEAVES.contains(&room) => &[],
        None => return report(1, format!("ARROWS has no room {room}; add it with the rooms that it may name")),
    };
    let rooms: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).chain(WIRING.iter().copied()).collect();
    for (line, name) in code.crate_names(path.matches('/').count()) {
        if rooms.contains(name) && name != room && !allowed.contains(&name) {
            report(line, format!("{room} may not name {name} (allowed: {})", allowed.join(", ")));
        }
    }
}

fn words(path: &str, code: &Code, report: &mut impl FnMut(usize, String)) {
    for (home, word) in FOREIGN.iter().filter(|(home, _)| path.starts_with(home)) {
        for (line, token) in code.tokens.iter().filter(|(_, token)| token.to_lowercase().contains(word)) {
            report(*line, format!("{home} may not name {word} ({token})"));
        }
    }
    if path.starts_with("src/verify") {
        code.find(&["serde_json", "::", "Value"])
            .into_iter()
            .for_each(|line| report(line, "verify may not build a JSON tree".into()));
    }
}

fn path_order(code: &Code, report: &mut impl FnMut(usize, String)) {
    let places: Vec<usize> = PATH.iter().filter_map(|room| code.find(&["mod", room, ";"]).first().copied()).collect();
    if !places.is_sorted() {
        report(1, format!("expected the modules in path order: {}", PATH.join(", ")));
    }
}

/// Returns the room (top-level module) that contains a source file, such as `journal` for `src/journal/disk.rs` or
/// `gateway` for `src/gateway.rs`.
fn room_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").expect("every path begins with src/");
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

/// Returns the path and the text of each Rust file in `src/` that is not a test module.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = vec![root.join("src")];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_stem().is_some_and(|stem| stem != "tests")
            {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                files.push((name, fs::read_to_string(&path).expect("source is UTF-8")));
            }
        }
    }
    files.sort();
    files
}

/// The tokens of a Rust file with their line numbers. A token is a word, `::`, or one character of any other kind.
struct Code {
    tokens: Vec<(usize, String)>,
}

impl Code {
    fn of(text: &str) -> Code {
        let plain = without_comments_and_strings(text);
        let mut tokens: Vec<(usize, String)> = Vec::new();
        for (index, line) in plain.lines().enumerate() {
            let mut rest = line.trim_start();
            while let Some(first) = rest.chars().next() {
                let is_word = |c: char| c.is_alphanumeric() || c == '_';
                let length = match first {
                    ':' if rest.starts_with("::") => 2,
                    c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                    c => c.len_utf8(),
                };
                tokens.push((index + 1, rest[..length].to_string()));
                rest = rest[length..].trim_start();
            }
        }
        Code { tokens: without_test_modules(tokens) }
    }

    fn token(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |(_, token)| token)
    }

    fn has(&self, sequence: &[&str]) -> bool {
        !self.find(sequence).is_empty()
    }

    /// Returns the line number of each occurrence of the token sequence.
    fn find(&self, sequence: &[&str]) -> Vec<usize> {
        let matching = |at: &usize| sequence.iter().enumerate().all(|(offset, token)| self.token(at + offset) == *token);
        (0..self.tokens.len()).filter(matching).map(|at| self.tokens[at].0).collect()
    }

    /// Returns the line numbers at which the code names the path `name`, such as `a::b`, including the form `a::{…, b}`. If
    /// `name` is a single word, returns the line numbers of the word.
    fn names(&self, name: &str) -> Vec<usize> {
        let Some((module, item)) = name.split_once("::") else { return self.find(&[name]) };
        let mut lines = self.find(&[module, "::", item]);
        for at in 0..self.tokens.len() {
            if self.token(at) == module && self.token(at + 1) == "::" {
                lines.extend(self.group(at + 2).into_iter().filter(|(_, token)| *token == item).map(|(line, _)| line));
            }
        }
        lines
    }

    /// Returns the first segment of each path in the code, and the line number of the segment. The first segment of `x::y` and
    /// of `use x;` is `x`.
    fn roots(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.tokens.len()).filter_map(|at| {
            let before = at.checked_sub(1).map_or("", |before| self.token(before));
            let is_root = before != "::" && self.token(at + 1) == "::";
            let is_used = before == "use" && self.token(at + 1) != "::";
            (is_root || is_used).then(|| (self.tokens[at].0, self.token(at)))
        })
    }

    /// Returns each name that follows `crate::` or `depth` repetitions of `super::`, with its line number. The name can
    /// stand alone or in a braced group.
    fn crate_names(&self, depth: usize) -> Vec<(usize, &str)> {
        let mut names = Vec::new();
        for at in 0..self.tokens.len() {
            let from = if self.token(at) == "crate" && self.token(at + 1) == "::" {
                at + 2
            } else if (0..depth).all(|step| self.token(at + 2 * step) == "super" && self.token(at + 2 * step + 1) == "::") {
                at + 2 * depth
            } else {
                continue;
            };
            if self.token(from) == "{" {
                names.extend(self.group(from))
            } else {
                names.push((self.tokens[from].0, self.token(from)))
            }
        }
        names
    }

    /// Returns the first segment of each path in the braced import group that opens at the token index `open`. The result
    /// is empty if no group opens there.
    fn group(&self, open: usize) -> Vec<(usize, &str)> {
        let (mut members, mut depth) = (Vec::new(), 0);
        for at in open..self.tokens.len() {
            match self.token(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                word if depth == 1 && matches!(self.token(at - 1), "{" | ",") => members.push((self.tokens[at].0, word)),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        members
    }
}

/// Removes the tokens of each test module `#[cfg(test)] mod name { … }` and returns all other tokens.
fn without_test_modules(tokens: Vec<(usize, String)>) -> Vec<(usize, String)> {
    let head = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let (mut rest, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at..].iter().map(|(_, token)| token.as_str()).take(head.len()).eq(head) {
            let mut depth = 0;
            while at < tokens.len() {
                match tokens[at].1.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                let ends = matches!(tokens[at].1.as_str(), "}" | ";") && depth == 0;
                at += 1;
                if ends {
                    break;
                }
            }
        } else {
            rest.push(tokens[at].clone());
            at += 1;
        }
    }
    rest
}

/// Replaces comments, strings and character literals in Rust code with spaces. Line numbers do not change.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut plain = String::new();
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => end_of_line(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => end_of_comment(&chars, at),
            'r' if opens_raw(&chars, at) => end_of_raw(&chars, at),
            '"' => end_of_quoted(&chars, at, '"'),
            '\'' if chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => end_of_quoted(&chars, at, '\''),
            c => {
                plain.push(c);
                at += 1;
                continue;
            }
        };
        plain.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    plain
}

fn end_of_line(chars: &[char], from: usize) -> usize {
    chars[from..].iter().position(|c| *c == '\n').map_or(chars.len(), |length| from + length)
}

fn end_of_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// Returns true if the character at index `at` is the `r` of a raw string such as `r"…"` or `r#"…"#`. Returns false if the
/// `r` is part of a word such as `for`.
fn opens_raw(chars: &[char], at: usize) -> bool {
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') && chars[at - 1] != 'b';
    !in_word && chars[at + 1..].iter().find(|c| **c != '#') == Some(&'"')
}

fn end_of_raw(chars: &[char], from: usize) -> usize {
    let hashes = chars[from + 1..].iter().take_while(|c| **c == '#').count();
    let mut at = from + hashes + 2;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

fn end_of_quoted(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}
