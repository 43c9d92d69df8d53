//! Tests that `hookhold tail` and `hookhold journal` can read a journal while another process writes to it, and after that
//! process has stopped cleanly. Tests the options with which `tail` selects events, and its lines on a terminal.

#[path = "common/journal_home.rs"]
mod journal_home;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/pty.rs"]
mod pty;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hookhold::clock::SystemClock;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Environment, Journal, Options, ReadOnlyJournal, SystemRandom, WriterStep};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;
use journal_home::{AT, Harness, WallClock, flip_a_bit_inside, text};
use pty::Screen;
use serde_json::Value;

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["id"].as_str().unwrap()).collect()
}

#[test]
fn tail_reads_an_open_and_a_closed_journal() {
    let harness = Harness::new();
    let journal = harness.open();
    let stored: Vec<u64> = (0..30)
        .map(|n| harness.append(&journal, if n % 10 == 0 { "github" } else { "stripe" }, &format!("id_{n}"), AT))
        .collect();
    for closed in [false, true] {
        if closed {
            journal.close();
        }
        assert_eq!(ids(&harness.lines(&["tail", "--last", "2"])), ["id_28", "id_29"]);
        assert_eq!(harness.lines(&["tail"]).len(), 10);
        assert_eq!(harness.lines(&["tail", "--from", "0"]).len(), 30);
        assert_eq!(harness.lines(&["tail", "--from", &stored[27].to_string()]).len(), 3);
        assert_eq!(ids(&harness.lines(&["tail", "--source", "github", "--last", "2"])), ["id_10", "id_20"]);
        assert_eq!(ids(&harness.lines(&["tail", "--source", "github", "--last", "9"])), ["id_0", "id_10", "id_20"]);
        assert!(harness.lines(&["tail", "--source", "unknown"]).is_empty());
        assert!(harness.lines(&["tail", "--from", "999999"]).is_empty());
    }
}

#[test]
fn a_json_line_has_all_documented_keys() {
    let harness = Harness::new();
    let journal = harness.open();
    let seq = harness.append(&journal, "github", "0e9f", AT);
    let lines = harness.lines(&["tail"]);
    let keys: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
    let mut expected = ["seq", "source", "account", "id", "type", "key", "received_at", "content_type", "topic", "body_base64"];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(lines[0]["seq"], seq);
    assert_eq!(lines[0]["received_at"], "2026-11-21T07:08:13.042Z");
    assert_eq!(lines[0]["topic"], "webhooks.github");
    assert_eq!(lines[0]["content_type"], "application/json");
    journal.close();
}

#[test]
fn tail_shows_the_account_of_an_event_with_a_reused_id() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.append(&journal, "stripe", "1017", AT);
    harness.append_event(&journal, &harness.event("stripe", "1017", AT).with_account("a\u{1b}[31m#b".into()));
    journal.close();
    let lines = harness.lines(&["tail"]);
    assert_eq!(lines.iter().map(|line| &line["account"]).collect::<Vec<_>>(), [&Value::Null, &"a\u{1b}[31m#b".into()]);
    assert_eq!(lines.iter().map(|line| &line["source"]).collect::<Vec<_>>(), ["stripe", "stripe"]);
    let shown = text(&harness.command(&["tail"]).output().unwrap().stdout);
    let sources: Vec<&str> = shown.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(sources, ["stripe", "stripe/a\\u{1b}[31m#b"]);
}

