//! Tests of forms, challenges, pings, retries and deliveries with two signatures. Each kind of delivery must increment
//! its own counter, and the records in Kafka must contain the signed bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::counters::{moved_by, one};
use crate::kafka::{self, Kafka, Record};
use crate::process::{Home, Process};
use crate::scheme::{ACME, GITHUB, Provider, SLACK, STRIPE, Scheme, Signed, now};

/// Name of a delivery, the signed delivery, and the expected outcome.
type Sent = (&'static str, Signed, &'static str);

/// Expected key, `ce_id` and `ce_type` of a Kafka record.
type RecordFacts = (&'static str, &'static str, &'static str);

#[test]
fn slack_events_commands_and_interactions_arrive_but_no_challenges() {
    let kafka = kafka::shared();
    let home = home(kafka, &SLACK, "variants-slack", &[("2026-11", SLACK.secret)]);
    let process = home.start();
    let mut slack = Provider::new(&SLACK);
    let mut sign = |body: &[u8], media_type: &str| slack.sign("", now(), body.to_vec()).with("Content-Type", media_type);
    let (event, command, interaction) = (sign(EVENT, JSON), sign(COMMAND, FORM), sign(INTERACTION, FORM));
    let (challenge, certificate_check) = (sign(CHALLENGE_BODY, JSON), sign(b"token=x&ssl_check=1", FORM));
    let late = sign(LATE, JSON).with("X-Slack-Retry-Num", "1").with("X-Slack-Retry-Reason", "connection_failed");
    let retry =
        slack.sign("", now() - 60, EVENT.to_vec()).with("X-Slack-Retry-Num", "2").with("X-Slack-Retry-Reason", "http_timeout");
    let forged = slack.sign_with(SLACK.wrong_secret, "", now(), CHALLENGE_BODY.to_vec());
    let [stale_command, stale_challenge] = [COMMAND, CHALLENGE_BODY].map(|body| slack.sign("", now() - 301, body.to_vec()));
    assert!(event.by == "@slack/bolt 5.1.0" && interaction.by == event.by && challenge.by == event.by);
    let unsigned = |delivery: &Signed| delivery.clone().without(SLACK.signature);
    let tampered = |delivery: &Signed| delivery.clone().map_body(|body| *body.last_mut().expect("not empty") ^= 1);
    let counted: [Sent; 20] = [
        ("the challenge for the URL", challenge.clone(), "challenge"),
        ("the same challenge again", challenge.clone(), "challenge"),
        ("the check of a command's certificate", unsigned(&certificate_check), "challenge"),
        ("the same check with a signature", certificate_check.clone(), "challenge"),
        ("the same check with another signature", tampered(&certificate_check), "signature_mismatch"),
        ("a challenge signed with another secret", forged, "signature_mismatch"),
        ("an unsigned challenge", unsigned(&challenge), "signature_missing"),
        ("a changed challenge", tampered(&challenge), "signature_mismatch"),
        ("a challenge of 301 s ago", stale_challenge, "timestamp_stale"),
        ("an event", event.clone(), "stored"),
        ("a retry, signed again", retry, "duplicate"),
        ("an event whose first attempt was lost", late, "stored"),
        ("a slash command", command.clone(), "stored"),
        ("a changed slash command", tampered(&command), "signature_mismatch"),
        ("an unsigned slash command", unsigned(&command), "signature_missing"),
        ("a slash command of 301 s ago", stale_command, "timestamp_stale"),
        ("a changed interaction", tampered(&interaction), "signature_mismatch"),
        ("an unsigned interaction", unsigned(&interaction), "signature_missing"),
        ("an interaction", interaction.clone(), "stored"),
        ("the same interaction", interaction.clone(), "duplicate"),
    ];
    for (what, delivery, outcome) in &counted {
        let (moved, answer) = moved_by(&home, &process, &delivery.request(&SLACK));
        assert_eq!(moved, one("slack", outcome), "{what}");
        let is_challenge = *outcome == "challenge" && delivery.body == CHALLENGE_BODY;
        assert_eq!(answer.body, if is_challenge { CHALLENGE_TEXT } else { b"" }, "{what}: Slack would show any other body");
        assert_eq!(answer.head.contains("content-type: text/plain\r\n"), is_challenge, "{what}");
        assert_eq!(answer.status, if ANSWERED.contains(outcome) { 200 } else { 401 }, "{what}");
    }

    let facts: [RecordFacts; 4] = [
        ("C1", "Ev1", "com.slack.app_mention"),
        ("C1", "Ev2", "com.slack.reaction_added"),
        ("C1", "398738663015.47445629121.803a", "com.slack./deploy"),
        ("C1", "12.34.ab", "com.slack.block_actions"),
    ];
    let records = assert_arrived(kafka, "variants-slack", &facts, &counted);
    let retry_headers =
        |record: &Record| record.headers.iter().filter(|(name, _)| name.starts_with("http-x-slack-retry-")).count();
    assert_eq!(records.iter().map(retry_headers).collect::<Vec<_>>(), [0, 2, 0, 0]);
    assert_eq!(records[1].header("http-x-slack-retry-reason"), "connection_failed");
    assert_eq!(records[2].header("content-type"), FORM);
    assert_journal(&home, &process, 4);
}

#[test]
fn hookhold_signs_slack_samples_of_every_kind() {
    let kafka = kafka::shared();
    let home = home(kafka, &SLACK, "variants-samples", &[("2026-11", SLACK.secret)]);
    for (name, body) in [("challenge", CHALLENGE_BODY), ("command", COMMAND)] {
        home.put(name, body);
    }
    let process = home.start();
    let cases: [(&[&str], &str); 6] = [
        (&[], "stored"),
        (&["--body", "challenge"], "challenge"),
        (&["--body", "challenge", "--tamper", "secret"], "signature_mismatch"),
        (&["--body", "command"], "stored"),
        (&["--body", "command", "--tamper", "stale"], "timestamp_stale"),
        (&["--tamper", "missing"], "signature_missing"),
    ];
    for (args, outcome) in cases {
        let before = process.deliveries()[&("slack".to_owned(), outcome.to_owned())];
        let sent = home.verb(&[&["send", "slack"], args].concat());
        assert_eq!(sent.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&sent.stdout));
        assert_eq!(process.deliveries()[&("slack".to_owned(), outcome.to_owned())], before + 1, "{args:?}");
    }
    let records = kafka.wait_for_records("variants-samples", 2);
    assert_eq!(records.iter().map(|record| record.header("content-type")).collect::<Vec<_>>(), [JSON, FORM]);
    assert_journal(&home, &process, 2);
}

