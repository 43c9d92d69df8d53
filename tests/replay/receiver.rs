//! A program that receives requests over HTTP/1.1. The test decides when and with which status it answers each one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::process::TIMEOUT;

/// A running program. It ends with the test process.
pub struct Receiver {
    address: SocketAddr,
    requests: mpsc::Receiver<Request>,
    answers_all: Arc<AtomicBool>,
}

/// A request that waits for its answer.
pub struct Request {
    pub line: String,
    pub body: Vec<u8>,
    fields: Vec<(String, String)>,
    answer: Sender<u16>,
}

impl Receiver {
    pub fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the listener is open");
        let (sender, requests) = mpsc::channel();
        let answers_all = Arc::<AtomicBool>::default();
        let is_automatic = answers_all.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (sender, is_automatic) = (sender.clone(), is_automatic.clone());
                std::thread::spawn(move || serve(connection, &sender, &is_automatic));
            }
        });
        Receiver { address, requests, answers_all }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Waits for the next request.
    pub fn next(&self) -> Request {
        self.requests.recv_timeout(TIMEOUT).expect("a request arrives")
    }

    /// Answers all waiting and all later requests with 200.
    pub fn answer_all(&self) {
        self.answers_all.store(true, SeqCst);
    }
}

impl Request {
    /// Returns the value of a header field. Panics if the request does not have exactly one such field.
    pub fn field(&self, name: &str) -> &str {
        let found: Vec<&(String, String)> = self.fields.iter().filter(|(other, _)| other == name).collect();
        let [(_, value)] = found[..] else { panic!("expected one field {name} in {:?}", self.fields) };
        value
    }

    pub fn answer(self, status: u16) {
        let _ = self.answer.send(status);
    }
}

/// Reads requests until the client closes the connection.
fn serve(connection: TcpStream, requests: &Sender<Request>, is_automatic: &AtomicBool) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    loop {
        let head: Vec<String> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let field = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let fields: Vec<(String, String)> = head.iter().skip(1).filter_map(field).collect();
        let length = fields.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut status = 200;
        if !is_automatic.load(SeqCst) {
            let (answer, answered) = mpsc::channel();
            requests.send(Request { line: head.first()?.clone(), body, fields, answer }).ok()?;
            status = loop {
                match answered.recv_timeout(LOOK) {
                    Ok(status) => break status,
                    Err(RecvTimeoutError::Timeout) if !is_automatic.load(SeqCst) => {}
                    Err(_) => break 200,
                }
            };
        }
        write!(&connection, "HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

/// Interval at which a waiting request looks for [`Receiver::answer_all`].
const LOOK: Duration = Duration::from_millis(10);