#[test]
fn tail_follow_prints_new_events_until_stdout_closes() {
    let harness = Harness::new();
    let journal = harness.open();
    let mut child =
        harness.command(&["tail", "--follow", "--format", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    for id in ["first", "second"] {
        harness.append(&journal, "stripe", id, AT);
        let mut line = String::new();
        shown.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"id\":\"{id}\"")), "{line}");
    }
    drop(shown);
    harness.append(&journal, "stripe", "third", AT);
    let output: Output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn each_option_selects_its_events() {
    let harness = Harness::new();
    let clock = Arc::new(WallClock(AT.into()));
    let journal = harness.open_with(clock.clone());
    let day = 24 * 60 * 60 * 1000;
    for (number, event_type) in ["invoice.paid", "invoice.voided", "customer.created"].into_iter().cycle().take(12).enumerate() {
        harness.append_event(&journal, &harness.event_of_type("stripe", &format!("id_{number}"), event_type));
    }
    harness.append(&journal, "github", "id_0", AT);
    clock.0.fetch_add(day, Ordering::SeqCst);
    harness.append(&journal, "stripe", "late", AT + day);
    let found = |args: &[&str]| -> Vec<String> {
        let lines = harness.lines(&[&["tail"], args].concat());
        ids(&lines).into_iter().map(str::to_owned).collect()
    };
    for closed in [false, true] {
        if closed {
            journal.close();
        }
        assert_eq!(found(&[]).len(), 10, "a bare tail shows the latest events");
        assert_eq!(found(&["--type", "customer.created"]), ["id_2", "id_5", "id_8", "id_11"]);
        assert_eq!(found(&["--type", "invoice.*", "--last", "2"]), ["id_10", "late"]);
        assert_eq!(found(&["--type", "*"]).len(), 14);
        assert!(found(&["--type", "invoice"]).is_empty());
        assert_eq!(found(&["--id", "id_0"]), ["id_0", "id_0"]);
        assert_eq!(found(&["--id", "id_0", "--source", "github"]), ["id_0"]);
        assert_eq!(found(&["--topic", "webhooks.github"]), ["id_0"]);
        assert!(found(&["--topic", "webhooks"]).is_empty());
        assert_eq!(found(&["--source", "stripe"]).len(), 13, "an option that selects shows all events");
        assert_eq!(found(&["--since", "2026-11-22"]), ["late"]);
        assert_eq!(found(&["--until", "2026-11-21"]).len(), 13);
        assert_eq!(found(&["--since", "2026-11-21T07:08:13.043Z", "--until", "2026-11-22T07:08:13.041Z"]).len(), 0);
        assert_eq!(found(&["--since", "2026-11-21T07:08:13.042Z", "--until", "2026-11-22T07:08:13.042Z"]).len(), 14);
        assert_eq!(found(&["--until", "2026-11-21", "--last", "1"]), ["id_0"]);
        assert_eq!(found(&["--since", "2026-11-21", "--from", "12"]), ["id_0", "late"]);
    }
    for wrong in [["--type", "in*voice"], ["--type", ""], ["--since", "soon"]] {
        let output = harness.command(&[&["tail"], &wrong[..]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output.stderr));
    }
}

#[test]
fn tail_prints_bodies_below_their_lines() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.append_event(&journal, &harness.event_with_body("github", "1", br#"{"amount":12345678901234567890.10,"ok":true}"#));
    harness.append_event(&journal, &harness.event_with_body("github", "2", "x".repeat(100_000).as_bytes()));
    journal.close();
    let shown = text(&harness.command(&["tail", "--body"]).output().unwrap().stdout);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1..5], ["    {", "      \"amount\": 12345678901234567890.10,", "      \"ok\": true", "    }"], "{shown}");
    assert!(
        lines[7].starts_with("    … ") && lines[7].ends_with(" more bytes; `hookhold inspect 1 --body` prints the exact bytes")
    );
    assert_eq!(lines.len(), 8, "{shown}");
}