#[test]
fn github_forms_and_pings_arrive_under_their_delivery_id() {
    let kafka = kafka::shared();
    let home = home(kafka, &GITHUB, "variants-github", &[("2026-11", GITHUB.secret)]);
    let process = home.start();
    let mut github = Provider::new(&GITHUB);
    let mut sign =
        |id: &str, body: &[u8], media_type: &str| github.sign(id, now(), body.to_vec()).with("Content-Type", media_type);
    let ping = |delivery: Signed| delivery.without("X-GitHub-Event").with("X-GitHub-Event", "ping");
    let form = sign("d-1", PULL_REQUEST, FORM);
    assert_eq!(form.by, "@octokit/webhooks-methods 6.0.0");
    // The signature covers the form, not the JSON inside the form.
    let decoded = Signed { body: form_payload(&form.body), ..form.clone() };
    let sent: [Sent; 6] = [
        ("a ping", ping(sign("d-0", PING, JSON)), "stored"),
        ("a form", form.clone(), "stored"),
        ("the same form again", form.clone(), "duplicate"),
        ("the JSON inside the form", decoded, "signature_mismatch"),
        ("the form with another byte", form.map_body(|body| body.push(b'&')), "signature_mismatch"),
        ("a ping as a form", ping(sign("d-2", PING_FORM, FORM)), "stored"),
    ];
    assert_counted(&home, &process, &GITHUB, &sent);
    let facts: [RecordFacts; 3] = [
        ("1296269", "d-0", "com.github.ping"),
        ("1296269", "d-1", "com.github.pull_request.opened"),
        ("1296269", "d-2", "com.github.ping"),
    ];
    assert_arrived(kafka, "variants-github", &facts, &sent);
}

