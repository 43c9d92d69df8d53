//! Tests what the commands do with a terminal: colours and their absence with `NO_COLOR`, the lines about accepted deliveries, and
//! pipes that the reader closes.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/pty.rs"]
mod pty;

use process::Home;
use pty::Screen;

const CONFIG: &str =
    "server.drain_delay = \"0s\"\nsources.stripe.provider = \"stripe\"\nsources.stripe.secrets = [\"file:stripe\"]\n";
const COLUMNS: u16 = 100;

fn home() -> Home {
    Home::new(&[("stripe", "whsec_c2VjcmV0IG51bWJlciBvbmU=")], CONFIG)
}

/// Runs a command on a terminal in the directory of this `Home`.
fn on_terminal(home: &Home, args: &[&str], variables: &[(&str, &str)]) -> Screen {
    Screen::run(args, home.journal().parent(), COLUMNS, variables)
}

fn send(home: &Home, args: &[&str]) {
    let output = home.verb(&[&["send", "stripe"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn on_a_terminal_run_shows_a_line_for_each_accepted_delivery() {
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let home = home();
        let mut screen = on_terminal(&home, &["run"], variables);
        screen.wait_for("listening for deliveries");
        send(&home, &["--type", "invoice.paid"]);
        screen.wait_for("accepted source=\"stripe\" outcome=\"stored\" status=200 type=\"invoice.paid\" id=\"evt_");
        assert_eq!(screen.is_coloured("INFO"), is_coloured, "{}", screen.text());
        screen.press("\u{3}");
        assert_eq!(screen.wait(), 0);
    }
}

#[test]
fn status_has_colours_only_on_a_terminal_and_without_no_color() {
    let home = home();
    let _process = home.start();
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let mut screen = on_terminal(&home, &["status"], variables);
        assert_eq!(screen.wait(), 0);
        screen.wait_for("stuck     nothing");
        assert_eq!(screen.is_coloured("nothing"), is_coloured, "{}", screen.text());
    }
    assert!(!home.verb(&["status"]).stdout.contains(&0x1b));
}

#[test]
fn no_command_writes_escape_sequences_to_a_pipe() {
    let home = home();
    let _process = home.start();
    send(&home, &["--count", "2"]);
    send(&home, &["--tamper", "body"]);
    let commands: &[&[&str]] = &[
        &["--help"],
        &["status"],
        &["tail"],
        &["tail", "--body"],
        &["inspect", "0"],
        &["rejections"],
        &["doctor", "stripe"],
        &["check"],
        &["providers"],
        &["providers", "stripe"],
        &["journal", "stat"],
        &["journal", "verify"],
        &["parked", "list"],
        &["send", "stripe"],
        &["check", "--diff"],
        &["no-such-command"],
    ];
    for args in commands {
        let output = home.verb(args);
        assert!(![output.stdout, output.stderr].concat().contains(&0x1b), "{args:?}");
    }
    assert!(!home.log().contains('\u{1b}'));
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let home = home();
    let _process = home.start();
    send(&home, &["--count", "300", "--connections", "4"]);
    send(&home, &["--tamper", "body"]);
    home.settle_rejections();
    for command in [
        "--help",
        "status",
        "tail --last 300 --body",
        "tail --from 0 --format json",
        "inspect 0",
        "rejections --each",
        "doctor stripe",
        "check",
        "check --format json",
        "providers",
        "providers stripe",
        "journal stat",
        "journal verify",
        "completions bash",
        "status --watch --interval 100ms",
        "tail --follow --from 0",
    ] {
        // The reader has ended before the command writes.
        let shell = format!("set -o pipefail; {{ hookhold {command}; echo \"exit code $?\" >&2; }} | true");
        let output = home.shell(&shell).output().expect("a shell");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(["exit code 0\n", "exit code 1\n"].contains(&&*errors), "{command}: {errors}");
    }
}

#[test]
fn watch_redraws_the_screen_in_place() {
    let home = home();
    let _process = home.start();
    let mut screen = on_terminal(&home, &["status", "--watch", "--interval", "100ms"], &[]);
    screen.wait_for("stored    0 events");
    send(&home, &["--count", "2"]);
    screen.wait_for("stored    2 events");
    assert_eq!(screen.text().matches("lost      nothing").count(), 1, "{}", screen.text());
    screen.press("\u{3}");
    screen.wait();
}