#[test]
fn tail_follow_prints_only_selected_events_until_the_end_of_the_period() {
    let harness = Harness::new();
    let journal = harness.open_with(Arc::new(WallClock(AT.into())));
    harness.append(&journal, "github", "before", AT);
    let args = ["tail", "--follow", "--source", "stripe", "--type", "invoice.*", "--format", "json"];
    let mut child = harness.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    for id in ["first", "second"] {
        harness.append(&journal, "github", "another", AT);
        harness.append_event(&journal, &harness.event_of_type("stripe", "another", "customer.created"));
        harness.append_event(&journal, &harness.event_of_type("stripe", id, "invoice.paid"));
        let mut line = String::new();
        shown.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"id\":\"{id}\"")), "{line}");
    }
    drop(shown);
    harness.append_event(&journal, &harness.event_of_type("stripe", "third", "invoice.paid"));
    assert_eq!(child.wait().unwrap().code(), Some(0), "tail ends when its output closes");
    // The period has ended, so the command does not wait.
    let ended = harness.lines(&["tail", "--follow", "--since", "2026-11-21", "--until", "2026-11-21", "--type", "invoice.*"]);
    assert_eq!(ids(&ended), ["first", "second", "third"]);
    journal.close();
}

/// A line that wraps would take two rows of the screen.
#[test]
fn no_line_wraps_on_a_terminal_of_80_columns() {
    let mut harness = Harness::new();
    let secret = harness.dir.path().join("secret");
    let entry =
        format!("[sources.a-source-with-a-rather-long-name]\nprovider = \"stripe\"\nsecrets = [\"file:{}\"]\n", secret.display());
    harness.configure(&entry);
    let journal = harness.open();
    let sources = ["stripe", "github", "a-source-with-a-rather-long-name"];
    let found =
        ["evt_1", "evt_1NG8Du2eZvKYlo2CUI79vXWy", "\u{4f1a}\u{8b70}-\u{e9}-id", "0e9f0b50-8d12-11f0-9a4b-4f1c2d3e4f5a-0e9f0b50"];
    let mut count = 0;
    for source in sources {
        for id in found {
            harness.append_event(&journal, &harness.event_of_type(source, id, "customer.subscription.trial_will_end"));
            count += 1;
        }
    }
    journal.close();
    for columns in [80, 100, 140] {
        let mut screen = Screen::run(&["tail", "--from", "0"], Some(harness.dir.path()), columns, &[]);
        assert_eq!(screen.wait(), 0);
        screen.wait_for(&format!("\u{20}{}  ", count - 1));
        let shown = screen.text();
        let rows: Vec<&str> = shown.trim_end().lines().collect();
        assert_eq!(rows.len(), count, "{columns} columns:\n{shown}");
        for (number, row) in rows.iter().enumerate() {
            assert!(row.trim_start().starts_with(&format!("{number}  ")), "{columns} columns:\n{shown}");
        }
        assert!(rows[1].contains("stripe") && rows[0].contains("  evt_1  "), "{columns} columns:\n{shown}");
        assert_eq!(rows[0].contains('…'), columns < 100, "{columns} columns:\n{shown}");
    }
    let complete = text(&harness.command(&["tail", "--from", "0"]).output().unwrap().stdout);
    assert!(!complete.contains(['…', '\u{1b}']) && complete.contains(&format!("  {}  ", found[3])), "{complete}");
}

#[test]
fn colours_appear_only_on_a_terminal_that_wants_them() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.append(&journal, "stripe", "evt_1", AT);
    journal.close();
    for (variables, is_styled) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let mut screen = Screen::run(&["tail"], Some(harness.dir.path()), 140, variables);
        assert_eq!(screen.wait(), 0);
        screen.wait_for("evt_1");
        assert_eq!(screen.is_bold("invoice.paid"), is_styled, "{variables:?}");
    }
}