#[test]
fn stripe_rotated_connected_and_thin_events_all_arrive() {
    let kafka = kafka::shared();
    let home = home(kafka, &STRIPE, "variants-stripe", &[("2026-11", STRIPE.secret), ("2026-05", STRIPE.wrong_secret)]);
    let process = home.start();
    let mut stripe = Provider::new(&STRIPE);
    let mut by = |secrets: &[&str], id: &str| both(&mut stripe, secrets, STRIPE.body(id, b"").as_slice());
    let (new, old, unknown) = (STRIPE.secret, STRIPE.wrong_secret, "whsec_unknown");
    let rotated = by(&[new, old], "evt_both");
    assert_eq!((rotated.headers[0].1.matches(",v1=").count(), &*rotated.by), (2, "stripe 23.1.0"));
    let rotation: [Sent; 6] = [
        ("both secrets sign, the new one first", rotated.clone(), "stored"),
        ("the old one first", by(&[old, new], "evt_both"), "duplicate"),
        ("the old one and an unknown one", by(&[unknown, old], "evt_old"), "stored"),
        ("two unknown ones", by(&[unknown, "whsec_none"], "evt_none"), "signature_mismatch"),
        ("both, with another body", rotated.map_body(|body| body.push(b' ')), "signature_mismatch"),
        ("the new one", by(&[new], "evt_new"), "stored"),
    ];
    assert_counted(&home, &process, &STRIPE, &rotation);
    let kinds: [Sent; 3] = [
        ("an event of a connected account", both(&mut stripe, &[new], CONNECT), "stored"),
        ("a thin event", both(&mut stripe, &[new], THIN), "stored"),
        ("a thin event without an object", both(&mut stripe, &[new], THIN_ALONE), "stored"),
    ];
    assert_counted(&home, &process, &STRIPE, &kinds);

    let facts: [RecordFacts; 6] = [
        ("in_1", "evt_both", "com.stripe.invoice.paid"),
        ("in_1", "evt_old", "com.stripe.invoice.paid"),
        ("in_1", "evt_new", "com.stripe.invoice.paid"),
        ("po_1", "evt_connect", "com.stripe.payout.paid"),
        ("mtr_test_61R", "evt_test_65R", "com.stripe.v1.billing.meter.error_report_triggered"),
        ("evt_test_66R", "evt_test_66R", "com.stripe.v2.core.health.event_generation_failure.resolved"),
    ];
    let sent: Vec<Sent> = rotation.into_iter().chain(kinds).collect();
    let records = assert_arrived(kafka, "variants-stripe", &facts, &sent);
    let auth: Vec<_> = records.iter().map(|record| record.header("hookhold-auth")["mac-sha256:".len()..].to_owned()).collect();
    assert_eq!(auth, ["2026-11", "2026-05", "2026-11", "2026-11", "2026-11", "2026-11"]);
    assert_eq!(records[4].header("ce_time"), "2024-09-17T06:20:52.246Z");
    for (secret, count) in [("2026-11", 6.0), ("2026-05", 1.0)] {
        let series = format!("hookhold_verified_total{{secret={secret:?},source=\"stripe\"}}");
        assert_eq!(process.metric(&series), Some(count), "{secret}: the duplicate counts for the new one");
    }
}

