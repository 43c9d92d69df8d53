//! Tests that `hookhold tail` and `hookhold journal` can read a journal while another process writes to it, and after that
//! process has stopped cleanly.

#[path = "common/journal_home.rs"]
mod journal_home;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use hookhold::clock::SystemClock;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Environment, Journal, Options, ReadOnlyJournal, SystemRandom, WriterStep};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;
use journal_home::{AT, Harness, flip_a_bit_inside, text};
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