#[test]
fn journal_stat_counts_and_verify_finds_flipped_bits() {
    let harness = Harness::new();
    let journal = harness.open();
    for n in 0..20 {
        harness.append(&journal, "stripe", &format!("id_{n}"), AT);
    }
    assert_eq!(harness.lines(&["journal", "stat"])[0]["in_use"], true);
    journal.save_cursor("webhooks.stripe", 15, 1);
    journal.close();
    drop(journal);
    let stat = &harness.lines(&["journal", "stat"])[0];
    assert_eq!((&stat["in_use"], &stat["events"], &stat["next"]), (&false.into(), &20.into(), &20.into()));
    assert_eq!((&stat["lanes"][0]["cursor"], &stat["lanes"][0]["waiting"]), (&15.into(), &5.into()));
    let report = &harness.lines(&["journal", "verify"])[0];
    assert_eq!((&report["events"], report["damage"].as_array().unwrap().len()), (&20.into(), 0));

    flip_a_bit_inside("id_7", &harness.segments());
    let found = harness.command(&["journal", "verify"]).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", text(&found.stdout));
    assert!(text(&found.stdout).starts_with("damaged: "), "{}", text(&found.stdout));
    assert_eq!(harness.lines(&["tail", "--from", "0"]).len(), 19, "only the damaged event is lost");
}

/// The usual limit of open files is lower than the number of segments of a large journal.
#[test]
fn reading_a_journal_needs_few_open_files() {
    let harness = Harness::new();
    let disk = Arc::new(LocalDisk::create(&harness.config.journal.dir).unwrap());
    let limits = JournalLimits { segment_size: 64 << 10, ..JournalLimits::default() };
    let environment =
        Environment { disk, clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), metrics: Arc::new(Metrics::new()) };
    let (journal, mut writer, mut background) =
        Journal::open_in_steps(environment, Options { limits, ..Options::default() }).unwrap();
    for number in 0..800 {
        let event = harness.event("stripe", &format!("id_{number}"), AT);
        journal.append(&event, Box::new(|result| assert!(result.is_ok()))).unwrap();
        while writer.step() != WriterStep::Idle || background.step() {}
    }
    journal.close();
    while writer.step() != WriterStep::Ended {}
    drop((journal, writer, background));
    let names: Vec<String> = std::fs::read_dir(&harness.config.journal.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for extension in [".seg", ".keys"] {
        let count = names.iter().filter(|name| name.ends_with(extension)).count();
        assert!(count > 45, "{count} files with the extension {extension}");
    }
    let limited = |verb: &str| {
        let script = format!("ulimit -n 40; exec {} {verb} --format json", env!("CARGO_BIN_EXE_hookhold"));
        let output = Command::new("sh").args(["-c", &script]).current_dir(harness.dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{verb}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(limited("journal stat").contains("\"events\":800,"));
    assert!(limited("journal verify").contains("\"events\":800,"));
    assert_eq!(limited("tail --from 0").lines().count(), 800);
    assert_eq!(limited("tail").lines().count(), 10);
}

/// Checks that a commit and a close save the cursors that have moved. After a crash, the gateway starts at the last saved cursor and
/// can therefore forward events twice. Frequent saves limit the number of such duplicates. Saving a cursor in a commit requires
/// no additional sync.
#[test]
fn a_moved_cursor_is_saved_by_the_next_commit() {
    let harness = Harness::new();
    let journal = harness.open();
    let reader = ReadOnlyJournal::open(Arc::new(LocalDisk::existing(&harness.config.journal.dir).unwrap())).unwrap();
    harness.append(&journal, "stripe", "before", AT);
    journal.save_cursor("webhooks.stripe", 1, 1);
    harness.append(&journal, "stripe", "after", AT);
    assert_eq!(reader.stat().unwrap().topics[0].cursor, Some(1));
    // At most 20 commits a second save cursors. The last commit always does.
    journal.save_cursor("webhooks.stripe", 2, 1);
    journal.close();
    assert_eq!(reader.stat().unwrap().topics[0].cursor, Some(2));
}

#[test]
fn reading_the_journal_needs_no_secret() {
    let harness = Harness::new();
    let missing = harness.command(&["tail"]).output().unwrap();
    assert_eq!((missing.status.code(), text(&missing.stderr).lines().count()), (Some(1), 1));
    harness.open().close();
    std::fs::remove_file(harness.dir.path().join("secret")).unwrap();
    assert!(harness.lines(&["tail"]).is_empty());
    assert_eq!(harness.command(&["check"]).output().unwrap().status.code(), Some(2));
}