#[test]
fn an_inline_recipe_answers_only_its_unsigned_challenge() {
    let kafka = kafka::shared();
    kafka.create_topic("variants-inline", 1, &[]);
    let challenge = r#"challenge = [{ when = { "form:challenge" = true }, authenticated = false, reply = { status = 202, content_type = "text/plain", body = ["const:here: ", "echo(form:challenge)"] } }]"#;
    let home = ACME.home(kafka, "variants-inline", challenge);
    let process = home.start();
    let unsigned = |body: &[u8]| Signed { headers: Vec::new(), body: body.to_vec(), by: "unsigned".to_owned() };
    let marker = Provider::new(&ACME).sign("marker", now(), ACME.body("marker", b""));
    let sent: [(Signed, u16, &[u8], &str); 4] = [
        (unsigned(b"challenge=c+1%21"), 202, b"here: c 1!", "challenge"),
        (unsigned(&marker.body), 401, b"", "signature_missing"),
        (unsigned(b""), 401, b"", "signature_missing"),
        (marker.clone(), 202, b"[accepted]", "stored"),
    ];
    for (delivery, status, body, outcome) in sent {
        let (moved, answer) = moved_by(&home, &process, &delivery.request(&ACME));
        assert_eq!((moved, answer.status, &*answer.body), (one("acme", outcome), status, body));
    }
    assert_eq!(kafka.wait_for_records("variants-inline", 1)[0].value.as_ref(), Some(&marker.body));
    assert_journal(&home, &process, 1);
}

/// Creates `topic`, and returns a `Home` with one source that forwards to `topic`. Each entry of `secrets` is the name and the
/// text of a secret.
fn home(kafka: &Kafka, scheme: &Scheme, topic: &str, secrets: &[(&str, &str)]) -> Home {
    kafka.create_topic(topic, 1, &[]);
    let Scheme { name, recipe, .. } = scheme;
    let list: Vec<String> = secrets.iter().map(|(name, _)| format!("\"file:{name}\"")).collect();
    let source = format!("[sources.{name}]\n{recipe}\nsecrets = [{}]\ntopic = \"{topic}\"\n", list.join(", "));
    let kafka = format!("[kafka]\nbootstrap.servers = \"{}\"\n", kafka.bootstrap());
    Home::new(secrets, &format!("server.drain_delay = \"0s\"\n{kafka}{source}"))
}

fn assert_counted(home: &Home, process: &Process<'_>, scheme: &Scheme, sent: &[Sent]) {
    for (what, delivery, outcome) in sent {
        let (moved, answer) = moved_by(home, process, &delivery.request(scheme));
        assert_eq!(moved, one(scheme.name, outcome), "{what}");
        assert_eq!((answer.status, &*answer.body), (if ANSWERED.contains(outcome) { 200 } else { 401 }, &b""[..]), "{what}");
    }
}

/// Asserts that the topic contains exactly the bodies of the stored deliveries, byte for byte and in order, and that the
/// records agree with `facts`. Returns the records.
fn assert_arrived(kafka: &Kafka, topic: &str, facts: &[RecordFacts], sent: &[Sent]) -> Vec<Record> {
    let records = kafka.wait_for_records(topic, facts.len());
    let stored = sent.iter().filter(|(.., outcome)| *outcome == "stored");
    let bodies: Vec<_> = stored.map(|(_, delivery, _)| Some(&*delivery.body)).collect();
    assert_eq!(records.iter().map(|record| record.value.as_deref()).collect::<Vec<_>>(), bodies);
    for (record, (key, id, kind)) in records.iter().zip(facts) {
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()), "{kind}");
        assert_eq!((record.header("ce_id"), record.header("ce_type")), (*id, *kind));
    }
    records
}

