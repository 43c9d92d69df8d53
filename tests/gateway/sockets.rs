//! Tests that use real sockets: concurrent copies of an event, and senders that disconnect.

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

/// Sends a complete request, waits until the gateway has verified the delivery, and returns the open connection.
async fn send(harness: &Harness, request: &[u8]) -> TcpStream {
    let verified = || harness.metrics.deliveries.verified.with_label_values(&["stripe", "secret"]).get();
    let before = verified();
    let mut stream = TcpStream::connect(harness.address()).await.expect("the server listens");
    stream.write_all(request).await.expect("the server reads");
    while verified() == before {
        yield_now().await;
    }
    stream
}

/// Returns a request as HTTP/1.1 bytes. The request asks the server to close the connection after the response.
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

async fn response(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("the server closes without a reset");
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[tokio::test]
async fn copies_over_sockets_are_stored_once_after_disconnects() {
    let harness = serving();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let request = request(&harness, "evt_1");
    for _ in 0..300 {
        let stream = send(&harness, &request).await;
        stream.set_zero_linger().expect("a socket has this option");
        drop(stream);
    }
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(send(&harness, &request).await);
    }
    gate.wait_for(1);
    for stream in &streams {
        let no_data = stream.try_read(&mut [0]).expect_err("no response before the sync");
        assert_eq!(no_data.kind(), std::io::ErrorKind::WouldBlock);
    }
    gate.release();
    for stream in streams {
        let expected = "HTTP/1.1 202 Accepted\r\ncontent-type: text/plain\r\nx-content-type-options: nosniff\r\nconnection: close\r\ncontent-length: 6\r\n\r\nthanks";
        assert_eq!(response(stream).await, expected);
    }
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

#[tokio::test]
async fn a_failed_sync_answers_503_over_every_socket() {
    let harness = serving();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let mut streams = Vec::new();
    for number in 0..20 {
        streams.push(send(&harness, &request(&harness, &format!("evt_{number}"))).await);
    }
    gate.wait_for(1);
    gate.fail(std::io::ErrorKind::Other);
    for stream in streams {
        let response = response(stream).await;
        assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("\r\nretry-after: "), "{response}");
    }
    assert_eq!(harness.stored_ids(), [""; 0]);
}
