//! The same over real sockets: copies under way at the same time, and senders that hang up.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::disk::Step;
use crate::harness::Harness;

fn serving() -> Harness {
    let mut harness = Harness::new();
    harness.serve();
    harness
}

/// Sends a whole request, and comes back once the gateway has believed it.
async fn sends(harness: &Harness, request: &[u8]) -> TcpStream {
    let verified = || harness.metrics.deliveries.verified.with_label_values(&["stripe", "secret"]).get();
    let before = verified();
    let mut line = TcpStream::connect(harness.address()).await.expect("the server listens");
    line.write_all(request).await.expect("the server reads");
    while verified() == before {
        yield_now().await;
    }
    line
}

/// A request as it stands on the wire, with the server's answer to be the last on its connection.
fn request(harness: &Harness, id: &str) -> Vec<u8> {
    let delivery = harness.delivery("stripe", id);
    let head = format!("POST {} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: ", delivery.target);
    let mut out = format!("{head}{}\r\n", delivery.body.len()).into_bytes();
    for (name, value) in &delivery.headers {
        out.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    out.extend_from_slice(&[b"\r\n", &delivery.body[..]].concat());
    out
}

async fn answer(mut line: TcpStream) -> String {
    let mut text = String::new();
    line.read_to_string(&mut text).await.expect("the server closes without a reset");
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[tokio::test]
async fn fifty_copies_over_sockets_are_one_frame_and_the_same_bytes_after_300_hung_up() {
    let harness = serving();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let request = request(&harness, "evt_1");
    for _ in 0..300 {
        let line = sends(&harness, &request).await;
        line.set_zero_linger().expect("a socket has this option");
        drop(line);
    }
    let mut lines = Vec::new();
    for _ in 0..50 {
        lines.push(sends(&harness, &request).await);
    }
    gate.wait_for(1);
    for line in &lines {
        let nothing = line.try_read(&mut [0]).expect_err("nobody may be answered yet");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
    gate.release();
    for line in lines {
        let expected =
            "HTTP/1.1 202 Accepted\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 6\r\n\r\nthanks";
        assert_eq!(answer(line).await, expected);
    }
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

#[tokio::test]
async fn a_failed_sync_answers_503_over_every_socket() {
    let harness = serving();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let mut lines = Vec::new();
    for number in 0..20 {
        lines.push(sends(&harness, &request(&harness, &format!("evt_{number}"))).await);
    }
    gate.wait_for(1);
    gate.fail(std::io::ErrorKind::Other);
    for line in lines {
        let answer = answer(line).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: "), "{answer}");
    }
    assert_eq!(harness.stored_ids(), [""; 0]);
}