/// Asserts that the journal contains exactly `count` events and that none of them is an endpoint challenge.
fn assert_journal(home: &Home, process: &Process<'_>, count: usize) {
    assert_eq!(process.metric("hookhold_journal_events"), Some(count as f64));
    let tail = String::from_utf8(home.verb(&["tail", "--format", "json"]).stdout).expect("JSON is text");
    assert_eq!(tail.lines().count(), count, "{tail}");
    assert!(!tail.contains(&STANDARD.encode(CHALLENGE_BODY)), "{tail}");
}

/// Signs a body with each secret and puts all signatures into one header, as Stripe does during the rotation of a secret.
fn both(stripe: &mut Provider, secrets: &[&str], body: &[u8]) -> Signed {
    let at = now();
    let mut each = secrets.iter().map(|secret| stripe.sign_with(secret, "", at, body.to_vec()));
    let mut signed = each.next().expect("at least one secret");
    for other in each {
        let (_, code) = other.headers[0].1.split_once(",v1=").expect("the SDK makes t=…,v1=…");
        signed.headers[0].1 += &format!(",v1={code}");
    }
    signed
}

/// Returns the JSON text in the form field `payload`.
fn form_payload(form: &[u8]) -> Vec<u8> {
    let (_, payload) = form_urlencoded::parse(form).find(|(name, _)| name == "payload").expect("GitHub's form has it");
    payload.into_owned().into_bytes()
}

const ANSWERED: [&str; 3] = ["stored", "duplicate", "challenge"];
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const CHALLENGE_TEXT: &[u8] = b"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
const CHALLENGE_BODY: &[u8] = br#"{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
const EVENT: &[u8] = br#"{"team_id":"T1","event":{"type":"app_mention","text":"<@U2> caf\u00e9 &trigger_id=1 ","channel":"C1"},"type":"event_callback","event_id":"Ev1","event_time":1700000000}"#;
const LATE: &[u8] = br#"{"team_id":"T1","event":{"type":"reaction_added","item":{"type":"message","channel":"C1"}},"type":"event_callback","event_id":"Ev2","event_time":1700000001}"#;
const COMMAND: &[u8] = b"token=x&team_id=T1&channel_id=C1&user_id=U1&command=%2Fdeploy&text=caf%C3%A9+%26+co&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2F1&trigger_id=398738663015.47445629121.803a";
const INTERACTION: &[u8] = b"payload=%7B%22type%22%3A%22block_actions%22%2C%22team%22%3A%7B%22id%22%3A%22T1%22%7D%2C%22trigger_id%22%3A%2212.34.ab%22%2C%22channel%22%3A%7B%22id%22%3A%22C1%22%7D%2C%22text%22%3A%22a%2Bb+c%5Cu00e9%22%7D";
const PULL_REQUEST: &[u8] = b"payload=%7B%22action%22%3A%22opened%22%2C%22number%22%3A7%2C%22repository%22%3A%7B%22id%22%3A1296269%7D%2C%22title%22%3A%22caf%C3%A9+%26+%2B%22%7D";
const PING: &[u8] =
    br#"{"zen":"Design for failure.","hook_id":1,"hook":{"type":"Repository","id":1},"repository":{"id":1296269}}"#;
const PING_FORM: &[u8] =
    b"payload=%7B%22zen%22%3A%22Design+for+failure.%22%2C%22hook_id%22%3A1%2C%22repository%22%3A%7B%22id%22%3A1296269%7D%7D";
const CONNECT: &[u8] = br#"{"id":"evt_connect","object":"event","account":"acct_1","type":"payout.paid","created":1700000000,"data":{"object":{"id":"po_1"}}}"#;
const THIN: &[u8] = br#"{"id":"evt_test_65R","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered","created":"2024-09-17T06:20:52.246Z","related_object":{"id":"mtr_test_61R","type":"billing.meter","url":"/v1/billing/meters/mtr_test_61R"}}"#;
const THIN_ALONE: &[u8] = br#"{"id":"evt_test_66R","object":"v2.core.event","type":"v2.core.health.event_generation_failure.resolved","created":"2024-09-17T06:20:52.246Z","related_object":null}"#;
