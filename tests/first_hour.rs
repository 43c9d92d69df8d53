//! Runs the commands of docs/first-hour.md as a test. The test joins the `sh` blocks of the page into one script. The script
//! uses ports and a directory of the test instead of those on the page.

use std::fs;
use std::path::Path;
use std::process::Command;

#[path = "common/ports.rs"]
mod ports;

#[test]
fn the_first_hour_brings_an_own_event_into_kafka() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/first-hour.md")).unwrap();
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 9, "found only {} blocks", blocks.len());

    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_hookhold")).parent().unwrap();
    let (bin, here) = (bin.display().to_string(), dir.path().display().to_string());
    let reserved = [(); 4].map(|()| ports::reserve());
    let [hooks, admin, kafka, controller] = [0, 1, 2, 3].map(|port: usize| reserved[port].0.to_string());
    let ports = format!("sed -i 's/0.0.0.0:8080/{hooks}/; s/127.0.0.1:9464/{admin}/' hookhold.toml\n{SECRET}");
    let script = [
        ("cargo build --locked\n", ""), // already built
        ("$PWD/target/debug", &bin),
        ("target/first-hour", &here),
        (SECRET, &ports),
        ("127.0.0.1:9092", &kafka),
        ("127.0.0.1:9093", &controller),
    ]
    .iter()
    .fold(blocks.concat(), |script, (from, to)| replaced(&script, from, to));
    // Kills the background processes even if the script fails.
    let script = format!("set -euo pipefail\ntrap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n{script}");
    let run = Command::new("bash").arg("-c").arg(&script).current_dir(root).env_remove("HOOKHOLD_LOG").output().unwrap();

    let (output, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let logs = ["hookhold.log", "kafka.log"].map(|log| fs::read_to_string(dir.path().join(log)).unwrap_or_default());
    assert!(run.status.success(), "{output}\n{errors}\n{}", logs.join("\n"));
    assert!(
        output.contains("stripe: the gateway rejects the delivery as signature_mismatch") && output.contains("remedy: "),
        "doctor explains the rejection: {output}"
    );
    let record = output.lines().find(|line| line.contains("ce_source:/hooks/stripe")).expect("the consumer printed the record");
    assert!(record.contains("ce_id:evt_my_first") && record.contains("ce_type:com.stripe.invoice.paid"), "{record}");
    assert!(
        record.ends_with("{\"id\":\"in_1\",\"customer\":\"cus_42\",\"amount_paid\":1999}}}"),
        "the body is unchanged: {record}"
    );
    assert!(output.contains("webhooks.stripe/0@0"), "inspect shows the place of the record: {output}");
    assert!(output.contains("stuck     nothing"), "{output}");
    assert!(output.contains("sent 1 of 1 events"), "{output}");
    assert!(output.contains("replayed      to webhooks.stripe.retry, until "), "inspect shows the replay: {output}");
}

/// Replaces the string `from` in `script` with `to`. Panics if `script` does not contain `from`.
fn replaced(script: &str, from: &str, to: &str) -> String {
    assert!(script.contains(from), "the page no longer contains {from:?}");
    script.replace(from, to)
}

/// Start of the line in docs/first-hour.md that sets the secret. Before this line, the test inserts a command that replaces the
/// ports in the configuration file. At this point, `hookhold init` has already written the file.
const SECRET: &str = "export STRIPE_WEBHOOK_SECRET=";
